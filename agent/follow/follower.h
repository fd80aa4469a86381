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

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "agent/capture/online_source.h"
#include "agent/follow/attached.h"
#include "agent/follow/continuity.h"
#include "agent/follow/follower_home.h"
#include "agent/follow/follower_parts.h"
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
  // Glance costs; while followed, peek_at() is not in an interval of a second or less in which nothing was committed.
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
    std::optional<Moment> known_until;       // the same, where the newest state waits in the spool
  };
  Status status() const;

 private:
  enum class State { kDetached, kComparing, kFollowing, kLetGo, kReleased, kFailed };

  void StepDetached(const CancelToken& cancel);
  // Those who have it open are no longer just coming.
  bool TheyStay();
  // Nobody has it open, and there is nothing to compare now: files are as they were when all was shipped, or not to be judged yet.
  bool Rests();
  void CompareDetached(const CancelToken& cancel);
  // It cannot be compared now. For longer than a hold would last there is a gap.
  void Waits(std::string_view reason, const std::string& message);
  void Attach(const CancelToken& cancel);
  void CompareAttached(const CancelToken& cancel);
  // Until pages may be compared again nothing of the WAL is needed: it is kept small where that is allowed, else nothing is held.
  void RestBeforeComparing();
  // `at_rest`: what the files look like that nobody has open, where they are read as such; empty: not.
  absl::StatusOr<Shipper::Compared> Compare(const std::string& at_rest, const CancelToken& cancel);
  void StepFollowing(const CancelToken& cancel);
  // Looks and ships what is new. False: not now, or nothing can be followed any more.
  bool LookAndShip(const CancelToken& cancel);
  // The same of a state that was seen a moment ago, and is held: between these two.
  bool ShipUpTo(const capture::WalState& look, const Moment& before, const Moment& after, const CancelToken& cancel);
  bool ShipPending(const CancelToken& cancel);
  // There is nothing but what was shipped or saved.
  bool NothingNew();
  // More waits to be shipped than a hold may keep.
  bool Behind() { return BehindBy(shipped_); }
  // The same of what came after `place`.
  bool BehindBy(const capture::WalPlace& place);
  uint64_t BytesBehind(const capture::WalPlace& place);
  uint64_t MostBehind() const;
  void FallBehind(const CancelToken& cancel);
  // Takes what is new out of the WAL without waiting for the network; it is pending then. False: it is too much (what was saved before
  // stands), or there is doubt.
  bool LookAndSave();
  // Each sync arrives, but for long what comes meanwhile has been too much to be saved: no checkpoint comes about, and the WAL only grows.
  bool TooMuchToCheckpoint();
  // The same, but doubt is only named: for whoever is within a call of attached_.
  bool TrySave(std::string& doubt);
  bool HandOver();
  // All of the WAL was shipped and copied: the next hold is in nobody's way. False: it cannot be handed over.
  bool HandOverWhenInTheWay();
  // An application's FULL, RESTART or TRUNCATE has waited for as long as it may, and what is held may be why.
  bool MustGiveWay();
  // The same, whatever is held.
  bool CheckpointWaits();
  // Lets it go on: what was not shipped is saved, or kept by a newer hold, or else there is a gap. No network.
  void GiveWay();
  // As LookAndSave; what may have been committed already is saved as it is, and then nothing can be added to it.
  bool SaveAll();
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
  // Sets peek_at_. True: a checkpoint is due.
  bool PlanPeek();
  // The same by how fast the WAL grows alone.
  bool PlanCheckpoint();
  // When it is looked at again whether somebody waits for what is held, where no look of each interval is soon enough.
  SteadyTime LookForWaitersAt() const;
  void Forget();  // what is pending and what was looked at
  void ProveWhenDue(const CancelToken& cancel);
  void Proven(SystemTime at);
  // It could not be; after a while that is said.
  void ProveLater(std::chrono::nanoseconds wait);
  // When it is due, by when it was done last.
  void PlanProof();
  // What was captured is not what the database is: doubt, and a base of its own.
  void ChainDiffers();
  void Leave(const CancelToken& cancel);
  // What was saved when it was left goes on its way, without a hold. False: it did not arrive, and is found by comparing.
  bool SendLast(const CancelToken& cancel);
  void Doubt(std::string_view reason);
  // The lease is over.
  bool Overdue();
  void GiveUpHold(std::string_view reason, const std::string& message);
  // Something of attached_ failed while nothing, or not the newest state, was held.
  void HoldLost(const absl::Status& status);
  void Fail(const absl::Status& status);
  void Enter(State state, const std::string& message = {});
  void Progress() { progress_at_ = clock_.Steady(); }
  void Acknowledged(const std::string& snapshot_id, const Moment& taken);
  void Unchanged(const Moment& at);
  // A state, or a look that found nothing new, is about to be known: whether it ends a gap of a slow link.
  void KnownAgain(const Moment& at);
  // A state that has something new, behind which none is known for longer than a gap is long: what came in between has none.
  void NoteApart(const Moment& taken, const std::string& message);
  // More is committed than was taken for longer than a gap is long, since older states go first.
  bool PausedForLong() const;
  bool Connected();
  bool MustSpool();  // what is pending
  void Spooled(const Moment& taken);
  // Where pages that differ go: nowhere, for now.
  enum class Way { kNone, kController, kSpool };
  Way CompareWay();
  // While nothing is held, for as long as it takes, or until the link returns.
  void KeepSpoolSmall(const CancelToken& cancel);
  bool DrainDue();
  void DrainWhenDue(const CancelToken& cancel);
  void PlanDrain();  // however long the interval is, what is spooled is on its way: sets peek_at_
  // Beside the upload of what is spooled; false: it has to end.
  bool GoOnBeside(State began_as, SteadyTime& looked_at, const CancelToken& cancel);
  // Beside it: others have a detached database open and stay, and it can be compared now.
  bool MustAttach();
  void Drained(const Shipper::Drained& drained, std::chrono::nanoseconds took, bool stopped);
  std::set<pid_t> OthersThere() const { return OthersIn(capture::ReadLocks()); }
  std::set<pid_t> OthersIn(std::span<const capture::FileLock> locks) const;
  bool OthersAttached() const { return !OthersThere().empty(); }
  // Why the disk has too little room for a WAL that grows; empty: it has not.
  std::string ShortOfSpace() const;
  // Of the newest state that is known to be what the database was.
  Moment KnownUntil() const;
  void BeginGap(std::string_view reason, const std::string& message);
  void EndGap(Moment until);

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
  bool saved_ = false, tried_to_send_ = false;  // saved: the WAL is needed for it no more
  std::string session_id_, refused_;            // of what is pending, or of a page diff; why the controller took nothing of it
  SteadyTime progress_at_{}, retry_at_{}, compare_at_{}, prove_at_{};
  SteadyTime busy_at_{};  // when a sync last did something
  SteadyTime peek_at_ = SteadyTime::max();
  bool peeked_ = false;  // the next step is for a checkpoint alone
  Checkpoints checkpoints_;
  std::chrono::milliseconds backoff_{0};
  bool FailsForLong(std::optional<Failing>& failing) const;
  std::optional<Failing> not_handed_over_, not_looked_at_;  // by errors that follow each other closely
  bool has_turn_ = false, in_compare_ = false;              // to compare; the shipper is in use
  bool fresh_base_ = false;                                 // nothing of the ledger is believed by the next page diff
  bool dirty_ = true;                                       // while detached: files may have changed
  std::string rested_facts_;                                // while detached
  std::string remembered_;                                  // of them, what the rest of the agent was told last; empty: it is to be told
  std::set<pid_t> there_;                                   // while detached: others, in all looks since there_since_
  SteadyTime there_since_{}, somebody_since_{};
  bool unsure_ = false;                           // whether anybody came between the close and rested_facts_
  std::optional<SteadyTime> waits_since_, came_;  // while detached: with what may not be shipped; others, in the last page diff
  std::optional<Released> released_;
  Spooling spooling_;
  Moment current_;  // the newest state that was shipped, or spooled
  std::optional<FollowerHome::Rested::Gap> gap_;
  std::optional<SteadyTime> behind_since_, too_much_since_;  // too_much: to be saved
  std::optional<SteadyTime> checkpoint_waits_since_;         // an application's, as far as is known
  SteadyTime locks_at_{};                                    // when the table of locks was read for it

  std::atomic<bool> chain_differs_{false};  // the controller says so
  std::atomic<bool> compare_again_{false};

  mutable Mutex mu_;
  std::string chain_asked_ ABSL_GUARDED_BY(mu_);  // the snapshot whose root the controller was asked for
  Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_FOLLOWER_H_
