// What a Follower remembers of moments: plain values. Thread safety: as their follower.
#ifndef LITEFLEET_AGENT_FOLLOW_FOLLOWER_PARTS_H_
#define LITEFLEET_AGENT_FOLLOW_FOLLOWER_PARTS_H_

#include <algorithm>
#include <array>
#include <chrono>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "agent/follow/moment.h"
#include "common/base/clock.h"
#include "common/base/proto_time.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::follow {

// The reason of a gap: what could not be sent had no room in the spool either.
inline constexpr std::string_view kCaptureSpoolFull = "CAPTURE_SPOOL_FULL";
// States go up so slowly that they are taken less often than a gap is long.
inline constexpr std::string_view kLinkSlow = "LINK_SLOW";
inline constexpr int kCheckpointRounds = 3;
inline constexpr std::chrono::seconds kLookAnyway{30};  // where nothing was noticed
inline constexpr std::chrono::seconds kLookAtLeast{1};  // for who waits, however long the interval is
// Frames wait to be shipped, or to be saved, for so long before it is too long.
inline constexpr std::chrono::seconds kBehindFor{10};
// Nothing is compared into a full spool for so long, unless something of it has gone.
inline constexpr std::chrono::minutes kFullFor{10};

// How far the WAL was, and how fast it had grown until then.
struct Filled {
  SteadyTime at;
  std::array<std::byte, 8> salts{};
  uint32_t frame = 0;
  double bytes_per_second = 0;
};

// Errors that follow each other closely.
struct Failing {
  SteadyTime since, last;
};

// That it was told to let go.
struct Released {
  SteadyTime at;
  Moment from;        // the newest state that is known to have been shipped
  std::string facts;  // where all was shipped; empty: not
  std::string why;
};

// What was taken then was acknowledged now.
inline void SetLastSync(v1::CaptureHealth& health, const Moment& taken, const Moment& now) {
  *health.mutable_last_sync_at() = ToProtoTime(now.at);
  // Where the clock was set in between, and nothing else is known, it may be less than nothing.
  const auto lag = std::max(std::chrono::nanoseconds(0), Between(taken, now));
  *health.mutable_lag() = ToProtoDuration(std::chrono::duration_cast<std::chrono::milliseconds>(lag));
}

// When the WAL is folded, and what came of it.
struct Checkpoints {
  SteadyTime at{}, restart_at{};  // not before
  std::chrono::milliseconds pause{0}, restart_wait{0};
  std::array<std::byte, 8> tried{};  // the generation in which rounds came to nothing
  Filled filled;
  // Another reader kept frames from being copied, from this place on.
  struct HeldBack {
    std::array<std::byte, 8> salts{};
    uint32_t copied = 0;
    bool operator==(const HeldBack&) const = default;
  };
  std::optional<HeldBack> held_back;  // by the last round of the attempt that runs, or ran last
  int held_back_for = 0;              // attempts in a row, at the same place
  bool HeldBackForLong() const { return held_back_for >= 3; }
  void NotHeldBack() {
    held_back.reset();
    held_back_for = 0;
    at = {};
  }
};

// What is known of the link, and of the spool that is used without it.
struct Spooling {
  std::optional<SteadyTime> offline_since;
  bool stalled = false;     // what is pending goes into the spool, although the controller can be reached
  SteadyTime full_until{};  // nothing is compared into it before that: it is full, or nothing is known to compare with
  SteadyTime drain_at{};    // not before
  SteadyTime small_at{};    // the same, until what takes long is merged while nothing is held
  std::chrono::milliseconds drain_backoff{0};
  bool draining = false;
  // While the controller can be reached the next sync is spooled not before that: one an interval, and more has to go than comes.
  SteadyTime sync_at{};
  std::chrono::nanoseconds sync_pause{0};
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_FOLLOWER_PARTS_H_
