// Looks at the free space of a directory again and again while much is written there of which nobody knows how much it will be.
//
// Thread safety: none.
#ifndef LITEFLEET_COMMON_IO_SPACE_GUARD_H_
#define LITEFLEET_COMMON_IO_SPACE_GUARD_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace litefleet::io {

// Free bytes where `path` is; FreeBytes but in tests.
using FreeBytesOf = std::function<absl::StatusOr<uint64_t>(const std::string& path)>;

class SpaceGuard {
 public:
  static constexpr uint64_t kEvery = 8 << 20;

  // `reserve`: bytes that stay free. `hint`: what is to be done where they do not.
  SpaceGuard(std::string directory, uint64_t reserve, std::string hint);
  SpaceGuard(std::string directory, uint64_t reserve, std::string hint, FreeBytesOf free_bytes);

  // So many more bytes were written. kResourceExhausted NOT_ENOUGH_SPACE; those of FreeBytesOf.
  absl::Status Wrote(uint64_t bytes);

 private:
  const std::string directory_;
  const uint64_t reserve_;
  const std::string hint_;
  const FreeBytesOf free_bytes_;
  uint64_t since_ = 0;  // it was looked at
};

}  // namespace litefleet::io

#endif  // LITEFLEET_COMMON_IO_SPACE_GUARD_H_
