// Continuous capture of one database: the state machine of README.md.
//
//   if (follower.Glance()) follower.Step(cancel);     // by whoever has it; Glance is cheap, Step may block on the network
//   follower.Notice();                                // any thread: somebody opened, closed or replaced the file
//
// Thread safety: Glance, Left, Peek, peek_at, Step, KeepBounds, LetGo, Resume and the destructor: one at a time, on any thread. Notice,
// ChainChecked and status: any thread. Ownership: the shipper's transport, the clock and what the functions of the options refer to outlive
// it. A lease bounds every hold: 30 s without progress, or free space below the reserve.
#ifndef LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_
#define LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_

#include <array>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "agent/capture/online_source.h"
#include "agent/follow/attached.h"
#include "agent/follow/continuity.h"
#include "agent/follow/follower_home.h"
#include "agent/follow/shipper.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::follow {

class Follower {
 public:
  Follower(FollowOptions options, Shipper& shipper, FollowerHome& home, const Clock& clock);
  ~Follower();
  Follower(const Follower&) = delete;
  Follower& operator=(const Follower&) = delete;

  // Whether there is something to do. Reads shared memory where the database is followed, else the clock.
  bool Glance();
  void Step(const CancelToken& cancel);
  // Between two looks, when peek_at() has come: whether Step is wanted, for a WAL that fills faster than the interval is long. Costs what
  // Glance costs; while followed, peek_at() is never in an interval in which nothing was committed.
  bool Peek();
  SteadyTime peek_at() const { return peek_at_; }

  // Right after Notice(true) or Notice(false): the others have gone, or the files; Step is wanted now.
  bool Left();

  // While it waits for whoever calls Step, since `waited`: lets go of a hold that has lasted too long or grown too much. No network.
  void KeepBounds(std::chrono::nanoseconds waited);

  // `opened`: somebody, the agent included, opened the database; else it was closed, or another file is there.
  void Notice(bool opened = false) {
    noticed_.store(true);
    if (opened) opened_.store(true);
  }
  // Any thread. That the controller has something else becomes doubt at the next look, and the base is sent anew.
  void ChainChecked(const v1::ChainChecked& checked);
  // Any thread. The controller has not what it should have: everything is compared at the next look.
  void CompareAgain() { compare_again_.store(true); }
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
  static constexpr int kCheckpointRounds = 3;
  enum class State { kDetached, kComparing, kFollowing, kLetGo, kReleased, kFailed };

  void StepDetached(const CancelToken& cancel);
  // Nobody has it open, and there is nothing to compare now: files are as they were when all was shipped, or not to be judged yet.
  bool Rests();
  void CompareDetached(const CancelToken& cancel);
  // It cannot be compared now. For longer than a hold would last there is a gap.
  void Waits(std::string_view reason, const std::string& message);
  void Attach(const CancelToken& cancel);
  void CompareAttached(const CancelToken& cancel);
  // Until pages may be compared again nothing of the WAL is needed: it is kept small where that is allowed, else nothing is held.
  void RestBeforeComparing();
  absl::StatusOr<Shipper::Compared> Compare(const CancelToken& cancel);
  void StepFollowing(const CancelToken& cancel);
  // Looks and ships what is new. False: not now, or nothing can be followed any more.
  bool LookAndShip(const CancelToken& cancel);
  bool ShipPending(const CancelToken& cancel);
  // There is nothing but what was shipped or saved.
  bool NothingNew();
  // More waits to be shipped than a hold may keep.
  bool Behind();
  void FallBehind();
  // Takes what is new out of the WAL without waiting for the network; it is pending then. False: it is too much (what was saved before
  // stands), or there is doubt.
  bool LookAndSave();
  // The same, but doubt is only named: for whoever is within a call of attached_.
  bool TrySave(std::string& doubt);
  bool HandOver();
  void CheckpointWhenDue(const CancelToken& cancel);
  // Hold, PASSIVE, hold, ... until a hold is on mark 0. False: not now.
  bool CheckpointInRounds(const CancelToken& cancel);
  // In rounds, and the next time in one generation of the WAL with the help of the application.
  bool CheckpointOnce(const CancelToken& cancel);
  // Lets the application start its WAL over itself, and takes up what was committed meanwhile. False: it did not, or there is doubt.
  bool StandAside();
  // A RESTART, where it is allowed, due and not tried in vain a moment ago.
  bool RestartWhenDue();
  bool MayRestart();
  absl::StatusOr<bool> Restart(const std::function<bool()>& save);
  bool TakeEnd(const capture::WalPlace& before, const capture::WalState& look);
  // Sets peek_at_ by how fast the WAL grows. True: a checkpoint is due.
  bool PlanPeek();
  // What is pending and what was looked at.
  void Forget();
  void ProveWhenDue(const CancelToken& cancel);
  // What was captured is not what the database is: doubt, and a base of its own.
  void ChainDiffers();
  void Leave(const CancelToken& cancel);
  // What was saved when it was left goes on its way, without a hold. False: it did not arrive, and is found by comparing.
  bool SendLast(const CancelToken& cancel);
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
  // Of the newest state that is known to be what the database was.
  SystemTime KnownUntil() const;
  void BeginGap(std::string_view reason, const std::string& message);
  void EndGap(SystemTime until);

  const FollowOptions options_;
  Shipper& shipper_;
  FollowerHome& home_;
  const Clock& clock_;
  std::atomic<bool> noticed_{true};
  std::atomic<bool> opened_{false};

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
  SteadyTime peek_at_ = SteadyTime::max();
  bool peeked_ = false;         // the next step is for a checkpoint alone
  SteadyTime checkpoint_at_{};  // not before
  SteadyTime restart_at_{};     // not before
  std::chrono::milliseconds restart_wait_{0};
  struct Filled {
    SteadyTime at;
    std::array<std::byte, 8> salts{};
    uint32_t frame = 0;
    double bytes_per_second = 0;
  };
  std::array<std::byte, 8> tried_{};  // the generation in which rounds came to nothing
  Filled filled_;                     // how far the WAL was, and how fast it had grown until then
  std::chrono::milliseconds backoff_{0};
  struct Failing {
    SteadyTime since, last;
  };
  std::optional<Failing> not_handed_over_;  // by errors that follow each other closely
  bool has_turn_ = false;                   // to compare
  bool in_compare_ = false;                 // the shipper is in use
  bool fresh_base_ = false;                 // nothing of the ledger is believed by the next page diff
  bool dirty_ = true;                       // while detached: files may have changed
  std::string rested_facts_;                // while detached
  bool unsure_ = false;                     // whether anybody came between the close and rested_facts_
  std::optional<SteadyTime> waits_since_;   // while detached, with what may not have been shipped
  struct Released {
    SteadyTime at;
    SystemTime from;    // the newest state that is known to have been shipped
    std::string facts;  // where all was shipped; empty: not
    std::string why;
  };
  std::optional<Released> released_;
  SystemTime current_at_{};  // the newest state that was shipped
  std::optional<FollowerHome::Rested::Gap> gap_;
  std::optional<SteadyTime> behind_since_;

  std::atomic<bool> chain_differs_{false};  // the controller says so
  std::atomic<bool> compare_again_{false};

  mutable Mutex mu_;
  std::string chain_asked_ ABSL_GUARDED_BY(mu_);  // the snapshot whose root the controller was asked for
  Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_
