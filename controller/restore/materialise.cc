#include "controller/restore/materialise.h"

#include <fcntl.h>

#include <memory>
#include <optional>

#include "common/base/status.h"
#include "common/io/file.h"

namespace litefleet::restore {
namespace {

absl::Status Copy(SnapshotReader& reader, int fd, const std::string& path, absl::FunctionRef<absl::Status(uint64_t)> progress) {
  uint64_t written = 0;
  format::ChunkDecompressor decompressor;
  for (;;) {
    LF_ASSIGN_OR_RETURN(std::optional<StoredChunk> chunk, reader.Next());
    if (!chunk.has_value()) return absl::OkStatus();
    LF_RETURN_IF_ERROR(Unpack(*chunk, reader.geometry().page_size, decompressor));
    LF_RETURN_IF_ERROR(io::PwriteAll(fd, chunk->raw, uint64_t{chunk->first_page - 1} * reader.geometry().page_size, path));
    written += chunk->raw.size();
    LF_RETURN_IF_ERROR(progress(written));
  }
}

}  // namespace

absl::Status Materialise(SnapshotReaderFactory& snapshots, const SnapshotId& snapshot, const std::string& path,
                         absl::FunctionRef<absl::Status(uint64_t written)> progress) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<SnapshotReader> reader, snapshots.Open(snapshot, {}));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd fd, io::Open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  const absl::Status status = Copy(*reader, fd.get(), path, progress);
  if (!status.ok()) io::RemoveFile(path).IgnoreError();
  return status;
}

}  // namespace litefleet::restore
