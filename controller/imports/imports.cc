#include "controller/imports/imports.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/crash_point.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/dump/dump_process.h"
#include "controller/fleet/transitions.h"
#include "controller/imports/local_upload.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::imports {
namespace {

using Code = absl::StatusCode;

constexpr size_t kPiece = 256 << 10;
constexpr std::chrono::milliseconds kReportEvery{300};
constexpr std::string_view kFile = "the file in the scratch place";

absl::Status Cancelled() { return Error(Code::kCancelled, "CANCELLED", "the import was cancelled"); }

absl::StatusOr<ForeignFile> RecogniseFile(int fd, uint64_t bytes) {
  Bytes head(static_cast<size_t>(std::min<uint64_t>(bytes, kHeadBytes)));
  LF_RETURN_IF_ERROR(io::PreadAll(fd, head, 0, kFile));
  return Recognise(head, bytes);
}

v1::CheckState StateOf(check::State state) {
  switch (state) {
    case check::State::kOk:
      return v1::CHECK_STATE_OK;
    case check::State::kDamaged:
      return v1::CHECK_STATE_DAMAGED;
    case check::State::kCannotTell:
      return v1::CHECK_STATE_CANNOT_TELL;
    case check::State::kFailed:
      break;
  }
  return v1::CHECK_STATE_FAILED;
}

// For people, one line, whoever named the file.
std::string ProvenanceOf(const ImportJob& job, bool sql, SystemTime now) {
  std::string name = job.begin.file_name();
  std::replace_if(
      name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return fmt::format("{} \"{}\", {} bytes, SHA-256 {}, by {}, {}", sql ? "SQL text" : "database", name, job.begin.bytes(), job.sha256,
                     job.operation.ordered_by(), FormatRfc3339(now));
}

}  // namespace

Imports::Imports(ImportDeps deps, ImportOptions options) : deps_(std::move(deps)), options_(std::move(options)), checker_(options_.check) {}

Imports::~Imports() { Stop(); }

void Imports::Stop() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    wake_.SignalAll();
  }
  if (worker_.joinable()) worker_.join();
  if (watcher_.joinable()) watcher_.join();
}

absl::Status Imports::Begin() {
  for (v1::Operation& operation : deps_.fleet.ActiveLocal()) {
    if (operation.kind() != v1::OPERATION_KIND_IMPORT) continue;
    LF_RETURN_IF_ERROR(deps_.fleet.AdoptLocal(OperationId(operation.id()), [] {}));
    EndOperation(operation, operation.state() == v1::OPERATION_STATE_CANCELLING
                                ? Cancelled()
                                : Error(Code::kAborted, "IMPORT_INTERRUPTED", "the controller was restarted meanwhile",
                                        "look whether the snapshot is there (litefleet snapshot list), else import the file again"));
  }
  worker_ = std::thread([this] { Work(); });
  watcher_ = std::thread([this] { Watch(); });
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<ImportSession>> Imports::NewSession(const std::string& ordered_by, ImportSession::Stream stream) {
  auto session = std::make_shared<ImportSession>(*this, ordered_by, std::move(stream));
  MutexLock lock(mu_);
  if (sessions_.size() + waiting_.size() + (running_ ? 1 : 0) >= options_.most) {
    return Error(Code::kResourceExhausted, "TOO_MANY_IMPORTS", fmt::format("{} imports are under way", options_.most),
                 "wait until one has ended: litefleet operation list --active");
  }
  sessions_.insert(session);
  wake_.SignalAll();
  return session;
}

void Imports::Enqueue(ImportJob job) {
  MutexLock lock(mu_);
  waiting_.push_back(std::move(job));
  wake_.SignalAll();
}

void Imports::Ended(ImportSession* session) {
  std::shared_ptr<ImportSession> last;  // destroyed without the lock
  MutexLock lock(mu_);
  const auto found = std::find_if(sessions_.begin(), sessions_.end(), [&](const auto& each) { return each.get() == session; });
  if (found == sessions_.end()) return;
  last = *found;
  sessions_.erase(found);
}

absl::StatusOr<uint64_t> Imports::Room() const {
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(options_.scratch));
  MutexLock lock(mu_);
  const uint64_t taken = options_.reserve_bytes + static_cast<uint64_t>(promised_);
  return available > taken ? available - taken : 0;
}

absl::Status Imports::Promise(int64_t bytes) {
  LF_ASSIGN_OR_RETURN(const uint64_t available, io::FreeBytes(options_.scratch));
  MutexLock lock(mu_);
  if (available < options_.reserve_bytes + static_cast<uint64_t>(promised_) + static_cast<uint64_t>(bytes)) {
    return Error(Code::kResourceExhausted, "NOT_ENOUGH_SPACE",
                 fmt::format("{} has {} bytes free, {} are needed, other imports take {} of them, and {} stay free", options_.scratch,
                             available, bytes, promised_, options_.reserve_bytes),
                 "free space on the controller");
  }
  promised_ += bytes;
  return absl::OkStatus();
}

void Imports::GiveBack(int64_t bytes) {
  MutexLock lock(mu_);
  promised_ -= bytes;
}

void Imports::EndOperation(v1::Operation& operation, const absl::Status& status) const {
  fleet::SetLocalEnd(operation, status);
  if (status.ok()) {
    operation.mutable_progress()->set_done_bytes(operation.progress().total_bytes());
    operation.mutable_progress()->set_phase("done");
  }
  if (const absl::Status told = deps_.fleet.UpdateLocal(operation); !told.ok())
    spdlog::warn("end of the import {}: {}", operation.id(), MessageOf(told));
}

bool Imports::stopping() const {
  MutexLock lock(mu_);
  return stop_;
}

void Imports::Watch() {
  for (;;) {
    std::vector<std::shared_ptr<ImportSession>> sessions;
    {
      MutexLock lock(mu_);
      while (!stop_ && sessions_.empty() && waiting_.empty()) wake_.Wait(mu_);
      if (stop_) return;
      wake_.WaitUntil(mu_, deps_.clock.Steady() + options_.look);
      sessions.assign(sessions_.begin(), sessions_.end());
    }
    EndCancelledOnes();
    for (const auto& session : sessions) session->CutIfDue(deps_.clock.Steady() - options_.idle);
  }
}

void Imports::EndCancelledOnes() {
  std::vector<ImportJob> cancelled;
  {
    MutexLock lock(mu_);
    const auto first =
        std::stable_partition(waiting_.begin(), waiting_.end(), [](const ImportJob& job) { return !job.cancel->cancelled(); });
    cancelled.assign(std::move_iterator(first), std::move_iterator(waiting_.end()));
    waiting_.erase(first, waiting_.end());
  }
  for (ImportJob& job : cancelled) {
    job.file.Reset(-1);
    EndOperation(job.operation, Cancelled());
  }
}

void Imports::Work() {
  // Of this thread alone, and of the helpers that it starts.
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), options_.nice));
  for (;;) {
    ImportJob job;
    {
      MutexLock lock(mu_);
      running_ = false;
      while (!stop_ && waiting_.empty()) wake_.Wait(mu_);
      if (stop_) return;
      job = std::move(waiting_.front());
      waiting_.pop_front();
      running_ = true;
    }
    Run(std::move(job));
  }
}

void Imports::Run(ImportJob job) {
  absl::StatusOr<SnapshotId> snapshot = Import(job);
  if (!snapshot.ok() && stopping() && !job.cancel->cancelled()) return;  // told at the next start
  if (snapshot.ok()) job.operation.set_snapshot_id(snapshot->value());
  LF_CRASH_POINT("import.before_end");
  EndOperation(job.operation, snapshot.status());
  if (snapshot.ok() && deps_.on_imported) deps_.on_imported(*snapshot);
}

void Imports::Report(ImportJob& job, std::string_view phase, int64_t done) {
  const SteadyTime now = deps_.clock.Steady();
  v1::Progress& progress = *job.operation.mutable_progress();
  if (progress.phase() == phase && now - reported_ < kReportEvery) return;
  reported_ = now;
  progress.set_phase(std::string(phase));
  progress.set_done_bytes(std::max(progress.done_bytes(), std::min(done, progress.total_bytes())));
  static_cast<void>(deps_.fleet.UpdateLocal(job.operation));
}

absl::StatusOr<ForeignFile> Imports::LoadSql(ImportJob& job, const ForeignFile& text) {
  const int64_t bytes = job.begin.bytes();
  LF_ASSIGN_OR_RETURN(io::UniqueFd database, dump::TemporaryFile(options_.scratch));
  LF_ASSIGN_OR_RETURN(const uint64_t available, Room());
  const auto room = static_cast<int64_t>(std::max<uint64_t>(available, 1));
  dump::HelperOptions helper;
  helper.helper = checker_.helper();
  helper.cancelled = [this, &job] { return job.cancel->cancelled() || stopping(); };
  LF_ASSIGN_OR_RETURN(const auto load,
                      dump::LoadProcess::Start(helper, database.get(), options_.scratch, std::min(room, options_.max_bytes), bytes));
  Report(job, "loading", bytes / 2);
  Bytes piece;
  for (auto at = static_cast<int64_t>(text.skip); at < bytes;) {
    piece.resize(static_cast<size_t>(std::min<int64_t>(kPiece, bytes - at)));
    LF_RETURN_IF_ERROR(io::PreadAll(job.file.get(), piece, static_cast<uint64_t>(at), kFile));
    LF_RETURN_IF_ERROR(load->Write(piece));
    at += static_cast<int64_t>(piece.size());
    Report(job, "loading", bytes / 2 + at / 8);
  }
  LF_RETURN_IF_ERROR(load->Finish());
  const off_t size = lseek(database.get(), 0, SEEK_END);
  if (size < 0) return ErrnoError(errno, "look at the database that was loaded");
  if (size == 0) {
    return Error(Code::kDataLoss, "IMPORT_NOT_A_DATABASE", "the text has no statement that makes a table",
                 "import the SQL text that `sqlite3 FILE .dump` writes, or a database file");
  }
  job.file = std::move(database);
  return RecogniseFile(job.file.get(), static_cast<uint64_t>(size));
}

absl::StatusOr<SnapshotId> Imports::Import(ImportJob& job) {
  const int64_t bytes = job.begin.bytes();
  const auto stop = [this, &job] { return job.cancel->cancelled() || stopping(); };
  if (stop()) return Cancelled();
  const SteadyTime begun = deps_.clock.Steady();
  LF_CRASH_POINT("import.received");
  LF_ASSIGN_OR_RETURN(ForeignFile file, RecogniseFile(job.file.get(), static_cast<uint64_t>(bytes)));
  const bool sql = file.sql;
  if (sql) {
    LF_ASSIGN_OR_RETURN(file, LoadSql(job, file));
  }
  Report(job, "checking", bytes / 2 + bytes / 8);
  check::CheckRequest request;
  request.cancelled = stop;
  request.progress = [&](int64_t) { Report(job, "checking", bytes / 2 + bytes / 8); };
  const check::CheckResult checked = checker_.Check(job.file.get(), request);
  LF_RETURN_IF_ERROR(checked.status);
  const std::string words = checked.Text();
  if (checked.verdict.state == check::State::kDamaged && words == "file is not a database") {
    return Error(Code::kDataLoss, "IMPORT_NOT_A_DATABASE", "SQLite says of what follows the header: " + words,
                 "if it is encrypted, let its application write it without encryption, or as SQL text, and import that");
  }
  LF_CRASH_POINT("import.checked");
  // That took its time, and the file may have waited: a device that is revoked or forgotten meanwhile gets nothing any more.
  const std::string target = fmt::format("{}/{}", job.operation.device_id(), job.operation.database());
  LF_ASSIGN_OR_RETURN(const v1::Database known, deps_.resolve(target));
  if (known.device_id() != job.operation.device_id()) return Error(Code::kNotFound, "DEVICE_NOT_FOUND", "the device is gone");

  LocalUpload upload;
  upload.device = DeviceId(job.operation.device_id());
  upload.provenance = ProvenanceOf(job, sql, deps_.clock.Now());
  upload.fd = job.file.get();
  upload.name = std::string(kFile);
  upload.page_count = file.page_count;
  upload.begin.set_session_id(NewUlid(deps_.clock.Now()));
  upload.begin.set_operation_id(job.operation.id());
  upload.begin.set_database(job.operation.database());
  upload.begin.set_timeline(job.timeline);
  upload.begin.set_method(sql ? v1::METHOD_DUMP : v1::METHOD_FILE);
  upload.begin.set_page_size(file.page_size);
  if (job.begin.has_modified_at()) *upload.commit.mutable_taken_at() = job.begin.modified_at();
  upload.commit.set_journal_mode(file.journal_mode);
  upload.commit.set_source_check(StateOf(checked.verdict.state));
  if (checked.verdict.state != check::State::kOk) upload.commit.set_source_check_message(words);
  *upload.commit.mutable_duration() = ToProtoDuration(std::chrono::duration_cast<std::chrono::milliseconds>(deps_.clock.Steady() - begun));
  const auto size = static_cast<double>(uint64_t{file.page_size} * std::max(file.page_count, 1u));
  const int64_t last_quarter = bytes - bytes / 4 * 3;
  return StoreDatabase(deps_.ingest, upload, stop, [&](int64_t done) {
    const double part = static_cast<double>(done) / size;
    Report(job, "storing", bytes - last_quarter + static_cast<int64_t>(static_cast<double>(last_quarter) * part));
  });
}

}  // namespace litefleet::imports
