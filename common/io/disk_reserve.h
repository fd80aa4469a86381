// What the agent leaves free wherever it writes much: beside a database for a restore, in the state directory for a spool. One setting,
// `[limits] disk_reserve`; the doctor and plans look at the same.
//
// Thread safety: values.
#ifndef LITEFLEET_COMMON_IO_DISK_RESERVE_H_
#define LITEFLEET_COMMON_IO_DISK_RESERVE_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace litefleet::io {

class DiskReserve {
 public:
  static constexpr uint64_t kDefaultBytes = 64 << 20;
  static constexpr uint64_t kLeastBytes = 1 << 20;

  // kDefaultBytes, or a tenth of a file system on which that is less, and at least kLeastBytes.
  DiskReserve() = default;
  // As configured, whatever the size of the file system.
  explicit DiskReserve(uint64_t bytes) : bytes_(bytes), configured_(true) {}

  uint64_t Of(uint64_t file_system_bytes) const {
    return configured_ ? bytes_ : std::max(std::min(file_system_bytes / 10, bytes_), kLeastBytes);
  }
  // On the file system that holds `path`. Errors: ErrnoError.
  absl::StatusOr<uint64_t> At(const std::string& path) const;

  friend bool operator==(const DiskReserve&, const DiskReserve&) = default;

 private:
  uint64_t bytes_ = kDefaultBytes;
  bool configured_ = false;
};

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_DISK_RESERVE_H_
