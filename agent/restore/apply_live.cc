#include <fcntl.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <thread>

#include "agent/restore/apply.h"
#include "agent/restore/loaded_file.h"
#include "agent/restore/page_stream.h"
#include "agent/restore/plan.h"
#include "agent/restore/undo_copy.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/dump/dump_process.h"
#include "common/format/extent.h"
#include "common/io/disk_reserve.h"
#include "common/io/file.h"
#include "common/io/stretched_sync.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using Clock = std::chrono::steady_clock;

constexpr int kStepBytes = 1 << 20;
// For which the lock may be held while tables are merged.
constexpr std::chrono::seconds kMergeLimit{60};

// A path in a URI file name.
std::string Escaped(const std::string& path) {
  std::string escaped;
  for (const char c : path)
    escaped += c == '%' || c == '?' || c == '#' ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  return escaped;
}

absl::StatusOr<sqlite::DatabaseHandle> OpenImmutable(const std::string& path) {
  return sqlite::Open(fmt::format("file:{}?immutable=1", Escaped(path)),
                      SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW);
}

// Advances by one at a commit of this connection, and whenever it sees that somebody else has committed.
uint32_t DataVersion(sqlite3* db) {
  uint32_t version = 0;
  sqlite3_file_control(db, "main", SQLITE_FCNTL_DATA_VERSION, &version);
  return version;
}

// Restores by SQLite's backup API; one object an attempt.
class LiveCopy {
 public:
  explicit LiveCopy(ApplyContext& context) : context_(context) {}
  absl::Status Run();

 private:
  absl::Status Prepare();
  // Tables into what is there: as text first, then replaced in a copy of the database, under the lock.
  bool merges() const { return context_.order.tables_size() > 0; }
  absl::Status ExtractTables();
  absl::Status OpenMerged();
  absl::Status MergeTables();
  dump::HelperOptions Helper() const {
    dump::HelperOptions helper;
    helper.cancelled = [this] { return context_.cancel.cancelled(); };
    return helper;
  }
  absl::Status TakeUndoAhead();
  // Waits for the destination's lock to copy `from` into it.
  absl::Status Lock(sqlite3* from);
  absl::Status NothingToCopy();
  absl::Status CompleteUndo();
  absl::Status Copy();
  absl::Status ReadBack();
  // Whether what is committed is in the first `bytes` bytes of `fd`; kDataLoss READ_BACK_DIFFERS.
  absl::Status CompareWith(int fd, uint64_t bytes, const std::string& path);
  absl::Status PutBack(const absl::Status& difference);
  absl::Status CopyUndo();

  ApplyContext& context_;
  LiveTarget target_;
  std::unique_ptr<capture::UserDatabase> destination_;
  std::unique_ptr<capture::UserDatabase> reader_;  // WAL mode, until the lock is had
  uint32_t reader_version_ = 0;
  std::optional<UndoCopy> undo_;
  io::UniqueFd text_;  // of the tables
  int64_t text_bytes_ = 0;
  std::optional<UndoCopy> merged_;  // the copy, in the place of the staging file
  std::unique_ptr<StagingFile> merged_staging_;
  sqlite::DatabaseHandle source_;
  sqlite::BackupHandle backup_;
  uint32_t locked_version_ = 0;
  Clock::time_point locked_at_{};
};

absl::Status LiveCopy::Prepare() {
  LF_ASSIGN_OR_RETURN(target_, LookAtLiveTarget(context_.place, context_.options, context_.cancel, context_.resumed));
  if (merges()) {
    LF_RETURN_IF_ERROR(ExtractTables());
  } else {
    LF_RETURN_IF_ERROR(CheckNotEmpty(v1::RESTORE_MODE_LIVE, context_.staging->page_count(), context_.place));
    LF_RETURN_IF_ERROR(CheckPageSize(target_, context_.staging->page_size()));
  }
  // So that the copy keeps the journal mode that the application chose.
  if (!merges() && context_.staging->page_count() > 0) {
    if (context_.state.versions().empty()) {
      LF_ASSIGN_OR_RETURN(*context_.state.mutable_versions(), context_.staging->ReadVersions());
      LF_RETURN_IF_ERROR(context_.Enter(storage::v1::RESTORE_STEP_CHECKED));
    }
    LF_CRASH_POINT("restore.live.before_versions");
    LF_RETURN_IF_ERROR(context_.staging->WriteVersions(target_.wal ? std::string_view("\2\2") : std::string_view("\1\1")));
  }
  if (!merges()) {
    LF_ASSIGN_OR_RETURN(source_, OpenImmutable(context_.staging->path()));
  }
  LF_ASSIGN_OR_RETURN(destination_, OpenTarget(context_.place, context_.options, context_.cancel));
  // The first read may open it once more: what is set and counted from here on is of one connection. Who is locked out waits in Lock.
  if (const absl::Status read = destination_->BeginRead(); !read.ok() && !absl::IsUnavailable(read)) return read;
  destination_->EndRead();
  return destination_->ErrorFor(
      sqlite3_exec(destination_->db(), "pragma query_only=0; pragma synchronous=full; pragma cache_size=-8000", nullptr, nullptr, nullptr),
      "open");
}

absl::Status LiveCopy::TakeUndoAhead() {
  LF_ASSIGN_OR_RETURN(UndoCopy undo, UndoCopy::Create(context_.place, context_.temporary_undo()));
  undo_.emplace(std::move(undo));
  LF_CRASH_POINT("restore.live.undo_created");
  if (merges()) {
    // What was fetched is not needed any more: the tables are text by now.
    // SQLite opens it by its name: what somebody has put beside it would be its journal.
    for (const std::string_view suffix : kCompanions)
      LF_RETURN_IF_ERROR(context_.place.Remove(context_.staging->name() + std::string(suffix)));
    LF_ASSIGN_OR_RETURN(UndoCopy merged, UndoCopy::Create(context_.place, context_.staging->name()));
    merged_.emplace(std::move(merged));
    LF_CRASH_POINT("restore.merge.created");
  }
  // In rollback mode a read of all of it would hold writers up: it is taken under the lock.
  if (target_.wal) {
    LF_ASSIGN_OR_RETURN(reader_, OpenTarget(context_.place, context_.options, context_.cancel));
    LF_ASSIGN_OR_RETURN(const auto read, capture::PinnedRead::Begin(*reader_));
    reader_version_ = DataVersion(reader_->db());
    LF_RETURN_IF_ERROR(undo_->Take(*reader_, *read, context_.cancel));
    if (merges()) LF_RETURN_IF_ERROR(merged_->Take(*reader_, *read, context_.cancel));
    read->End();
    undo_->StartWriteBack();
  }
  return merges() ? OpenMerged() : absl::OkStatus();
}

absl::Status LiveCopy::ExtractTables() {
  LF_ASSIGN_OR_RETURN(text_, dump::TemporaryFile(context_.place.directory()));
  LF_ASSIGN_OR_RETURN(const auto text, dump::DumpProcess::Part(Helper(), {.fd = context_.staging->fd(), .bytes = 0, .read = {}},
                                                               {context_.order.tables().begin(), context_.order.tables().end()}));
  // Text may be many times its tables, and the application writes here, too.
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, context_.reserve.At(context_.place.directory()));
  io::SpaceGuard space(context_.place.directory(), reserve,
                       "free space there: the chosen tables are written as SQL text beside the database while they are merged",
                       context_.options.free_bytes);
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, text->Next());
    if (piece.empty()) break;
    LF_RETURN_IF_ERROR(io::PwriteAll(text_.get(), piece, static_cast<uint64_t>(text_bytes_), "the text of the tables"));
    text_bytes_ += static_cast<int64_t>(piece.size());
    LF_RETURN_IF_ERROR(space.Wrote(piece.size()));
    context_.progress.Tick();
  }
  context_.Say(fmt::format("took {} tables out of the snapshot: {} bytes of SQL text", context_.order.tables_size(), text_bytes_));
  return absl::OkStatus();
}

// The lock is had with this as what is copied, and it is changed under it: so it is opened as any database, and SQLite sees the change.
absl::Status LiveCopy::OpenMerged() {
  if (merged_->bytes() == 0) {
    // To copy nothing is done at once, and would have no lock.
    LF_ASSIGN_OR_RETURN(const auto empty,
                        sqlite::Open(merged_->path(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW));
    LF_RETURN_IF_ERROR(sqlite::Execute(empty.get(), fmt::format("pragma page_size={}; pragma journal_mode=memory; pragma user_version=1",
                                                                target_.page_size == 0 ? 4096 : target_.page_size)));
  } else {
    LF_RETURN_IF_ERROR(merged_->WriteVersions("\1\1"));
  }
  LF_ASSIGN_OR_RETURN(source_, sqlite::Open(merged_->path(), SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW));
  return absl::OkStatus();
}

// Writers wait. What is merged is the state of this moment, so nothing that was committed is lost but what is replaced.
absl::Status LiveCopy::MergeTables() {
  LF_RETURN_IF_ERROR(merged_->WriteVersions("\1\1"));
  dump::HelperOptions helper = Helper();
  helper.time = kMergeLimit;
  LF_ASSIGN_OR_RETURN(const uint64_t available, context_.options.free_bytes(context_.place.directory()));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, context_.reserve.At(context_.place.directory()));
  dump::MergeOptions merge;
  merge.tables.assign(context_.order.tables().begin(), context_.order.tables().end());
  merge.may_break_keys = context_.order.check_override();
  const auto most = static_cast<int64_t>(merged_->bytes() + (available > reserve ? available - reserve : 0));
  LF_ASSIGN_OR_RETURN(const auto load,
                      dump::LoadProcess::StartMerge(helper, merged_->fd(), context_.place.directory(), most, text_bytes_, merge));
  Bytes piece;
  for (int64_t at = 0; at < text_bytes_; at += static_cast<int64_t>(piece.size())) {
    piece.resize(static_cast<size_t>(std::min<int64_t>(256 << 10, text_bytes_ - at)));
    LF_RETURN_IF_ERROR(io::PreadAll(text_.get(), piece, static_cast<uint64_t>(at), "the text of the tables"));
    LF_RETURN_IF_ERROR(load->Write(piece));
    LF_CRASH_POINT("restore.merging");
  }
  LF_RETURN_IF_ERROR(load->Finish());
  LF_RETURN_IF_ERROR(io::SyncInStretches(merged_->fd(), merged_->path(), [this] { return context_.cancel.cancelled(); }));
  LF_ASSIGN_OR_RETURN(const Geometry geometry, GeometryOf(merged_->fd(), merged_->path()));
  context_.state.clear_versions();
  LF_RETURN_IF_ERROR(RecordLoaded(merged_->fd(), merged_->path(), geometry, context_.state));
  LF_ASSIGN_OR_RETURN(merged_staging_,
                      StagingFile::Reopen(context_.place, context_.staging->name(), geometry.page_size, geometry.page_count));
  context_.staging = merged_staging_.get();
  context_.Say(fmt::format(
      "replaced {} tables in a copy of {}{}", merge.tables.size(), context_.place.path(),
      merge.may_break_keys ? ", whatever becomes of foreign keys" : "; no row of another table lost the parent of a foreign key"));
  if (const std::string said = load->said(); !said.empty()) context_.Say(said);
  // SQLite remembers how many pages there were when the lock was had, and may have copied all of them before it is told to be at the end.
  const int rc = sqlite3_backup_step(backup_.get(), 0);
  if (rc == SQLITE_DONE) return NothingToCopy();
  if (rc != SQLITE_OK) return destination_->ErrorFor(rc, "look at what is copied into");
  LF_CRASH_POINT("restore.merged");
  return absl::OkStatus();
}

// SQLite's copy of nothing is committed with the step that was to lock: nothing may come here that is empty.
absl::Status LiveCopy::NothingToCopy() {
  return Error(Code::kInternal, "SNAPSHOT_EMPTY", fmt::format("SQLite found nothing to copy into {}", context_.place.path()),
               "look at the database, which may be empty now, and restore it from a snapshot that is not with --mode replace");
}

absl::Status LiveCopy::Lock(sqlite3* from) {
  backup_.reset(sqlite3_backup_init(destination_->db(), "main", from, "main"));
  if (backup_ == nullptr) return destination_->ErrorFor(sqlite3_errcode(destination_->db()), "begin to restore into");
  sqlite3_busy_timeout(destination_->db(), 200);
  const auto deadline = Clock::now() + context_.options.lock_timeout;
  for (;;) {
    const int rc = sqlite3_backup_step(backup_.get(), 0);
    if (rc == SQLITE_OK) break;
    LF_RETURN_IF_ERROR(context_.CheckCancelled());
    if (rc == SQLITE_DONE) return NothingToCopy();
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
    if (merges()) LF_RETURN_IF_ERROR(merged_->TakeRaw(*destination_, context_.cancel));
  } else {
    // Writers wait now: what the reader sees is the last state before the restore.
    LF_ASSIGN_OR_RETURN(const auto read, capture::PinnedRead::Begin(*reader_));
    if (DataVersion(reader_->db()) != reader_version_) {
      LF_RETURN_IF_ERROR(undo_->Take(*reader_, *read, context_.cancel));
      if (merges()) LF_RETURN_IF_ERROR(merged_->Take(*reader_, *read, context_.cancel));
    }
    read->End();
  }
  LF_RETURN_IF_ERROR(undo_->Finish(context_.cancel));
  context_.state.clear_undo_parts();
  context_.state.add_undo_parts("");
  return context_.place.Sync();
}

absl::Status LiveCopy::Copy() {
  bool committed = false;
  const int step = std::max<int>(1, kStepBytes / static_cast<int>(std::max(512u, context_.staging->page_size())));
  for (;;) {
    LF_RETURN_IF_ERROR(context_.CheckCancelled());
    const int left = sqlite3_backup_remaining(backup_.get());
    const int all = std::max(1, sqlite3_backup_pagecount(backup_.get()));
    context_.progress.At(all - left, all);
    if (left <= step) break;
    const int rc = sqlite3_backup_step(backup_.get(), step);
    committed = rc == SQLITE_DONE;
    if (committed) break;  // whatever was expected: never a failure that gives the undo away
    if (rc != SQLITE_OK) return destination_->ErrorFor(rc, "copy into");
    LF_CRASH_POINT("restore.live.copying");
  }
  if (const absl::Status entered = context_.Enter(storage::v1::RESTORE_STEP_APPLYING); !entered.ok()) {
    if (!committed) {
      context_.state.set_step(storage::v1::RESTORE_STEP_CHECKED);
      return entered;
    }
    context_.Say(MessageOf(entered));
  }
  LF_CRASH_POINT("restore.live.before_commit");
  const int rc = sqlite3_backup_step(backup_.get(), -1);
  if (rc != SQLITE_DONE) {
    // SQLite rolls it back. Only of a disk that fails nobody knows what of the commit it has: in this step the undo is kept.
    if ((rc & 0xff) != SQLITE_IOERR) context_.state.set_step(storage::v1::RESTORE_STEP_CHECKED);
    return destination_->ErrorFor(rc, "commit the copy into");
  }
  LF_CRASH_POINT("restore.live.after_commit");
  sqlite3_backup_finish(backup_.release());
  context_.state.set_stall_bytes(static_cast<int64_t>(BytesToCopy(target_, context_.staging->bytes(), merges())));
  context_.state.set_stall_ms(std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - locked_at_).count());
  context_.Say(fmt::format("copied {} pages into {} in one transaction; writers waited {} ms", context_.staging->page_count(),
                           context_.place.path(), context_.state.stall_ms()));
  return context_.Applied();
}

absl::Status LiveCopy::CompareWith(int fd, uint64_t bytes, const std::string& path) {
  // From the files, not from what this connection remembers of its own commit.
  sqlite3_db_release_memory(destination_->db());
  LF_ASSIGN_OR_RETURN(const auto read, capture::PinnedRead::Begin(*destination_));
  const auto deadline = Clock::now() + (target_.wal ? std::chrono::milliseconds(std::chrono::minutes(10)) : context_.rollback_stall);
  absl::Status status;
  if (DataVersion(destination_->db()) != locked_version_ + 1) {
    status = Error(Code::kAborted, "OTHERS_COMMITTED", "others have committed since");
  } else {
    Bytes wanted;
    status = StreamPages(*destination_, *read, context_.cancel, [&](const StreamedExtent& at) -> absl::Status {
      if (Clock::now() > deadline) return Error(Code::kDeadlineExceeded, "READ_BACK_BUDGET", "it would hold writers up for too long");
      if (uint64_t{at.page_size} * at.page_count > bytes) {
        return Error(Code::kDataLoss, "READ_BACK_DIFFERS", "the database has another size than the snapshot");
      }
      wanted.resize(at.pages.size());
      LF_RETURN_IF_ERROR(io::PreadAll(fd, wanted, static_cast<uint64_t>(at.extent) * format::kExtentBytes, path));
      if (SamePages(at.extent, at.pages, wanted)) return absl::OkStatus();
      return Error(Code::kDataLoss, "READ_BACK_DIFFERS", fmt::format("extent {} of the database is not as restored", at.extent));
    });
  }
  read->End();
  // SQLite's own word for pages that it does not understand any more.
  if (status.code() == Code::kDataLoss) return WithReason(status, "READ_BACK_DIFFERS", "");
  return status;
}

// Compares what this very commit made with what was ordered. The root digest was proven on the staging file; this looks at the way into
// the target, and is left out where somebody has committed since.
absl::Status LiveCopy::ReadBack() {
  if (context_.staging->page_count() == 0) return absl::OkStatus();
  const absl::Status status = CompareWith(context_.staging->fd(), context_.staging->bytes(), context_.staging->path());
  if (status.ok()) {
    context_.Say("read the committed state back: it is the snapshot");
    return absl::OkStatus();
  }
  if (status.code() != Code::kDataLoss) {
    context_.Say("the read-back was left out: " + MessageOf(status));
    return absl::OkStatus();
  }
  context_.Say("the read-back found a difference: " + MessageOf(status));
  if (context_.options.at_point) context_.options.at_point("differs");
  return PutBack(status);
}

// Undo is automatic only while nobody else has committed. OK: it was not undone, and read_back is the outcome.
absl::Status LiveCopy::PutBack(const absl::Status& difference) {
  const absl::Status undone = CopyUndo();
  if (undone.ok()) {
    context_.put_back = true;
    context_.Say("put the previous state back: nobody had committed since");
    return Error(Code::kDataLoss, "READ_BACK_DIFFERS",
                 fmt::format("what was committed was not what was ordered ({}): the previous state was put back", MessageOf(difference)),
                 "look at the storage of that machine, then restore again");
  }
  context_.Say("the previous state was not put back: " + MessageOf(undone));
  context_.read_back = Error(
      Code::kDataLoss, "READ_BACK_DIFFERS",
      fmt::format("what was committed is not what was ordered ({}), and it was not undone: {}", MessageOf(difference), MessageOf(undone)),
      fmt::format("the previous state is kept as {}; look at the storage of that machine, stop the application, and choose which of the "
                  "two to keep",
                  context_.place.PathOf(context_.place.UndoName())));
  return absl::OkStatus();
}

absl::Status LiveCopy::CopyUndo() {
  if (undo_->bytes() == 0) return Error(Code::kFailedPrecondition, "UNDO_EMPTY", "there was an empty file before");
  const uint32_t ours = locked_version_ + 1;
  LF_ASSIGN_OR_RETURN(source_, OpenImmutable(undo_->path()));
  LF_RETURN_IF_ERROR(Lock(source_.get()));
  absl::Status status;
  if (locked_version_ != ours) {
    status = Error(Code::kAborted, "OTHERS_COMMITTED", "others have committed since");
  } else {
    status = context_.Enter(storage::v1::RESTORE_STEP_UNDOING);
  }
  LF_CRASH_POINT("restore.live.undoing");
  if (status.ok()) {
    const int rc = sqlite3_backup_step(backup_.get(), -1);
    if (rc != SQLITE_DONE) status = destination_->ErrorFor(rc, "put the previous state back into");
  }
  backup_.reset();
  LF_CRASH_POINT("restore.live.undone");
  if (status.ok()) {
    if (context_.options.at_point) context_.options.at_point("undone");
    // It is committed: a difference alone says otherwise, neither a cancel nor that others have committed on top of it by now.
    status = CompareWith(undo_->fd(), undo_->bytes(), undo_->path());
    if (!status.ok() && status.code() != Code::kDataLoss) {
      context_.Say("the read-back of the previous state was left out: " + MessageOf(status));
      status = absl::OkStatus();
    }
  }
  if (status.ok()) {
    context_.state.set_applied(false);
    return absl::OkStatus();
  }
  static_cast<void>(context_.Applied());
  return status;
}

absl::Status LiveCopy::Run() {
  LF_RETURN_IF_ERROR(Prepare());
  LF_RETURN_IF_ERROR(TakeUndoAhead());
  LF_CRASH_POINT("restore.live.before_lock");
  LF_RETURN_IF_ERROR(Lock(source_.get()));
  LF_CRASH_POINT("restore.live.locked");
  LF_RETURN_IF_ERROR(CompleteUndo());
  reader_.reset();
  LF_CRASH_POINT("restore.live.undo_complete");
  if (merges()) LF_RETURN_IF_ERROR(MergeTables());
  LF_RETURN_IF_ERROR(Copy());
  LF_CRASH_POINT("restore.live.applied");
  if (context_.options.at_point) context_.options.at_point("committed");
  return ReadBack();
}

}  // namespace

absl::Status ApplyLive(ApplyContext& context) {
  context.progress.Begin("applying", 80, 100);
  return LiveCopy(context).Run();
}

}  // namespace litefleet::restore
