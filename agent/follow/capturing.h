// All databases that this agent follows, on a fixed number of threads: one that looks, four that ship.
//
//   Capturing capturing(options, memory, transport, rate, clock);
//   capturing.Set(databases);             // at start and at a reload
//   auto pause = capturing.Pause("app", "a restore", cancel);  // it is about to write; it is followed again when the pause goes
//
// Thread safety: all members may be called from any thread. Ownership: what the constructor takes outlives it. Lock order: mu_ alone; no
// follower is called under it. Deadlines: Pause and Set wait for what runs to see its cancel (100 ms, SQLite's calls and syncs aside), for
// at most 30 s each, and see a cancel of their own meanwhile within 100 ms.
#ifndef LITEFLEET_AGENT_FOLLOW_CAPTURING_H_
#define LITEFLEET_AGENT_FOLLOW_CAPTURING_H_

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/follow/follower.h"
#include "agent/follow/shipper.h"
#include "agent/follow/watch.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/io/file.h"

namespace litefleet::follow {

struct Followed {
  FollowOptions follow;
  ShipperOptions shipper;
};

// What the agent keeps for its followers; as FollowerHome. Called from any thread.
class CaptureMemory {
 public:
  virtual ~CaptureMemory() = default;
  virtual uint64_t Timeline(const std::string& database) = 0;
  virtual FollowerHome::Rested Remembered(const std::string& database) = 0;
  virtual void Remember(const std::string& database, const FollowerHome::Rested& rested) = 0;
  virtual void CheckChain(const v1::ChainCheck& check) = 0;
  virtual void Gap(const std::string& database, const Moment& from, const std::optional<Moment>& until, std::string_view reason,
                   const std::string& message) = 0;
};

class Capturing {
 public:
  struct Options {
    int shippers = 4;
    int comparisons = 2;                                             // at once
    int drains = 1;                                                  // the same, of what was spooled
    int saved = 16;                                                  // databases with pages in memory at once
    std::chrono::milliseconds take_wait = std::chrono::seconds(30);  // for what runs, by Set
  };
  Capturing(Options options, CaptureMemory& memory, upload::UploadTransport& transport, RateLimit& rate, const Clock& clock);
  ~Capturing();  // stops
  Capturing(const Capturing&) = delete;
  Capturing& operator=(const Capturing&) = delete;

  // In the place of those of before; one whose settings have changed is let go and taken up again; where what runs does not end in time,
  // by TakeUp. The first call starts the threads.
  // Errors: kCancelled CANCELLED, which is for the end of the program: nothing new is followed then.
  absl::Status Set(std::vector<Followed> databases, const CancelToken& cancel);
  // Follows what Set could not since the capture before it had not ended, and has now. Does not wait.
  absl::Status TakeUp();
  // Lets go of everything; what runs is interrupted. Idempotent.
  void Stop();

  class Paused;
  // Nothing of the agent's capture touches the database while the result lives. One that is not followed is paused as well as any.
  // Errors: kDeadlineExceeded CAPTURE_BUSY; kCancelled CANCELLED: `cancel` was set before it was let go of. Either way it is followed on.
  absl::StatusOr<std::shared_ptr<Paused>> Pause(const std::string& database, std::string_view why, const CancelToken& cancel,
                                                std::chrono::milliseconds most = std::chrono::seconds(30));

  // The controller's answer; of a database that is not followed any more nothing.
  void ChainChecked(const v1::ChainChecked& checked);
  // As Follower::CompareAgain.
  void CompareAgain(const std::string& database);
  std::optional<Follower::Status> StatusOf(const std::string& database) const;

 private:
  struct Slot;
  using Slots = std::map<std::string, std::shared_ptr<Slot>>;
  absl::Status Add(std::vector<Followed> databases) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<Slot> SlotOf(const std::string& database) const ABSL_LOCKS_EXCLUDED(mu_);
  void Look() ABSL_LOCKS_EXCLUDED(mu_);
  void Work() ABSL_LOCKS_EXCLUDED(mu_);
  // What is due of one round; when the next is.
  SteadyTime LookRound() ABSL_LOCKS_EXCLUDED(mu_);
  // Of databases that have waited for their turn for a while: a hold has its bounds then too.
  void KeepBounds(SteadyTime now) ABSL_LOCKS_EXCLUDED(mu_);
  // A database that is followed, and that somebody opened or closed, is looked at at once.
  void DrainWatch() ABSL_LOCKS_EXCLUDED(mu_);
  // The file that is at the path now.
  void KeepWatched(Slot& slot) ABSL_LOCKS_EXCLUDED(mu_);
  // Of files that nobody follows any more.
  void RemoveWatches(const std::vector<std::shared_ptr<Slot>>& slots);
  // Waits until nobody has the slot, and has it then. False: not until the deadline, or `cancel` was set.
  bool Take(Slot& slot, SteadyTime deadline, const CancelToken& cancel) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Give(Slot& slot) ABSL_LOCKS_EXCLUDED(mu_);
  // Those that were not let go of.
  Slots Retire(const std::vector<std::shared_ptr<Slot>>& slots, const CancelToken& cancel) ABSL_LOCKS_EXCLUDED(mu_);
  void Resume(const std::string& database) ABSL_LOCKS_EXCLUDED(mu_);

  const Options options_;
  CaptureMemory& memory_;
  upload::UploadTransport& transport_;
  RateLimit& rate_;
  const Clock& clock_;
  SavedTurns saved_turns_{options_.saved};
  std::optional<Watch> watch_;  // the looking thread's, but for what Slots have
  std::set<int> watches_;       // the looking thread's: all that there are
  SteadyTime noticed_at_{};     // the looking thread's: waked by an event

  mutable Mutex mu_;
  CondVar work_;   // due_
  CondVar given_;  // a slot that somebody in Take waits for
  int takers_ ABSL_GUARDED_BY(mu_) = 0;
  Slots slots_ ABSL_GUARDED_BY(mu_);
  Slots retired_ ABSL_GUARDED_BY(mu_);                // not let go of yet: nothing else may follow these databases
  std::vector<Followed> later_ ABSL_GUARDED_BY(mu_);  // when those have ended
  std::map<std::string, int> pauses_ ABSL_GUARDED_BY(mu_);
  std::deque<std::shared_ptr<Slot>> due_ ABSL_GUARDED_BY(mu_);
  int comparing_ ABSL_GUARDED_BY(mu_) = 0;
  int draining_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  bool started_ ABSL_GUARDED_BY(mu_) = false;
  io::UniqueFd wake_;  // an eventfd of the looking thread
  std::vector<std::thread> threads_;
};

class Capturing::Paused {
 public:
  Paused(Capturing& capturing, std::string database) : capturing_(capturing), database_(std::move(database)) {}
  ~Paused() { capturing_.Resume(database_); }
  Paused(const Paused&) = delete;
  Paused& operator=(const Paused&) = delete;

 private:
  Capturing& capturing_;
  const std::string database_;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_CAPTURING_H_
