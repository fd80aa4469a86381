// Continuous capture of one database: the state machine of README.md.
//
//   if (follower.Glance()) follower.Step(cancel);     // by whoever has it; Glance is cheap, Step may block on the network
//   follower.Notice();                                // any thread: somebody opened, closed or replaced the file
//
// Thread safety: Glance, Step, LetGo, Resume and the destructor: one at a time, on any thread. Notice and status: any thread. Ownership:
// the shipper's transport, the clock and what the functions of the options refer to outlive it. A lease bounds every hold: 30 s without
// progress, or free space below the reserve.
#ifndef LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_
#define LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "agent/capture/online_source.h"
#include "agent/follow/attached.h"
#include "agent/follow/continuity.h"
#include "agent/follow/shipper.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::follow {

struct FollowOptions {
  std::string database;
  capture::OnlineOptions source;  // path, timeouts, reserve
  std::chrono::milliseconds interval{1000};
  std::chrono::seconds lease{30};
  uint64_t checkpoint_bytes = 4 << 20;  // of frames
  // After a page diff: this many times as long as it took no other one.
  int compare_rest = 9;
  // How often the whole database is read and compared with what the controller has.
  std::chrono::milliseconds prove_every{std::chrono::hours(24)};
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
  };
  virtual Rested Remembered(const std::string& database) = 0;
  virtual void Remember(const std::string& database, const Rested& rested) = 0;
  // A time without second-by-second coverage; `until` unset: it goes on.
  virtual void Gap(const std::string& database, SystemTime from, std::optional<SystemTime> until, std::string_view reason,
                   const std::string& message) = 0;
  // False: as many page diffs as may run do run.
  virtual bool BeginCompare() = 0;
  virtual void EndCompare() = 0;
};

class Follower {
 public:
  Follower(FollowOptions options, Shipper& shipper, FollowerHome& home, const Clock& clock);
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // Whether there is something to do. Reads shared memory where the database is followed, else the clock.
  bool Glance();
  void Step(const CancelToken& cancel);

  void Notice() { noticed_.store(true); }
  // Nothing is attached until Resume. What was not shipped is found by comparing.
  void LetGo(std::string_view why);
  void Resume();

  struct Status {
    v1::CaptureHealth health;
    std::string snapshot_id;                 // of the last acknowledged state; empty: none in this run
    std::optional<SystemTime> unchanged_at;  // the last look that found just that
  };
  Status status() const;

 private:
  enum class State { kDetached, kComparing, kFollowing, kLetGo, kReleased, kFailed };

  void StepDetached(const CancelToken& cancel);
  void CompareDetached(const CancelToken& cancel);
  void Attach(const CancelToken& cancel);
  void CompareAttached(const CancelToken& cancel);
  absl::StatusOr<Shipper::Compared> Compare(const CancelToken& cancel);
  void StepFollowing(const CancelToken& cancel);
  // Looks and ships what is new. False: not now, or nothing can be followed any more.
  bool LookAndShip(const CancelToken& cancel);
  bool ShipPending(const CancelToken& cancel);
  // Takes what is new out of the WAL without waiting for the network; it is pending then. False: it is too much, or there is doubt.
  bool LookAndSave();
  bool HandOver();
  void CheckpointWhenDue(const CancelToken& cancel);
  void ProveWhenDue(const CancelToken& cancel);
  void Leave(const CancelToken& cancel);
  void Doubt(std::string_view reason);
  // The lease is over.
  bool Overdue();
  void GiveUpHold(std::string_view reason, const std::string& message);
  void Fail(const absl::Status& status);
  void Enter(State state, const std::string& message = {});
  void Progress() { progress_at_ = clock_.Steady(); }
  void Acknowledged(const std::string& snapshot_id, SystemTime taken_at);
  bool OthersAttached() const;
  // Why the disk has too little room for a WAL that grows; empty: it has not.
  std::string ShortOfSpace() const;
  void BeginGap(std::string_view reason, const std::string& message);
  void EndGap(SystemTime until);

  const FollowOptions options_;
  Shipper& shipper_;
  FollowerHome& home_;
  const Clock& clock_;
  std::atomic<bool> noticed_{true};

  State state_ = State::kDetached;
  SteadyTime look_again_{};  // in states in which nothing is looked at every interval
  std::unique_ptr<Attached> attached_;
  capture::WalPlace shipped_;
  std::optional<capture::WalState> seen_;  // the header of the last look that needs nothing any more
  std::optional<Stretch> pending_;
  bool saved_ = false;      // the WAL is needed for it no more
  std::string session_id_;  // of what is pending, or of a page diff
  SteadyTime progress_at_{};
  SteadyTime retry_at_{};
  SteadyTime compare_at_{};
  SteadyTime prove_at_{};
  SteadyTime busy_at_{};  // when a sync last did something
  std::chrono::milliseconds backoff_{0};
  bool has_turn_ = false;     // to compare
  bool in_compare_ = false;   // the shipper is in use
  bool dirty_ = true;         // while detached: files may have changed
  std::string rested_facts_;  // while detached
  SystemTime current_at_{};   // the newest state that was shipped
  struct OpenGap {
    SystemTime from;
    std::string reason;
    std::string message;
  };
  std::optional<OpenGap> gap_;

  mutable Mutex mu_;
  Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_
