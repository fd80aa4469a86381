// Backups of the controller's own catalog: what stands in `catalog/<id>.catalog` of a store. FORMAT.md is their definition.
//
// The content is the file of an SQLite database, cut into blocks of 256 KiB, each compressed and checked for itself; the end proves order
// and completeness. Not for snapshots of devices. Thread safety: none; functions are pure. Memory: one block, raw and compressed.
#ifndef LITEFLEET_COMMON_FORMAT_CATALOG_BACKUP_H_
#define LITEFLEET_COMMON_FORMAT_CATALOG_BACKUP_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/chunk_codec.h"

namespace litefleet::format {

inline constexpr uint32_t kCatalogBackupVersion = 1;
inline constexpr uint32_t kCatalogBlockBytes = 256 << 10;

struct CatalogBackupHeader {
  uint64_t id = 0;  // as in the file's name
  int64_t made_at_ms = 0;
  uint32_t catalog_version = 0;  // migrations that the catalog has had
  friend bool operator==(const CatalogBackupHeader&, const CatalogBackupHeader&) = default;
};

// Turns content into the bytes of a backup, which `write` takes in order. An error of `write` ends it.
class CatalogBackupWriter {
 public:
  using Write = absl::FunctionRef<absl::Status(ByteView)>;

  CatalogBackupWriter();
  // Once, first.
  absl::Status Begin(const CatalogBackupHeader& header, Write write);
  // REQUIRES: 1 to kCatalogBlockBytes bytes; only the last block may be shorter.
  absl::Status Add(ByteView block, Write write);
  // Once, last.
  absl::Status Finish(Write write);

 private:
  ChunkCompressor compressor_;
  std::string stored_;
  std::array<std::byte, 32> chain_{};
  uint64_t blocks_ = 0;
  uint64_t raw_bytes_ = 0;
};

// Fewer bytes than asked for only at the end of the file.
using ReadBackupAt = absl::FunctionRef<absl::StatusOr<size_t>(uint64_t offset, std::span<std::byte> out)>;

// The header alone. Errors: kDataLoss CATALOG_BACKUP_DAMAGED, kFailedPrecondition CATALOG_BACKUP_TOO_NEW, those of `read`.
absl::StatusOr<CatalogBackupHeader> ReadCatalogBackupHeader(ReadBackupAt read);
// All of it, block by block; what `visit` got counts only when this returns OK. Errors: as above, and those of `visit`.
absl::StatusOr<CatalogBackupHeader> ReadCatalogBackup(ReadBackupAt read, absl::FunctionRef<absl::Status(ByteView)> visit);

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_CATALOG_BACKUP_H_
