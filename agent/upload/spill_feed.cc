#include "agent/upload/spill_feed.h"

#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::upload {

absl::StatusOr<std::optional<Chunk>> SpillFeed::Next() {
  if (spool_ != nullptr && taken_ < spool_->size()) return spool_->At(taken_++);
  if (ended_) return std::nullopt;
  return Read();
}

absl::StatusOr<std::optional<Chunk>> SpillFeed::Read() {
  const auto began = std::chrono::steady_clock::now();
  absl::StatusOr<std::optional<Chunk>> chunk = source_.Next();
  reading_ += std::chrono::steady_clock::now() - began;
  ended_ = chunk.ok() && !chunk->has_value();
  return chunk;
}

std::chrono::nanoseconds SpillFeed::MayWait() const {
  constexpr double kAhead = 3;
  const double total = static_cast<double>(format::DatabaseBytes(page_size(), page_count()));
  const double whole = read_bytes() > 0 ? std::clamp(total / static_cast<double>(read_bytes()), 1.0, kAhead) : 1.0;
  return patience_ + std::chrono::duration_cast<std::chrono::nanoseconds>(whole * std::chrono::duration<double>(reading_));
}

absl::StatusOr<bool> SpillFeed::ReadAhead(std::chrono::nanoseconds waited) {
  if (ended_ || waited < MayWait()) return false;
  LF_ASSIGN_OR_RETURN(std::optional<Chunk> chunk, Read());
  if (!chunk) return true;
  const absl::Status spilled = Spill(*std::move(chunk));
  spool_failed_ = !spilled.ok();
  if (!spilled.ok()) return spilled;
  return true;
}

absl::Status SpillFeed::Spill(Chunk chunk) {
  const uint64_t left = source_.bytes_to_come();
  if (spool_ == nullptr) {
    // Flash is not worn for what cannot fit anyway.
    if (!Spool::MayFit(left, options_)) {
      return Error(
          absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
          fmt::format("the link is slower than the disk, and the {} MiB of the database that are left do not fit into a spool of {} MiB",
                      left >> 20, options_.max_bytes >> 20),
          "raise `[limits] spool_bytes` of agent.toml");
    }
    LF_ASSIGN_OR_RETURN(spool_, Spool::Open(spool_file_, options_));
  }
  return spool_->Add(std::move(chunk), left);
}

}  // namespace litefleet::upload
