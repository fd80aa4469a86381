#include "agent/follow/attached.h"

#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "agent/capture/wal_end.h"
#include "common/base/crash_point.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::follow {
namespace {

using capture::FileIdOf;
using capture::WalState;

// While a hold on mark 0 lasts the WAL is started over once, and more often only by those who truncate an empty one.
constexpr int kMostRounds = 8;
// Until it is known for certain which mark a hold is on.
constexpr int kMostBegins = 4;
constexpr std::chrono::microseconds kAsideLook{300};
// More than is committed while the agent stands aside.
constexpr uint64_t kRoomBehind = 1 << 20;
// The kernel prints the table in pieces, between which a transaction may end.
constexpr int kSureLooks = 2;

}  // namespace

absl::StatusOr<std::unique_ptr<Attached>> Attached::Open(capture::UserDatabaseOptions options) {
  std::unique_ptr<Attached> attached(new Attached(std::move(options)));
  Connection& first = attached->connections_[0];
  LF_ASSIGN_OR_RETURN(first.database, capture::UserDatabase::Open(attached->options_));
  LF_RETURN_IF_ERROR(first.database->CheckWalMode());  // in another one a reader holds writers up
  LF_RETURN_IF_ERROR(first.database->CheckWalIsThere());
  LF_RETURN_IF_ERROR(BeginHold(first));
  // A checkpointer that read the header before the agent was there may be stale: once it is out of the way the agent watches.
  LF_ASSIGN_OR_RETURN(Connection* const spare, attached->Spare());
  LF_RETURN_IF_ERROR(attached->SeeCheckpointLockFree(*spare).status());
  return attached;
}

Attached::~Attached() { Close().IgnoreError(); }

absl::Status Attached::BeginHold(Connection& connection) {
  // A hold that is left behind by an error would end the one after it.
  auto none = absl::MakeCleanup([&connection] { connection.hold.reset(); });
  for (int begins = 1;; ++begins) {
    connection.hold.reset();
    std::optional<WalState> before;
    uint32_t copied_before = 0;
    if (sqlite3_file* const wal = connection.database->wal_file(); wal != nullptr) {
      const capture::WalIndex index(connection.database->file(), wal);
      if (const auto look = index.ReadState(); look.ok()) before = *look;
      LF_ASSIGN_OR_RETURN(copied_before, index.Backfilled());
    }
    LF_ASSIGN_OR_RETURN(connection.hold, capture::PinnedRead::Begin(*connection.database));
    const capture::WalIndex* const index = connection.hold->wal_index();
    if (index == nullptr) {
      connection.hold.reset();
      return capture::NotInWalMode(connection.database->path());
    }
    // Mark 0 is taken where everything in the WAL has been copied. Within a generation the count only grows: less now was less then, and
    // all before was all then.
    const WalState& begun = connection.hold->wal_state();
    LF_ASSIGN_OR_RETURN(const uint32_t copied, index->Backfilled());
    LF_ASSIGN_OR_RETURN(const WalState now, index->ReadState());
    connection.may_be_mark0 = now.salts != begun.salts || copied >= begun.max_frame;
    const bool certain =
        !connection.may_be_mark0 || (before.has_value() && before->salts == begun.salts && copied_before >= begun.max_frame);
    if (certain || begins == kMostBegins) {
      std::move(none).Cancel();
      return absl::OkStatus();
    }
  }
}

Held Attached::held() const {
  const Connection& connection = connections_[holder_];
  return {capture::PlaceOf(connection.hold->wal_state()), connection.may_be_mark0};
}

absl::StatusOr<WalState> Attached::Look() { return connections_[holder_].hold->wal_index()->ReadState(); }

absl::StatusOr<bool> Attached::InTheWay(const WalState& look) {
  if (connections_[holder_].may_be_mark0) return false;
  LF_ASSIGN_OR_RETURN(const uint32_t copied, Backfilled());
  return copied >= look.max_frame;
}

bool Attached::MayHoldUp() {
  const auto look = Look();
  if (!look.ok()) return false;
  if (!(connections_[holder_].hold->wal_state() == *look)) return true;
  const auto in_the_way = InTheWay(*look);
  return in_the_way.ok() && *in_the_way;
}

std::optional<capture::LockedFile> Attached::WalIndexFile() {
  return capture::LockedFileOf(holder().real_path() + "-shm", &holder().locked_file());
}

bool Attached::WriterCheckpoints() {
  const auto index = WalIndexFile();
  if (!index.has_value()) return false;
  const auto found = capture::FindWritingCheckpointer(capture::ReadLocks(), *index);
  return found.has_value() && !found->copies;
}

absl::StatusOr<uint32_t> Attached::Backfilled() { return connections_[holder_].hold->wal_index()->Backfilled(); }

absl::StatusOr<Sight> Attached::SightOf(const WalState& look) {
  Sight sight;
  sight.now = capture::PlaceOf(look);
  sight.same_file = SameFiles();
  LF_ASSIGN_OR_RETURN(sight.wal_bytes, connections_[holder_].hold->wal_index()->FileBytes());
  return sight;
}

absl::StatusOr<Attached::Connection*> Attached::Spare() {
  Connection& spare = connections_[1 - holder_];
  // Nothing is made beside an application that has other files open, and no WAL is copied into a file that was put in its place.
  LF_RETURN_IF_ERROR(CheckFiles());
  if (spare.database == nullptr) {
    LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::UserDatabase> database, capture::UserDatabase::Open(options_));
    // Before it has read, a checkpoint would return without having looked.
    LF_RETURN_IF_ERROR(database->BeginRead());
    database->EndRead();
    if (!database->HasFilesOf(holder())) return Replaced();
    spare.database = std::move(database);
  }
  return &spare;
}

absl::StatusOr<Attached::Rule> Attached::SeeCheckpointLockFree(Connection& spare) {
  const auto deadline = std::chrono::steady_clock::now() + kLockWait;
  const auto index = WalIndexFile();
  for (int sure = 0;;) {
    LF_ASSIGN_OR_RETURN(const capture::UserDatabase::Checkpointed seen, spare.database->CheckpointPassive());
    if (seen.ran) return Rule::kKept;
    const auto found = index.has_value() ? capture::FindWritingCheckpointer(capture::ReadLocks(), *index) : std::nullopt;
    sure = found.has_value() && found->one_connection ? sure + 1 : 0;
    if (sure == kSureLooks) return Rule::kWriterCheckpoints;
    if (std::chrono::steady_clock::now() >= deadline) return Rule::kNotSeenFree;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

absl::Status Attached::Touch() {
  LF_ASSIGN_OR_RETURN(Connection* const spare, Spare());
  LF_RETURN_IF_ERROR(spare->database->BeginRead());
  spare->database->EndRead();
  return absl::OkStatus();
}

absl::StatusOr<Attached::Rule> Attached::HandOver(const std::function<void(const WalState&)>& look_at) {
  LF_ASSIGN_OR_RETURN(Connection* const next, Spare());
  Connection& last = connections_[holder_];
  std::array<std::byte, 8> seen_free = last.hold->wal_state().salts;
  Rule rule = Rule::kKept;
  WalState look;
  auto without = absl::MakeCleanup([next] { next->hold.reset(); });
  for (int round = 0;; ++round) {
    if (last.may_be_mark0 && rule == Rule::kKept) {
      LF_ASSIGN_OR_RETURN(look, Look());
      if (look.salts != seen_free) {
        LF_ASSIGN_OR_RETURN(rule, SeeCheckpointLockFree(*next));
        seen_free = look.salts;
      }
    }
    LF_RETURN_IF_ERROR(BeginHold(*next));
    LF_ASSIGN_OR_RETURN(look, Look());
    // A reset may have come between the look and the new hold.
    if (!last.may_be_mark0 || rule != Rule::kKept || look.salts == seen_free) break;
    if (round == kMostRounds) {
      rule = Rule::kNotSeenFree;
      break;
    }
    next->hold.reset();
  }
  LF_CRASH_POINT("follow.two_holds");
  look_at(look);
  std::move(without).Cancel();
  last.hold.reset();
  holder_ = 1 - holder_;
  return rule;
}

absl::Status Attached::Replaced() const {
  return Error(absl::StatusCode::kAborted, "DATABASE_REPLACED", fmt::format("another file is at {} now, or another WAL", options_.path));
}

bool Attached::SameFiles() {
  const bool linked = holder().path() != holder().real_path();
  return (!linked || FileIdOf(holder().path()) == holder().file_id()) && holder().HasFilesOfPath();
}

absl::StatusOr<capture::UserDatabase::Checkpointed> Attached::Checkpoint() {
  LF_ASSIGN_OR_RETURN(Connection* const spare, Spare());
  LF_CRASH_POINT("follow.before_checkpoint");
  return spare->database->CheckpointPassive();
}

absl::StatusOr<Attached::Rule> Attached::StandAside(std::chrono::milliseconds most, const std::function<void()>& while_aside) {
  LF_ASSIGN_OR_RETURN(Connection* const spare, Spare());
  Connection& own = connections_[holder_];
  const std::array<std::byte, 8> salts = own.hold->wal_state().salts;
  if (const auto look = Look(); look.ok() && look->salts == salts)
    capture::KeepRoomBehind(*own.database, capture::WalBytes(look->page_size, look->max_frame), kRoomBehind);
  own.hold.reset();
  if (while_aside) while_aside();
  const capture::WalIndex index(own.database->file(), own.database->wal_file());
  const auto deadline = std::chrono::steady_clock::now() + most;
  do {
    std::this_thread::sleep_for(kAsideLook);
    if (const auto look = index.ReadState(); look.ok() && look->salts != salts) break;
  } while (std::chrono::steady_clock::now() < deadline);
  LF_CRASH_POINT("follow.stood_aside");
  LF_RETURN_IF_ERROR(BeginHold(own));
  LF_RETURN_IF_ERROR(CheckFiles());  // the next one copies
  return SeeCheckpointLockFree(*spare);
}

absl::StatusOr<bool> Attached::CheckpointRestart(Connection& spare, SteadyTime deadline, const std::function<bool()>& busy) {
  sqlite3* const db = spare.database->db();
  // SQLite asks no handler while it copies.
  Mutex mu;
  CondVar changed;
  bool ended = false;
  std::thread alarm([&] {
    MutexLock lock(mu);
    while (!ended && std::chrono::steady_clock::now() < deadline) changed.WaitUntil(mu, deadline);
    if (!ended) sqlite3_interrupt(db);
  });
  sqlite3_busy_handler(
      db, [](void* asked, int) { return (*static_cast<const std::function<bool()>*>(asked))() ? 1 : 0; },
      const_cast<std::function<bool()>*>(&busy));
  const int rc = sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_RESTART, nullptr, nullptr);
  {
    MutexLock lock(mu);
    ended = true;
    changed.SignalAll();
  }
  alarm.join();
  sqlite3_busy_handler(db, nullptr, nullptr);
  if (rc == SQLITE_OK) return true;
  if ((rc & 0xff) == SQLITE_BUSY || (rc & 0xff) == SQLITE_INTERRUPT) return false;
  return spare.database->ErrorFor(rc, "checkpoint");
}

absl::StatusOr<bool> Attached::Restart(std::chrono::milliseconds budget, const std::function<bool()>& save) {
  LF_ASSIGN_OR_RETURN(Connection* const spare, Spare());
  Connection& own = connections_[holder_];
  const auto index = WalIndexFile();
  if (!index.has_value()) return false;
  const auto deadline = std::chrono::steady_clock::now() + budget;
  absl::Status failed;
  // In whose way SQLite stands: a writer's until the write lock is had, then of readers, of whom one is the agent.
  const auto advance = [&]() -> absl::StatusOr<bool> {
    if (!capture::HoldsWriteLock(capture::ReadLocks(), *index)) return true;
    LF_ASSIGN_OR_RETURN(const WalState look, Look());
    LF_ASSIGN_OR_RETURN(const uint32_t copied, Backfilled());
    const bool newest = own.hold->wal_state() == look;
    if (newest && (own.may_be_mark0 || copied < look.max_frame)) return true;  // others are in the way
    LF_RETURN_IF_ERROR(CheckFiles());
    if (!save()) return false;
    LF_CRASH_POINT("follow.restart_advanced");
    // Nobody writes and nobody checkpoints while it is between two holds: this process has both locks.
    own.hold.reset();
    LF_RETURN_IF_ERROR(BeginHold(own));
    return true;
  };
  const std::function<bool()> busy = [&] {
    if (std::chrono::steady_clock::now() >= deadline) return false;
    const absl::StatusOr<bool> goes_on = advance();
    if (!goes_on.ok()) failed = goes_on.status();
    if (!goes_on.ok() || !*goes_on) return false;
    std::this_thread::sleep_for(kAsideLook);
    return true;
  };
  LF_CRASH_POINT("follow.before_restart");
  const absl::StatusOr<bool> done = CheckpointRestart(*spare, deadline, busy);
  Rest();  // the next one has its own handler again
  LF_RETURN_IF_ERROR(failed);
  return done;
}

void Attached::Rest() {
  Connection& spare = connections_[1 - holder_];
  spare.hold.reset();
  if (spare.database == nullptr) return;
  spare.database->Close().IgnoreError();
  spare.database.reset();
}

absl::Status Attached::Close(std::optional<capture::WalState>* last_look) {
  if (connections_[holder_].database == nullptr) return absl::OkStatus();
  Connection& last = connections_[holder_];
  if (last.hold != nullptr && last.may_be_mark0) {
    // The rule holds for the last hold as well; what cannot be looked at any more is let go.
    const auto look = Look();
    if (look.ok() && look->salts != last.hold->wal_state().salts) {
      if (const auto spare = Spare(); spare.ok()) SeeCheckpointLockFree(**spare).status().IgnoreError();
    }
  }
  Rest();
  if (last_look != nullptr && last.hold != nullptr) {
    if (const auto look = Look(); look.ok()) *last_look = *look;
  }
  last.hold.reset();
  const absl::Status closed = last.database->Close();
  last.database.reset();
  return closed;
}

}  // namespace litefleet::follow
