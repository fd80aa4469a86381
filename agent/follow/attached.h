// The agent's connections to a database that it follows: hand-over-hand read transactions, and the rule on the checkpoint lock.
//
//   attached->Look()         what is committed now; consistent as long as something is held
//   attached->HandOver()     a newer hold in the place of the older one
//   attached->Checkpoint()   passive, bounded by the hold
//   attached->Close()        the last hold ends; as the last closer where nobody else is attached
//
// README.md has the reasons. Not for rollback mode. Thread safety: none; one thread at a time. At most two connections; Rest() closes the
// one that holds nothing. Errors: those of capture::UserDatabase; kFailedPrecondition NOT_WAL, WAL_REMOVED; kAborted DATABASE_REPLACED:
// nothing was copied.
#ifndef LITEFLEET_AGENT_FOLLOW_ATTACHED_H_
#define LITEFLEET_AGENT_FOLLOW_ATTACHED_H_

#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/lock_table.h"
#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "agent/capture/wal_frames.h"
#include "agent/follow/continuity.h"
#include "common/base/clock.h"

namespace litefleet::follow {

class Attached {
 public:
  // How long an application's checkpoint may have to wait for the agent.
  static constexpr std::chrono::milliseconds kLockWait{250};

  // Holds the newest state, and has seen the checkpoint lock free once, or waited for it.
  static absl::StatusOr<std::unique_ptr<Attached>> Open(capture::UserDatabaseOptions options);
  ~Attached();
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

  // The connection whose hold keeps what Look() gives.
  capture::UserDatabase& holder() { return *connections_[holder_].database; }
  Held held() const;
  absl::StatusOr<capture::WalState> Look();
  absl::StatusOr<Sight> SightOf(const capture::WalState& look);
  absl::StatusOr<uint32_t> Backfilled();
  // Database, WAL and wal-index are those that are at the path: what is looked at and copied is what applications see.
  bool SameFiles();
  // WAL_REMOVED where an application follows files that are at no path any more: what it commits is in no file, and as long as the agent
  // has the database open it cannot fold it in when it closes.
  absl::Status CheckWalIsThere(std::span<const capture::FileLock> locks) {
    return SameFiles() ? holder().CheckWalIsThere(locks) : absl::OkStatus();
  }
  // All of `look` has been copied, and the hold is on a mark above 0: nothing but it keeps the WAL from being started over, and an
  // application may be waiting for that (RESTART, TRUNCATE).
  absl::StatusOr<bool> InTheWay(const capture::WalState& look);

  // What became of the rule.
  enum class Rule {
    kKept,
    // Who has the checkpoint lock has the write lock as well, by the same connection: it cannot be stale.
    kWriterCheckpoints,
    // The checkpoint lock did not become free in time: what follows is in doubt.
    kNotSeenFree,
  };
  // `look` is told what is committed while both holds last, and held() is still the one that is about to end.
  absl::StatusOr<Rule> HandOver(const std::function<void(const capture::WalState&)>& look);
  // Reads once, beside the hold: mends the header of a wal-index whose writer died, as any reader does.
  absl::Status Touch();

  // Of frames that the hold does not need. REQUIRES: nothing is to be shipped before.
  absl::StatusOr<capture::UserDatabase::Checkpointed> Checkpoint();

  // Lets go of everything until the WAL has been started over, or for `most`: an application that checkpoints its own WAL does so as it
  // would without the agent. Then holds the newest state, and has seen the checkpoint lock free. The connection stays, so nobody else is
  // the last closer. REQUIRES: the hold is above mark 0, and all that it has was shipped or is saved.
  absl::StatusOr<Rule> StandAside(std::chrono::milliseconds most, const std::function<void()>& while_aside);

  // RESTART: the next writer starts the WAL over. Once the write lock is had there is no newer frame than those that `save` takes, and the
  // hold is advanced in place: to the newest frame, then, when all is copied and all was saved or shipped, to mark 0. False: not within the
  // budget, or `save` said no; nothing is lost then. REQUIRES: the hold is above mark 0.
  absl::StatusOr<bool> Restart(std::chrono::milliseconds budget, const std::function<bool()>& save);

  // What is held is older than the newest state, or in the way as above: an application's FULL, RESTART or TRUNCATE may be waiting for it.
  bool MayHoldUp();
  // Another process has both the write and the checkpoint lock, and copies nothing: a checkpoint that keeps writers out waits for readers.
  bool WriterCheckpoints();

  bool OthersAttached(std::span<const capture::FileLock> locks) { return holder().OthersAttached(locks); }
  // Keeps one connection.
  void Rest();
  // Lets go of everything. `last_look` gets what was committed just before.
  absl::Status Close(std::optional<capture::WalState>* last_look = nullptr);

 private:
  struct Connection {
    std::unique_ptr<capture::UserDatabase> database;
    std::unique_ptr<capture::PinnedRead> hold;
    bool may_be_mark0 = false;
  };
  explicit Attached(capture::UserDatabaseOptions options) : options_(std::move(options)) {}
  static absl::Status BeginHold(Connection& connection);
  absl::Status Replaced() const;
  absl::Status CheckFiles() { return SameFiles() ? absl::OkStatus() : Replaced(); }
  // The connection that holds nothing; it has read before. DATABASE_REPLACED where what it has is not what is at the path any more.
  absl::StatusOr<Connection*> Spare();
  absl::StatusOr<Rule> SeeCheckpointLockFree(Connection& spare);
  std::optional<capture::LockedFile> WalIndexFile();
  // `busy` is asked while a lock is not to be had; what is being copied is cut off at the deadline. False: it gave up.
  static absl::StatusOr<bool> CheckpointRestart(Connection& spare, SteadyTime deadline, const std::function<bool()>& busy);

  const capture::UserDatabaseOptions options_;
  std::array<Connection, 2> connections_;
  size_t holder_ = 0;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_ATTACHED_H_
