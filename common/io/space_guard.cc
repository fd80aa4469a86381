#include "common/io/space_guard.h"

#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::io {

SpaceGuard::SpaceGuard(std::string directory, uint64_t reserve, std::string hint)
    : SpaceGuard(std::move(directory), reserve, std::move(hint), &FreeBytes) {}

SpaceGuard::SpaceGuard(std::string directory, uint64_t reserve, std::string hint, FreeBytesOf free_bytes)
    : directory_(std::move(directory)), reserve_(reserve), hint_(std::move(hint)), free_bytes_(std::move(free_bytes)) {}

absl::Status SpaceGuard::Wrote(uint64_t bytes) {
  since_ += bytes;
  if (since_ < kEvery) return absl::OkStatus();
  since_ = 0;
  LF_ASSIGN_OR_RETURN(const uint64_t available, free_bytes_(directory_));
  if (available >= reserve_) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted, "NOT_ENOUGH_SPACE",
               fmt::format("{} has {} bytes free, less than the reserve of {}", directory_, available, reserve_), hint_);
}

}  // namespace litefleet::io
