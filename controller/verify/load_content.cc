#include "controller/verify/load_content.h"

#include <fcntl.h>

#include <memory>
#include <optional>

#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/format/segment.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::verify {
namespace {

absl::Status Copy(restore::SnapshotReader& reader, dump::LoadProcess& load, const Progress& progress) {
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
                         const dump::HelperOptions& helper, const Progress& progress) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<restore::SnapshotReader> reader, snapshots.Open(snapshot, {}));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  const auto text_bytes = static_cast<int64_t>(uint64_t{reader->geometry().page_size} * reader->geometry().page_count);
  auto load = dump::LoadProcess::Start(helper, fd.get(), io::DirectoryOf(path), most_bytes, text_bytes);
  absl::Status status = load.ok() ? Copy(*reader, **load, progress) : load.status();
  if (!status.ok()) io::RemoveFile(path).IgnoreError();
  return status;
}

absl::StatusOr<int64_t> ReadFiles(restore::SnapshotReaderFactory& snapshots, const SnapshotId& snapshot, const files::FilesHelper& helper,
                                  const Progress& progress) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<restore::SnapshotReader> reader, snapshots.Open(snapshot, {}));
  format::ChunkDecompressor decompressor;
  format::SegmentReader segments(format::Content::kFiles);
  std::optional<restore::StoredChunk> chunk;
  Bytes text;
  uint64_t read = 0;
  const auto more = [&]() -> absl::StatusOr<ByteView> {
    for (text.clear(); text.empty();) {
      LF_ASSIGN_OR_RETURN(chunk, reader->Next());
      if (!chunk.has_value()) {
        LF_RETURN_IF_ERROR(segments.Finish());
        break;
      }
      LF_RETURN_IF_ERROR(restore::Unpack(*chunk, reader->geometry().page_size, decompressor));
      LF_RETURN_IF_ERROR(segments.Add(chunk->raw, [&](ByteView piece) {
        text.insert(text.end(), piece.begin(), piece.end());
        return absl::OkStatus();
      }));
      read += chunk->raw.size();
      LF_RETURN_IF_ERROR(progress(read));
    }
    return ByteView(text);
  };
  const auto bytes = static_cast<int64_t>(uint64_t{reader->geometry().page_size} * reader->geometry().page_count);
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<files::UnpackProcess> unpack, files::UnpackProcess::Start(helper, more, bytes));
  int64_t count = 0;
  std::string last;
  LF_RETURN_IF_ERROR(unpack->Run(
      [&](const files::Entry& entry) -> absl::Status {
        ++count;
        if (!files::IsEntryName(entry.name))
          return Error(absl::StatusCode::kDataLoss, "ARCHIVE_INVALID", "the archive has an entry that has no name below a root");
        // As a device refuses it (restore::FilesTree).
        if (!last.empty() && !files::ComesBefore(last, entry.name)) {
          return Error(absl::StatusCode::kDataLoss, "ARCHIVE_INVALID",
                       fmt::format("{} is in the archive twice or not in its order", CleanUtf8(entry.name, entry.name.size())),
                       "no device takes this snapshot; back the files up again");
        }
        last = entry.name;
        return absl::OkStatus();
      },
      [](ByteView) { return absl::OkStatus(); }));
  return count;
}

}  // namespace litefleet::verify
