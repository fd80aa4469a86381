#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "agent/restore/apply.h"
#include "agent/restore/page_stream.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using Clock = std::chrono::steady_clock;

constexpr int kStepBytes = 1 << 20;
constexpr int kCheckpointRounds = 3;
constexpr std::chrono::milliseconds kCheckpointWait{1000};

// A path in a URI file name.
std::string Escaped(const std::string& path) {
  std::string escaped;
  for (const char c : path)
    escaped += c == '%' || c == '?' || c == '#' ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  return escaped;
}

absl::StatusOr<sqlite::DatabaseHandle> OpenImmutable(const std::string& path) {
  return sqlite::Open(fmt::format("file:{}?immutable=1", Escaped(path)), SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX);
}

// Advances by one at a commit of this connection, and whenever it sees that somebody else has committed.
uint32_t DataVersion(sqlite3* db) {
  uint32_t version = 0;
  sqlite3_file_control(db, "main", SQLITE_FCNTL_DATA_VERSION, &version);
  return version;
}

// The previous state, as a database file of its own.
class UndoCopy {
 public:
  UndoCopy(const TargetPlace& place, std::string name, io::UniqueFd fd) : place_(place), name_(std::move(name)), fd_(std::move(fd)) {}

  static absl::StatusOr<UndoCopy> Create(const TargetPlace& place, const std::string& name) {
    LF_RETURN_IF_ERROR(place.Remove(name));
    LF_ASSIGN_OR_RETURN(io::UniqueFd fd, place.Open(name, O_RDWR | O_CREAT | O_EXCL, 0600));
    return UndoCopy(place, name, std::move(fd));
  }

  // The state that `database` sees. The second time only what differs is written.
  absl::Status Take(capture::UserDatabase& database, const capture::PinnedRead& read, const CancelToken& cancel) {
    uint64_t bytes = 0;
    Bytes before;
    LF_RETURN_IF_ERROR(StreamPages(database, read, cancel, [&](const StreamedExtent& at) -> absl::Status {
      const uint64_t offset = static_cast<uint64_t>(at.extent) * format::kExtentBytes;
      bytes = static_cast<uint64_t>(at.page_size) * at.page_count;
      if (offset + at.pages.size() <= size_) {
        before.resize(at.pages.size());
        LF_RETURN_IF_ERROR(io::PreadAll(fd_.get(), before, offset, path()));
        if (std::equal(before.begin(), before.end(), at.pages.begin())) return absl::OkStatus();
      }
      return io::PwriteAll(fd_.get(), at.pages, offset, path());
    }));
    return Truncate(bytes);
  }

  // The bytes of the file itself. REQUIRES: an exclusive lock, rollback mode.
  absl::Status TakeRaw(capture::UserDatabase& database, const CancelToken& cancel) {
    LF_ASSIGN_OR_RETURN(const uint64_t bytes, database.FileBytes());
    Bytes buffer(format::kExtentBytes);
    sqlite3_file* const file = database.file();
    for (uint64_t at = 0; at < bytes; at += buffer.size()) {
      if (cancel.cancelled()) return Error(Code::kCancelled, "CANCELLED", "the restore was cancelled");
      const auto size = static_cast<int>(std::min<uint64_t>(buffer.size(), bytes - at));
      const int rc = file->pMethods->xRead(file, buffer.data(), size, static_cast<sqlite3_int64>(at));
      if (rc != SQLITE_OK) return database.ErrorFor(rc, "read");
      LF_RETURN_IF_ERROR(io::PwriteAll(fd_.get(), ByteView(buffer).first(static_cast<size_t>(size)), at, path()));
    }
    return Truncate(bytes);
  }

  absl::Status Finish() {
    LF_RETURN_IF_ERROR(TakeOwnerOf(place_, place_.name(), fd_.get(), path()));
    return io::Sync(fd_.get(), path());
  }
  void StartWriteBack() { sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WRITE); }
  std::string path() const { return place_.PathOf(name_); }

 private:
  absl::Status Truncate(uint64_t bytes) {
    size_ = bytes;
    return ftruncate(fd_.get(), static_cast<off_t>(bytes)) == 0 ? absl::OkStatus() : ErrnoError(errno, "truncate " + path());
  }

  const TargetPlace& place_;
  std::string name_;
  io::UniqueFd fd_;
  uint64_t size_ = 0;
};

// Restores by SQLite's backup API; one object an attempt.
class LiveCopy {
 public:
  explicit LiveCopy(ApplyContext& context) : context_(context) {}
  absl::Status Run();

 private:
  absl::Status Prepare();
  absl::Status TakeUndoAhead();
  absl::Status Lock();
  absl::Status CompleteUndo();
  absl::Status Copy();
  void ReadBack();

  ApplyContext& context_;
  LiveTarget target_;
  std::unique_ptr<capture::UserDatabase> destination_;
  std::unique_ptr<capture::UserDatabase> reader_;  // WAL mode, until the lock is had
  uint32_t reader_version_ = 0;
  std::optional<UndoCopy> undo_;
  sqlite::DatabaseHandle source_;
  sqlite::BackupHandle backup_;
  uint32_t locked_version_ = 0;
  Clock::time_point locked_at_{};
};

absl::Status LiveCopy::Prepare() {
  LF_ASSIGN_OR_RETURN(target_, LookAtLiveTarget(context_.place, context_.options, context_.cancel));
  LF_RETURN_IF_ERROR(CheckPageSize(target_, context_.staging.page_size()));
  // So that the copy keeps the journal mode that the application chose.
  if (context_.staging.page_count() > 0) {
    if (context_.state.versions().empty()) {
      LF_ASSIGN_OR_RETURN(*context_.state.mutable_versions(), context_.staging.ReadVersions());
      LF_RETURN_IF_ERROR(context_.Enter(storage::v1::RESTORE_STEP_CHECKED));
    }
    LF_CRASH_POINT("restore.live.before_versions");
    LF_RETURN_IF_ERROR(context_.staging.WriteVersions(target_.wal ? std::string_view("\2\2") : std::string_view("\1\1")));
  }
  LF_ASSIGN_OR_RETURN(source_, OpenImmutable(context_.staging.path()));
  LF_ASSIGN_OR_RETURN(destination_, OpenTarget(context_.place, context_.options, context_.cancel));
  return destination_->ErrorFor(
      sqlite3_exec(destination_->db(), "pragma query_only=0; pragma synchronous=full; pragma cache_size=-8000", nullptr, nullptr, nullptr),
      "open");
}

absl::Status LiveCopy::TakeUndoAhead() {
  LF_ASSIGN_OR_RETURN(UndoCopy undo, UndoCopy::Create(context_.place, context_.temporary_undo()));
  undo_.emplace(std::move(undo));
  LF_CRASH_POINT("restore.live.undo_created");
  if (!target_.wal) return absl::OkStatus();  // a read of all of it would hold writers up: it is taken under the lock
  LF_ASSIGN_OR_RETURN(reader_, OpenTarget(context_.place, context_.options, context_.cancel));
  LF_ASSIGN_OR_RETURN(const auto read, capture::PinnedRead::Begin(*reader_));
  reader_version_ = DataVersion(reader_->db());
  LF_RETURN_IF_ERROR(undo_->Take(*reader_, *read, context_.cancel));
  read->End();
  undo_->StartWriteBack();
  return absl::OkStatus();
}

absl::Status LiveCopy::Lock() {
  backup_.reset(sqlite3_backup_init(destination_->db(), "main", source_.get(), "main"));
  if (backup_ == nullptr) return destination_->ErrorFor(sqlite3_errcode(destination_->db()), "begin to restore into");
  sqlite3_busy_timeout(destination_->db(), 200);
  const auto deadline = Clock::now() + context_.options.lock_timeout;
  for (;;) {
    const int rc = sqlite3_backup_step(backup_.get(), 0);
    if (rc == SQLITE_OK || rc == SQLITE_DONE) break;
    LF_RETURN_IF_ERROR(context_.CheckCancelled());
    if ((rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED) return destination_->ErrorFor(rc, "lock");
    if (Clock::now() >= deadline) {
      return Error(Code::kUnavailable, "DATABASE_BUSY",
                   fmt::format("{} was locked by others for {} s", context_.place.path(), context_.options.lock_timeout.count() / 1000),
                   "end the long transaction of the application, or stop it and restore with --mode replace");
    }
    context_.progress.Tick();
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  locked_at_ = Clock::now();
  locked_version_ = DataVersion(destination_->db());
  return absl::OkStatus();
}

absl::Status LiveCopy::CompleteUndo() {
  if (!target_.wal) {
    LF_RETURN_IF_ERROR(undo_->TakeRaw(*destination_, context_.cancel));
  } else {
    // Writers wait now: what the reader sees is the last state before the restore.
    LF_ASSIGN_OR_RETURN(const auto read, capture::PinnedRead::Begin(*reader_));
    if (DataVersion(reader_->db()) != reader_version_) LF_RETURN_IF_ERROR(undo_->Take(*reader_, *read, context_.cancel));
    read->End();
  }
  LF_RETURN_IF_ERROR(undo_->Finish());
  context_.state.clear_undo_parts();
  context_.state.add_undo_parts("");
  return context_.place.Sync();
}

absl::Status LiveCopy::Copy() {
  const int step = std::max<int>(1, kStepBytes / static_cast<int>(std::max(512u, context_.staging.page_size())));
  for (;;) {
    LF_RETURN_IF_ERROR(context_.CheckCancelled());
    const int left = sqlite3_backup_remaining(backup_.get());
    const int all = std::max(1, sqlite3_backup_pagecount(backup_.get()));
    context_.progress.At(all - left, all);
    if (left <= step) break;
    const int rc = sqlite3_backup_step(backup_.get(), step);
    if (rc != SQLITE_OK) return destination_->ErrorFor(rc == SQLITE_DONE ? SQLITE_INTERNAL : rc, "copy into");
    LF_CRASH_POINT("restore.live.copying");
  }
  LF_RETURN_IF_ERROR(context_.Enter(storage::v1::RESTORE_STEP_APPLYING));
  LF_CRASH_POINT("restore.live.before_commit");
  const int rc = sqlite3_backup_step(backup_.get(), -1);
  if (rc != SQLITE_DONE) return destination_->ErrorFor(rc, "commit the copy into");
  LF_CRASH_POINT("restore.live.after_commit");
  sqlite3_backup_finish(backup_.release());
  context_.state.set_stall_ms(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - locked_at_).count());
  context_.Say(fmt::format("copied {} pages into {} in one transaction; writers waited {} ms", context_.staging.page_count(),
                           context_.place.path(), context_.state.stall_ms()));
  return context_.Applied();
}

// Compares what this very commit made with what was ordered. The root digest was proven on the staging file; this looks at the way into
// the target, and is left out where somebody has committed since.
void LiveCopy::ReadBack() {
  if (context_.staging.page_count() == 0) return;
  const auto read = capture::PinnedRead::Begin(*destination_);
  if (!read.ok()) {
    context_.Say("the read-back was left out: " + MessageOf(read.status()));
    return;
  }
  const auto deadline =
      Clock::now() + (target_.wal ? std::chrono::milliseconds(std::chrono::minutes(10)) : context_.options.rollback_stall);
  absl::Status status;
  if (DataVersion(destination_->db()) != locked_version_ + 1) {
    context_.Say("the read-back was left out: others have committed since");
  } else {
    Bytes wanted;
    status = StreamPages(*destination_, **read, context_.cancel, [&](const StreamedExtent& at) -> absl::Status {
      if (Clock::now() > deadline) return Error(Code::kDeadlineExceeded, "READ_BACK_BUDGET", "it would hold writers up for too long");
      wanted.resize(at.pages.size());
      if (at.page_count != context_.staging.page_count() || at.page_size != context_.staging.page_size()) {
        return Error(Code::kDataLoss, "READ_BACK_DIFFERS", "the database has another size than the snapshot");
      }
      LF_RETURN_IF_ERROR(
          io::PreadAll(context_.staging.fd(), wanted, static_cast<uint64_t>(at.extent) * format::kExtentBytes, context_.staging.path()));
      if (SamePages(at.extent, at.pages, wanted)) return absl::OkStatus();
      return Error(Code::kDataLoss, "READ_BACK_DIFFERS", fmt::format("extent {} of the database is not as restored", at.extent));
    });
    if (status.ok())
      context_.Say("read the committed state back: it is the snapshot");
    else if (status.code() != Code::kDataLoss)
      context_.Say("the read-back was left out: " + MessageOf(status));
  }
  (*read)->End();
  if (status.code() != Code::kDataLoss) return;
  context_.Say("the read-back found a difference: " + MessageOf(status));
  context_.read_back =
      WithReason(status, "READ_BACK_DIFFERS", "the previous state is kept as the undo; look at the storage of that machine");
}

absl::Status LiveCopy::Run() {
  LF_RETURN_IF_ERROR(Prepare());
  LF_RETURN_IF_ERROR(TakeUndoAhead());
  LF_CRASH_POINT("restore.live.before_lock");
  LF_RETURN_IF_ERROR(Lock());
  LF_CRASH_POINT("restore.live.locked");
  LF_RETURN_IF_ERROR(CompleteUndo());
  reader_.reset();
  LF_CRASH_POINT("restore.live.undo_complete");
  LF_RETURN_IF_ERROR(Copy());
  LF_CRASH_POINT("restore.live.applied");
  ReadBack();
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyLive(ApplyContext& context) {
  context.progress.Begin("applying", 80, 100);
  return LiveCopy(context).Run();
}

void CheckpointLive(ApplyContext& context) {
  const auto database = OpenTarget(context.place, context.options, context.cancel);
  if (!database.ok() || !(*database)->BeginRead().ok()) return;
  (*database)->EndRead();
  if ((*database)->wal_file() == nullptr) return;
  sqlite3* const db = (*database)->db();
  sqlite3_exec(db, "pragma query_only=0", nullptr, nullptr, nullptr);
  // The first round copies the bulk while writers go on; TRUNCATE reads the header under the write lock, and gives the space back.
  sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  sqlite3_busy_timeout(db, static_cast<int>(kCheckpointWait.count()));
  for (int round = 0; round < kCheckpointRounds && !context.cancel.cancelled(); ++round) {
    if (sqlite3_wal_checkpoint_v2(db, "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) == SQLITE_OK) {
      context.Say("folded the write-ahead log");
      return;
    }
  }
  context.Say("the write-ahead log stays large until its readers let go: it is reused from then on");
}

absl::StatusOr<bool> LiveWasCommitted(ApplyContext& context) {
  LF_ASSIGN_OR_RETURN(const auto database, OpenTarget(context.place, context.options, context.cancel));
  LF_ASSIGN_OR_RETURN(const auto pinned, capture::PinnedRead::Begin(*database));  // rolls an unfinished transaction back
  LF_ASSIGN_OR_RETURN(const io::UniqueFd undo, context.place.Open(context.temporary_undo(), O_RDONLY));
  struct stat undo_stat {};
  if (fstat(undo.get(), &undo_stat) != 0) return ErrnoError(errno, "look at the undo of " + context.place.path());
  uint64_t unlike_new = 0, unlike_old = 0, bytes = 0;
  Bytes is_new, is_old;
  const auto read = [](int fd, uint64_t file_bytes, uint64_t offset, size_t size, Bytes& out) -> absl::Status {
    out.resize(offset >= file_bytes ? 0 : std::min<uint64_t>(size, file_bytes - offset));
    return io::PreadAll(fd, out, offset, "a kept state");
  };
  LF_RETURN_IF_ERROR(StreamPages(*database, *pinned, context.cancel, [&](const StreamedExtent& at) -> absl::Status {
    const uint64_t offset = static_cast<uint64_t>(at.extent) * format::kExtentBytes;
    LF_RETURN_IF_ERROR(read(context.staging.fd(), context.staging.bytes(), offset, at.pages.size(), is_new));
    LF_RETURN_IF_ERROR(read(undo.get(), static_cast<uint64_t>(undo_stat.st_size), offset, at.pages.size(), is_old));
    unlike_new += CountDifferent(at.extent, at.page_size, at.pages, is_new);
    unlike_old += CountDifferent(at.extent, at.page_size, at.pages, is_old);
    bytes += at.pages.size();
    return absl::OkStatus();
  }));
  // Pages beyond its end are missing as well.
  if (context.staging.bytes() > bytes) unlike_new += (context.staging.bytes() - bytes) / context.staging.page_size();
  if (static_cast<uint64_t>(undo_stat.st_size) > bytes)
    unlike_old += (static_cast<uint64_t>(undo_stat.st_size) - bytes) / context.staging.page_size();
  pinned->End();
  context.Say(fmt::format("after the interruption the database differs in {} pages from the snapshot and in {} from its previous state",
                          unlike_new, unlike_old));
  return unlike_new < unlike_old || unlike_new == 0;
}

}  // namespace litefleet::restore
