// For how long a pinned read transaction may go on; every source asks between its steps.
//
// Thread safety: a pure function but for what it reads of the file system.
#ifndef LITEFLEET_AGENT_CAPTURE_PIN_LIMITS_H_
#define LITEFLEET_AGENT_CAPTURE_PIN_LIMITS_H_

#include <chrono>
#include <string_view>

#include "absl/status/status.h"
#include "agent/capture/online_source.h"
#include "agent/capture/pinned_read.h"

namespace litefleet::capture {

// Errors: CANCELLED, WRITER_STALL, PIN_TOO_LONG, WAL_GROWTH (online_source.h). `done`: the share of the work that was done, 0 to 1.
absl::Status CheckPinLimits(const OnlineOptions& options, const PinnedRead& read, std::chrono::nanoseconds held, double done);

// WRITER_STALL where `held` is more than rollback_stall. `why` goes on from the database's name.
absl::Status CheckWriterStall(const OnlineOptions& options, std::string_view why, std::string_view hint, std::chrono::nanoseconds held,
                              double done);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_PIN_LIMITS_H_
