// What a follower is told at its start, and whom it tells and asks afterwards: its options, and the rest of the agent.
//
// Thread safety: options are values; a FollowerHome is called by whoever has the follower, on any thread. Ownership: it outlives the
// follower.
#ifndef LITEFLEET_AGENT_FOLLOW_FOLLOWER_HOME_H_
#define LITEFLEET_AGENT_FOLLOW_FOLLOWER_HOME_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "agent/capture/online_source.h"
#include "agent/follow/moment.h"
#include "common/base/clock.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::follow {

struct FollowOptions {
  std::string database;
  capture::OnlineOptions source;  // path, timeouts, reserve
  std::chrono::milliseconds interval{1000};
  std::chrono::seconds lease{30};
  // Of frames. From three quarters of it on PASSIVE checkpoints are tried, before the application's own by default begin.
  uint64_t checkpoint_bytes = 4 << 20;
  // Above four times that, where all else came to nothing, a RESTART checkpoint: writers wait for it, or are told SQLITE_BUSY.
  bool allow_restart = false;
  // Of frames that wait to be shipped, as a multiple of checkpoint_bytes: above it for 10 s, or above twice as many, the hold is let go.
  // The smaller one is with allow_restart.
  uint64_t most_behind = 64, most_behind_with_restart = 4;
  // After a page diff: this many times as long as it took no other one.
  int compare_rest = 9;
  // The same after frames have come faster than they were shipped.
  std::chrono::milliseconds behind_rest{60'000};
  // What lasts no longer than a few syncs is no gap: a restart of the agent, a pause, a page diff that comes later.
  std::chrono::milliseconds short_gap{15'000};
  // Nothing is attached before the same others have been there for so long, or somebody at each look for five times as long: who opens a
  // database that nobody else has open may be about to ask for what no reader may be beside.
  std::chrono::milliseconds attach_after{2'000};
  // Files that never come to rest, since somebody comes and goes all the time, are compared nevertheless.
  std::chrono::milliseconds never_settles{5'000};
  // Without an answer of the controller for so long what waits goes into the spool; without a connection at once.
  std::chrono::milliseconds spool_after{10'000};
  // How often the whole database is read and compared with what the controller has.
  std::chrono::milliseconds prove_every{std::chrono::hours(24)};
  // Called while nothing is held, so that a test can say what comes in just that moment; empty: nothing.
  std::function<void()> while_aside = {};

  // Between two states that are further apart others are missing.
  std::chrono::nanoseconds MostApart() const { return std::max<std::chrono::nanoseconds>(short_gap, 2 * interval); }
};

// What the rest of the agent keeps for a follower, and is told by it.
class FollowerHome {
 public:
  virtual ~FollowerHome() = default;
  virtual uint64_t Timeline(const std::string& database) = 0;
  // What the files looked like when everything in them had been shipped as this snapshot; empty: not known.
  struct Rested {
    std::string facts;
    std::string snapshot_id;
    // Of the last sync before the agent's start; unset: not known.
    std::optional<SystemTime> synced_at = std::nullopt;
    // The last look of an agent that ended in order, which found nothing new; unset: it did not.
    std::optional<SystemTime> known_until = std::nullopt;
    std::optional<SystemTime> chain_checked_at = std::nullopt;
    bool agent_ran = false;  // since then: it is followed anew, by other settings
    // A gap that has not ended.
    struct Gap {
      Moment from;
      std::string reason;
      std::string message;
      bool told = true;  // else it is only when it has ended, and not where nothing was missed after all
    };
    std::optional<Gap> gap = std::nullopt;
  };
  virtual Rested Remembered(const std::string& database) = 0;
  virtual void Remember(const std::string& database, const Rested& rested) = 0;
  // The root of the database as it was just read, to be compared with the controller's; answered by Follower::ChainChecked, or never.
  virtual void CheckChain(const v1::ChainCheck& check) = 0;
  // A time without second-by-second coverage; `until` unset: it goes on.
  virtual void Gap(const std::string& database, const Moment& from, const std::optional<Moment>& until, std::string_view reason,
                   const std::string& message) = 0;
  // What not all databases may do at once: pages are compared or proven, or what was spooled is uploaded. Each is counted apart, so that
  // neither keeps the other one waiting.
  enum class Turn { kCompare, kDrain };
  // False: as many as may do that do it. Each true one is ended.
  virtual bool BeginTurn(Turn turn) = 0;
  virtual void EndTurn(Turn turn) = 0;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_FOLLOWER_HOME_H_
