#include "controller/verify/snapshot_verifier.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "controller/fleet/transitions.h"
#include "controller/restore/materialise.h"
#include "controller/verify/load_content.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"

namespace litefleet::verify {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

constexpr std::string_view kSuffix = ".check";
constexpr int kPageOfDatabases = 500;
constexpr std::string_view kSchedule = "schedule";
constexpr const char* kOfPart = "/part";
constexpr int kDrillsLookedAt = 100;
constexpr std::chrono::hours kDrillAgain{24};  // after one that gave no verdict

absl::Status Cancelled() { return Error(Code::kCancelled, "CANCELLED", "the check was cancelled"); }

}  // namespace

SnapshotVerifier::SnapshotVerifier(fleet::Fleet& fleet, catalog::SnapshotCatalog& snapshots, restore::SnapshotReaderFactory& readers,
                                   const Clock& clock, VerifierOptions options)
    : fleet_(fleet), snapshots_(snapshots), readers_(readers), clock_(clock), options_(std::move(options)), checker_(options_.check) {}

SnapshotVerifier::~SnapshotVerifier() {
  {
    MutexLock lock(mu_);
    stop_ = true;
    wake_.SignalAll();
  }
  if (worker_.joinable()) worker_.join();
}

absl::Status SnapshotVerifier::Begin() {
  LF_RETURN_IF_ERROR(io::MakeDirectory(options_.scratch));
  std::error_code error;
  for (std::filesystem::directory_iterator at(options_.scratch, error), end; !error && at != end; at.increment(error)) {
    if (at->path().filename().string().ends_with(kSuffix)) LF_RETURN_IF_ERROR(io::RemoveFile(at->path()));
  }
  if (error) return ErrnoError(error.value(), "list " + options_.scratch);
  LF_RETURN_IF_ERROR(TakeUpFormerRun());
  worker_ = std::thread([this] { Work(); });
  return absl::OkStatus();
}

absl::Status SnapshotVerifier::TakeUpFormerRun() {
  for (const v1::Operation& operation : fleet_.ActiveLocal()) {
    if (operation.kind() != v1::OPERATION_KIND_CHECK && operation.kind() != v1::OPERATION_KIND_DRILL) continue;
    Job job;
    job.drill = operation.kind() == v1::OPERATION_KIND_DRILL;
    job.operation = operation;
    job.snapshot = SnapshotId(operation.snapshot_id());
    job.device = DeviceId(operation.device_id());
    job.database = operation.database();
    if (operation.state() == v1::OPERATION_STATE_CANCELLING) job.cancel->Cancel();
    LF_RETURN_IF_ERROR(fleet_.AdoptLocal(OperationId(operation.id()), [this, cancel = job.cancel] {
      cancel->Cancel();
      MutexLock lock(mu_);
      wake_.SignalAll();
    }));
    Enqueue(std::move(job));
  }
  std::string page;
  do {
    LF_ASSIGN_OR_RETURN(const auto databases, snapshots_.ListDatabases(DeviceId(), std::nullopt, kPageOfDatabases, page));
    for (const v1::Database& database : databases.items) {
      const v1::Snapshot& newest = database.newest_snapshot();
      if (newest.id().empty() || (newest.check() != v1::CHECK_STATE_PENDING && newest.check() != v1::CHECK_STATE_UNKNOWN)) continue;
      Committed(SnapshotId(newest.id()), DeviceId(database.device_id()), database.name());
    }
    page = databases.next_token;
  } while (!page.empty());
  return absl::OkStatus();
}

bool SnapshotVerifier::stopping() const {
  MutexLock lock(mu_);
  return stop_;
}

size_t SnapshotVerifier::waiting() const {
  MutexLock lock(mu_);
  return ordered_.size() + automatic_.size() + (running_ ? 1 : 0);
}

void SnapshotVerifier::Enqueue(Job job) {
  MutexLock lock(mu_);
  if (!known_.insert(job.operation->id()).second) return;
  ordered_.push_back(std::move(job));
  wake_.SignalAll();
}

bool SnapshotVerifier::MarkPending(const v1::Snapshot& snapshot) {
  switch (snapshot.check()) {
    case v1::CHECK_STATE_UNSPECIFIED:
    case v1::CHECK_STATE_UNKNOWN:
    case v1::CHECK_STATE_SUPERSEDED:
      return snapshots_.SetCheck(SnapshotId(snapshot.id()), v1::CHECK_STATE_PENDING, "", clock_.Now()).ok();
    default:
      return snapshot.check() == v1::CHECK_STATE_PENDING;  // an older verdict stays until there is a new one
  }
}

absl::StatusOr<v1::Operation> SnapshotVerifier::Start(const SnapshotId& snapshot, const std::string& request_id,
                                                      const std::string& ordered_by) {
  return Order(v1::OPERATION_KIND_CHECK, snapshot, request_id, ordered_by);
}

absl::StatusOr<v1::Operation> SnapshotVerifier::StartDrill(const SnapshotId& snapshot, const std::string& request_id,
                                                           const std::string& ordered_by) {
  return Order(v1::OPERATION_KIND_DRILL, snapshot, request_id, ordered_by);
}

absl::StatusOr<v1::Operation> SnapshotVerifier::Order(v1::OperationKind kind, const SnapshotId& snapshot, const std::string& request_id,
                                                      const std::string& ordered_by) {
  LF_ASSIGN_OR_RETURN(const v1::Snapshot found, snapshots_.Resolve(snapshot.value()));
  Job job;
  job.drill = kind == v1::OPERATION_KIND_DRILL;
  job.snapshot = SnapshotId(found.id());
  job.device = DeviceId(found.device_id());
  job.database = found.database();
  LF_ASSIGN_OR_RETURN(job.operation,
                      fleet_.StartLocal(kind, job.device, job.database, job.snapshot, request_id, ordered_by, [this, cancel = job.cancel] {
                        cancel->Cancel();
                        MutexLock lock(mu_);
                        wake_.SignalAll();
                      }));
  const v1::Operation operation = *job.operation;
  // A request that came again is answered with what exists, which may run or have ended.
  if (operation.state() != v1::OPERATION_STATE_QUEUED) return operation;
  job.marked_pending = MarkPending(found);
  Enqueue(std::move(job));
  return operation;
}

void SnapshotVerifier::Committed(const SnapshotId& snapshot, const DeviceId& device, const std::string& database, Automatic kind) {
  const bool continuous = kind == Automatic::kContinuous;
  Job job;
  job.snapshot = snapshot;
  job.device = device;
  // No database has such a name: a part does not take the turn of a whole snapshot.
  job.database = kind == Automatic::kPart ? database + kOfPart : database;
  job.not_before = steady_clock::now() + options_.settle;
  SnapshotId superseded;
  {
    MutexLock lock(mu_);
    const std::pair key(device.value(), job.database);
    const auto of_database = automatic_of_.find(key);
    if (of_database != automatic_of_.end()) {
      Job& older = *of_database->second;
      if (older.snapshot == snapshot) return;
      // It takes over the other's turn: a database that is backed up more often than its turn comes is checked all the same.
      superseded = older.snapshot;
      job.not_before = continuous ? older.not_before : std::min(older.not_before, job.not_before);
      older = std::move(job);
      if (std::max(older.not_before, rests_until_) < looks_again_) wake_.SignalAll();
    } else if (automatic_.size() >= options_.max_waiting) {
      return;  // found again at the next start
    } else {
      if (const auto last = checked_.find(key); continuous && last != checked_.end())
        job.not_before = std::max(job.not_before, last->second + options_.continuous_every);
      automatic_.push_back(std::move(job));
      automatic_of_[key] = std::prev(automatic_.end());
      if (std::max(automatic_.back().not_before, rests_until_) < looks_again_) wake_.SignalAll();
    }
  }
  // Only for those who look: the queue does not depend on it. Syncs come every second, and are not written down; parts are not found again
  // at the next start, and their drill comes.
  if (kind != Automatic::kBackup) return;
  snapshots_.QueueCheck(snapshot, superseded);
}

std::optional<SnapshotVerifier::Job> SnapshotVerifier::Next(steady_clock::time_point rest_until) {
  MutexLock lock(mu_);
  const auto now = steady_clock::now();
  const auto drill_at = std::max(rest_until, drills_looked_at_ + options_.drill_look);
  // Of those that wait equally long the first; a database that is captured continuously waits until its hour is over.
  const auto first =
      std::min_element(automatic_.begin(), automatic_.end(), [](const Job& a, const Job& b) { return a.not_before < b.not_before; });
  const auto wait_until = first == automatic_.end() ? drill_at : std::min(drill_at, std::max(first->not_before, rest_until));
  std::optional<Job> job;
  if (!ordered_.empty()) {
    job = std::move(ordered_.front());
    ordered_.pop_front();
  } else if (first != automatic_.end() && std::max(first->not_before, rest_until) <= now) {
    job = std::move(*first);
    automatic_.erase(first);
    automatic_of_.erase({job->device.value(), job->database});
    std::erase_if(checked_, [&](const auto& each) { return each.second + options_.continuous_every < now; });
    checked_[{job->device.value(), job->database}] = now;
  } else if (!stop_ && now < wait_until) {
    looks_again_ = wait_until;
    rests_until_ = rest_until;
    wake_.WaitUntil(mu_, wait_until);
  }
  if (job.has_value()) running_ = true;
  return job;
}

void SnapshotVerifier::Work() {
  // Of this thread alone, and of the helpers that it starts.
  static_cast<void>(setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), options_.nice));
  drills_looked_at_ = steady_clock::now();
  auto rest_until = steady_clock::time_point::min();
  for (;;) {
    EndCancelledOnes();
    if (stopping()) return;
    std::optional<Job> job = Next(rest_until);
    if (stopping()) return;
    if (!job.has_value()) {
      if (steady_clock::now() < std::max(rest_until, drills_looked_at_ + options_.drill_look)) continue;
      drills_looked_at_ = steady_clock::now();
      OrderDueDrill();
      continue;
    }
    const bool automatic = !job->operation.has_value() || job->operation->ordered_by() == kSchedule;
    const auto begun = steady_clock::now();
    RunJob(std::move(*job));
    if (automatic) {
      const auto ended = steady_clock::now();
      rest_until = ended + (ended - begun) * (100 - options_.automatic_percent) / std::max(1, options_.automatic_percent);
    }
    MutexLock lock(mu_);
    running_ = false;
  }
}

void SnapshotVerifier::OrderDueDrill() {
  const SystemTime now = clock_.Now();
  std::erase_if(not_drilled_, [&](const auto& each) { return now - each.second > kDrillAgain; });
  const auto due = snapshots_.DrillsDue(now - options_.drill_every, now - options_.drill_older_every, kDrillsLookedAt);
  if (!due.ok()) return spdlog::warn("look for drills that are due: {}", MessageOf(due.status()));
  for (const v1::Snapshot& snapshot : *due) {
    if (not_drilled_.contains(snapshot.id())) continue;
    not_drilled_[snapshot.id()] = now;  // until it has a verdict
    drills_looked_at_ = {};             // and then for the next one
    const auto ordered = StartDrill(SnapshotId(snapshot.id()), "", std::string(kSchedule));
    if (!ordered.ok()) spdlog::warn("begin a drill of {}: {}", snapshot.id(), MessageOf(ordered.status()));
    return;
  }
}

void SnapshotVerifier::EndCancelledOnes() {
  std::vector<Job> cancelled;
  {
    MutexLock lock(mu_);
    for (auto at = ordered_.begin(); at != ordered_.end();) {
      if (!at->cancel->cancelled()) {
        ++at;
        continue;
      }
      cancelled.push_back(std::move(*at));
      at = ordered_.erase(at);
    }
  }
  for (Job& job : cancelled) End(job, Cancelled());
}

void SnapshotVerifier::Report(Job& job, std::string_view phase, int64_t done, int64_t total) {
  EndCancelledOnes();
  const auto now = steady_clock::now();
  if (!job.operation.has_value() || now < next_report_) return;
  next_report_ = now + std::chrono::milliseconds(300);
  v1::Progress& progress = *job.operation->mutable_progress();
  progress.set_total_bytes(total);
  progress.set_done_bytes(std::max(progress.done_bytes(), std::min(done, total)));
  progress.set_phase(std::string(phase));
  static_cast<void>(fleet_.UpdateLocal(*job.operation));
}

void SnapshotVerifier::End(Job& job, const absl::Status& status) {
  // Nobody has looked after all.
  if (job.marked_pending && status.code() == Code::kCancelled) {
    static_cast<void>(snapshots_.SetCheck(job.snapshot, v1::CHECK_STATE_UNKNOWN, "", clock_.Now()));
  }
  if (!job.operation.has_value()) return;
  v1::Operation& operation = *job.operation;
  fleet::SetLocalEnd(operation, status);
  if (status.ok()) {
    operation.mutable_progress()->set_done_bytes(operation.progress().total_bytes());
    operation.mutable_progress()->set_phase("done");
  }
  // What could not be written down is found and run again at the next start.
  static_cast<void>(fleet_.UpdateLocal(operation));
  MutexLock lock(mu_);
  known_.erase(operation.id());
}

void SnapshotVerifier::RunJob(Job job) {
  if (job.cancel->cancelled()) return End(job, Cancelled());
  const auto snapshot = snapshots_.Resolve(job.snapshot.value());
  if (!snapshot.ok()) return End(job, snapshot.status());
  // Checked by an order while it waited by itself.
  if (!job.operation.has_value() && snapshot->check() != v1::CHECK_STATE_PENDING && snapshot->check() != v1::CHECK_STATE_UNKNOWN) return;
  if (job.operation.has_value()) {
    job.operation->set_state(v1::OPERATION_STATE_RUNNING);
    job.operation->mutable_progress()->set_total_bytes(snapshot->size_bytes());
    static_cast<void>(fleet_.UpdateLocal(*job.operation));
  }
  LF_CRASH_POINT("verify.running");
  const Verdict verdict = Check(job, *snapshot);
  if (stopping()) return;  // begun anew after the next start
  LF_CRASH_POINT("verify.before_record");
  absl::Status status = verdict.status;
  if (verdict.state != v1::CHECK_STATE_UNSPECIFIED) {
    absl::Status recorded = snapshots_.SetCheck(job.snapshot, verdict.state, verdict.message, clock_.Now());
    if (recorded.ok() && job.drill && verdict.state != v1::CHECK_STATE_FAILED) {
      recorded = snapshots_.SetDrilled(job.snapshot, clock_.Now(), verdict.restore);
      not_drilled_.erase(job.snapshot.value());
    }
    if (status.ok()) status = recorded;
  }
  LF_CRASH_POINT("verify.recorded");
  End(job, status);
}

// That the archive is whole, and has nothing in it that a device would refuse for its name: what the files say is nobody's to judge.
SnapshotVerifier::Verdict SnapshotVerifier::CheckFiles(Job& job, int64_t size) {
  const auto stop = [&] { return job.cancel->cancelled() || stopping(); };
  files::FilesHelper helper;
  helper.helper = options_.check.helper;
  helper.cancelled = stop;
  const auto begun = steady_clock::now();
  const auto count = ReadFiles(readers_, job.snapshot, helper, [&](uint64_t bytes) -> absl::Status {
    if (stop()) return Cancelled();
    Report(job, "reading", static_cast<int64_t>(bytes), size);
    return absl::OkStatus();
  });
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - begun);
  const absl::Status& read = count.status();
  if (read.code() == Code::kCancelled) return {v1::CHECK_STATE_UNSPECIFIED, "", Cancelled()};
  if (ReasonOf(read) == "ARCHIVE_INVALID" || ReasonOf(read) == "CONTENT_DAMAGED") {
    return {v1::CHECK_STATE_DAMAGED, MessageOf(read), WithReason(read, "SNAPSHOT_DAMAGED", "look at older snapshots of the files"), took};
  }
  if (!read.ok()) return {v1::CHECK_STATE_FAILED, MessageOf(read), read};
  return {v1::CHECK_STATE_OK, "", absl::OkStatus(), took};
}

SnapshotVerifier::Verdict SnapshotVerifier::Check(Job& job, const v1::Snapshot& snapshot) {
  const int64_t size = snapshot.size_bytes();
  if (snapshot.content() == v1::SNAPSHOT_CONTENT_FILES) return CheckFiles(job, size);
  const auto failed = [&](const absl::Status& status) { return Verdict{v1::CHECK_STATE_FAILED, MessageOf(status), status}; };
  const auto stop = [&] { return job.cancel->cancelled() || stopping(); };
  const auto available = io::FreeBytes(options_.scratch);
  if (!available.ok()) return failed(available.status());
  if (*available < static_cast<uint64_t>(size) + options_.reserve_bytes) {
    return failed(Error(Code::kResourceExhausted, "NOT_ENOUGH_SPACE",
                        fmt::format("{} has {} bytes free, the copy of the snapshot and the reserve need {}", options_.scratch, *available,
                                    static_cast<uint64_t>(size) + options_.reserve_bytes),
                        "free space in the data directory of the controller, then check again"));
  }
  const std::string path = fmt::format("{}/{}{}", options_.scratch, snapshot.id(), kSuffix);
  if (const absl::Status removed = io::RemoveFile(path); !removed.ok()) return failed(removed);
  const auto begun = steady_clock::now();
  const auto progress = [&](uint64_t bytes) -> absl::Status {
    if (stop()) return Cancelled();
    Report(job, "reading", static_cast<int64_t>(bytes) / 2, size);
    return absl::OkStatus();
  };
  const bool is_text = snapshot.content() == v1::SNAPSHOT_CONTENT_SQL;
  dump::HelperOptions helper;
  helper.helper = options_.check.helper;
  helper.cancelled = stop;
  const auto room = static_cast<int64_t>(*available - options_.reserve_bytes);
  const absl::Status made = is_text ? LoadContent(readers_, job.snapshot, path, room, helper, progress)
                                    : restore::Materialise(readers_, job.snapshot, path, progress);
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - begun);
  LF_CRASH_POINT("verify.materialised");
  if (made.code() == Code::kCancelled) return {v1::CHECK_STATE_UNSPECIFIED, "", Cancelled()};
  // What SQLite says of the text is a verdict; what the machine says is none.
  const std::string of_part = snapshot.part().empty() ? "" : fmt::format("it holds a part only: {}", snapshot.part());
  if (ReasonOf(made) == "LOAD_REFUSED") {
    return {v1::CHECK_STATE_CANNOT_TELL,
            fmt::format(
                "{}; {}",
                of_part.empty() ? "nobody but its application's own SQLite can load this text, and a restore of it is refused" : of_part,
                MessageOf(made)),
            absl::OkStatus(), took};
  }
  if (ReasonOf(made) == "LOAD_DAMAGED" || ReasonOf(made) == "CONTENT_DAMAGED") {
    return {v1::CHECK_STATE_DAMAGED, MessageOf(made), WithReason(made, "SNAPSHOT_DAMAGED", "look at older snapshots of the database"),
            took};
  }
  if (!made.ok()) return failed(made);
  const auto fd = io::Open(path, O_RDONLY);
  // The descriptor is enough from here on, and a crash leaves no file.
  static_cast<void>(io::RemoveFile(path));
  if (!fd.ok()) return failed(fd.status());
  const check::CheckResult result =
      checker_.Check(fd->get(), {.cancelled =
                                     [&] {
                                       EndCancelledOnes();
                                       return stop();
                                     },
                                 .progress = [&](int64_t bytes) { Report(job, "checking", size / 2 + std::min(bytes, size) / 2, size); },
                                 .part = !snapshot.part().empty()});
  if (result.status.code() == Code::kCancelled) return {v1::CHECK_STATE_UNSPECIFIED, "", Cancelled()};
  if (!result.status.ok()) return failed(result.status);
  switch (result.verdict.state) {
    case check::State::kOk:
      return {v1::CHECK_STATE_OK, result.Text(), absl::OkStatus(), took};
    case check::State::kCannotTell:
      return {v1::CHECK_STATE_CANNOT_TELL, result.Text(), absl::OkStatus(), took};
    case check::State::kDamaged:
      return {v1::CHECK_STATE_DAMAGED, result.Text(),
              Error(Code::kDataLoss, "SNAPSHOT_DAMAGED", "SQLite's checks found damage: " + result.Text(),
                    "the bytes are as they were on the device: look at the database there, and at older snapshots"),
              took};
    case check::State::kFailed:
      break;
  }
  return failed(Error(Code::kInternal, "CHECK_FAILED", "SQLite's checks could not be carried out: " + result.Text(),
                      "look at the memory and the time that a check may take"));
}

}  // namespace litefleet::verify
