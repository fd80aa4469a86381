// The messages of one fetch as a sequence of chunks, their claims checked against what was asked for; their content is not looked at.
//
// Thread safety: none; one thread at a time. Ownership: borrows the stream, the order and what is wanted. Errors: FETCH_INVALID (kDataLoss)
// for anything that is not as was asked; FETCH_CUT (kUnavailable) for an end that comes too early; those of the stream.
#ifndef LITEFLEET_AGENT_RESTORE_FETCH_SEQUENCE_H_
#define LITEFLEET_AGENT_RESTORE_FETCH_SEQUENCE_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/fetch_stream.h"
#include "agent/restore/restorer.h"
#include "common/format/chunk_codec.h"

namespace litefleet::restore {

absl::Status FetchInvalid(std::string_view why);

// A chunk as it came.
struct ClaimedChunk {
  std::vector<PageRange> runs;
  uint32_t raw_bytes = 0;
  format::ChunkName name;
  format::Codec codec = format::Codec::kRaw;
  std::string data;
};

class ChunkSequence {
 public:
  ChunkSequence(FetchStream& stream, const v1::RestoreOrder& order, std::chrono::seconds timeout)
      : stream_(stream), order_(order), timeout_(timeout) {}
  virtual ~ChunkSequence() = default;
  // Nothing after the last one.
  virtual absl::StatusOr<std::optional<ClaimedChunk>> Next() = 0;

 protected:
  const v1::RestoreOrder& order() const { return order_; }
  // The next message behind the header, which is checked; false where the controller ended the stream well.
  absl::StatusOr<bool> ReadMessage(v1::FetchResponse& message);
  // The next chunk of any message; null where the stream ended well. Valid until the next call.
  absl::StatusOr<v1::FetchedChunk*> NextChunk();
  // Everything but whether its pages were wanted.
  absl::StatusOr<ClaimedChunk> Take(v1::FetchedChunk& fetched) const;

 private:
  FetchStream& stream_;
  const v1::RestoreOrder& order_;
  const std::chrono::seconds timeout_;
  v1::FetchResponse message_;
  int at_ = 0;
  bool header_seen_ = false;
};

// All extents from one on, without holes.
class ExtentSequence final : public ChunkSequence {
 public:
  ExtentSequence(FetchStream& stream, const v1::RestoreOrder& order, uint32_t first_extent, std::chrono::seconds timeout);
  absl::StatusOr<std::optional<ClaimedChunk>> Next() override;

 private:
  uint32_t next_;
  const uint32_t end_;
};

// Pages out of those that were wanted, ascending.
class PageSequence final : public ChunkSequence {
 public:
  PageSequence(FetchStream& stream, const v1::RestoreOrder& order, const WantedPages& wanted, std::chrono::seconds timeout)
      : ChunkSequence(stream, order, timeout), wanted_(wanted) {}
  absl::StatusOr<std::optional<ClaimedChunk>> Next() override;

 private:
  const WantedPages& wanted_;
  size_t at_ = 0;      // in wanted_.runs
  uint64_t next_ = 1;  // page
};

// The names of extents.
class NameSequence final : public ChunkSequence {
 public:
  using ChunkSequence::ChunkSequence;
  absl::StatusOr<std::optional<ClaimedChunk>> Next() override { return FetchInvalid("chunks were not asked for"); }
  // None after the last ones.
  absl::StatusOr<std::vector<format::ChunkName>> NextNames();

 private:
  uint32_t next_ = 0;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_FETCH_SEQUENCE_H_
