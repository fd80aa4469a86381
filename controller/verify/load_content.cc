#include "controller/verify/load_content.h"

#include <fcntl.h>

#include <memory>
#include <optional>

#include "common/base/status.h"
#include "common/format/segment.h"
#include "common/io/file.h"

namespace litefleet::verify {
namespace {

absl::Status Copy(restore::SnapshotReader& reader, dump::LoadProcess& load, const std::function<absl::Status(uint64_t)>& progress) {
  uint64_t read = 0;
  format::ChunkDecompressor decompressor;
  format::SegmentReader segments(format::Content::kSql);
  for (;;) {
    LF_ASSIGN_OR_RETURN(std::optional<restore::StoredChunk> chunk, reader.Next());
    if (!chunk.has_value()) break;
    LF_RETURN_IF_ERROR(restore::Unpack(*chunk, reader.geometry().page_size, decompressor));
    LF_RETURN_IF_ERROR(segments.Add(chunk->raw, [&](ByteView text) { return load.Write(text); }));
    read += chunk->raw.size();
    LF_RETURN_IF_ERROR(progress(read));
  }
  LF_RETURN_IF_ERROR(segments.Finish());
  return load.Finish();
}

}  // namespace

absl::Status LoadContent(restore::SnapshotReaderFactory& snapshots, const SnapshotId& snapshot, const std::string& path, int64_t most_bytes,
                         const dump::HelperOptions& helper, const std::function<absl::Status(uint64_t read)>& progress) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<restore::SnapshotReader> reader, snapshots.Open(snapshot, {}));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  const auto text_bytes = static_cast<int64_t>(uint64_t{reader->geometry().page_size} * reader->geometry().page_count);
  auto load = dump::LoadProcess::Start(helper, fd.get(), io::DirectoryOf(path), most_bytes, text_bytes);
  absl::Status status = load.ok() ? Copy(*reader, **load, progress) : load.status();
  if (!status.ok()) io::RemoveFile(path).IgnoreError();
  return status;
}

}  // namespace litefleet::verify
