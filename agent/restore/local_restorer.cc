#include "agent/restore/local_restorer.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "agent/restore/plan.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/staging_file.h"
#include "common/base/backoff.h"
#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using storage::v1::RestoreState;
using storage::v1::RestoreStep;

absl::Status StatusOf(const RestoreState& state) {
  if (state.code() == 0) return absl::OkStatus();
  return Error(static_cast<Code>(state.code()), state.reason(), state.message(), state.hint());
}

Outcome OutcomeOf(const RestoreState& state) {
  Outcome outcome;
  outcome.status = StatusOf(state);
  outcome.steps.assign(state.steps().begin(), state.steps().end());
  outcome.undo = state.undo();
  outcome.stall_ms = state.stall_ms();
  outcome.mode = static_cast<v1::RestoreMode>(state.mode());
  return outcome;
}

bool MayHelpToRetry(const absl::Status& status) {
  switch (status.code()) {
    case Code::kUnavailable:
    case Code::kDeadlineExceeded:
    case Code::kAborted:
      return true;
    case Code::kResourceExhausted:
      return ReasonOf(status) != "DISK_FULL";
    default:
      return false;
  }
}

bool IsInode(const std::optional<struct stat>& st, const RestoreState& state) {
  return st.has_value() && state.staging_inode() != 0 && st->st_ino == state.staging_inode() && st->st_dev == state.staging_device();
}

}  // namespace

// One Run.
class LocalRestorer::Session {
 public:
  Session(LocalRestorer& restorer, const std::string& operation_id, const v1::RestoreOrder& order, const Target& target,
          const CancelToken& cancel, const ProgressMeter::Report& report)
      : r_(restorer),
        order_(order),
        target_(target),
        cancel_(cancel),
        root_(format::RootDigest::FromBytes(order.root_digest()).value_or(format::RootDigest{})),
        progress_(report, static_cast<int64_t>(format::DatabaseBytes(order.page_size(), order.page_count()))) {
    state_.set_operation_id(operation_id);
    state_.set_database(target.database);
    state_.set_snapshot_id(order.snapshot_id());
    state_.set_root_digest(order.root_digest());
  }

  Outcome Run();

 private:
  absl::Status Go();
  absl::Status Begin();
  absl::Status Continue();
  absl::Status FetchAll();
  absl::Status Check();
  absl::Status Apply();
  absl::Status Finish();
  void CleanUp();
  absl::Status CheckCancelled() const {
    return cancel_.cancelled() ? Error(Code::kCancelled, "CANCELLED", "the restore was cancelled") : absl::OkStatus();
  }
  absl::Status Enter(RestoreStep step) {
    state_.set_step(step);
    return r_.journal_.Save(state_);
  }
  void Wait(std::chrono::milliseconds time);
  ApplyContext Context() {
    return {r_.options_.apply, order_, *place_, *staging_, r_.journal_, state_, cancel_, progress_, absl::OkStatus()};
  }
  std::string staging_name() const { return TargetPlace::StagingName(state_.operation_id()); }

  LocalRestorer& r_;
  const v1::RestoreOrder& order_;
  const Target& target_;
  const CancelToken& cancel_;
  const format::RootDigest root_;
  ProgressMeter progress_;
  RestoreState state_;
  std::optional<TargetPlace> place_;
  std::unique_ptr<StagingFile> staging_;
  absl::Status read_back_;
};

Outcome LocalRestorer::Session::Run() {
  absl::Status status = Go();
  if (state_.step() == storage::v1::RESTORE_STEP_DONE) return OutcomeOf(state_);
  if (!status.ok()) CleanUp();
  if (status.ok()) status = read_back_;
  if (status.ok()) progress_.Finish();
  state_.set_code(static_cast<int>(status.code()));
  state_.set_reason(ReasonOf(status));
  state_.set_message(MessageOf(status));
  state_.set_hint(HintOf(status));
  LF_CRASH_POINT("restore.before_done");
  // Without it a crash before the caller has made the outcome durable would repeat the restore: no harm, it ends in the same state.
  static_cast<void>(Enter(storage::v1::RESTORE_STEP_DONE));
  LF_CRASH_POINT("restore.done");
  return OutcomeOf(state_);
}

absl::Status LocalRestorer::Session::Go() {
  LF_RETURN_IF_ERROR(CheckOrder(order_, target_));
  LF_ASSIGN_OR_RETURN(TargetPlace place, TargetPlace::Resolve(target_.path));
  place_.emplace(std::move(place));
  LF_ASSIGN_OR_RETURN(auto before, r_.journal_.Load(state_.operation_id()));
  if (before.has_value()) {
    state_ = std::move(*before);
    if (state_.step() == storage::v1::RESTORE_STEP_DONE) return absl::OkStatus();
    if (state_.root_digest() != order_.root_digest() || state_.path() != place_->path()) {
      return Error(Code::kFailedPrecondition, "ORDER_INVALID",
                   fmt::format("the restore {} began with another snapshot or for {}", state_.operation_id(), state_.path()),
                   "bring the configuration of the device back, or order the restore again");
    }
    LF_RETURN_IF_ERROR(Continue());
  } else {
    LF_RETURN_IF_ERROR(Begin());
  }
  if (state_.step() == storage::v1::RESTORE_STEP_PREPARED) LF_RETURN_IF_ERROR(FetchAll());
  if (state_.step() == storage::v1::RESTORE_STEP_STAGED) LF_RETURN_IF_ERROR(Check());
  if (state_.step() != storage::v1::RESTORE_STEP_APPLIED) LF_RETURN_IF_ERROR(Apply());
  return Finish();
}

absl::Status LocalRestorer::Session::Begin() {
  LF_RETURN_IF_ERROR(CheckCancelled());
  LF_ASSIGN_OR_RETURN(const v1::RestoreMode mode, DecideMode(order_, *place_));
  LiveTarget live;
  if (mode == v1::RESTORE_MODE_LIVE) {
    LF_ASSIGN_OR_RETURN(live, LookAtLiveTarget(*place_, r_.options_.apply, cancel_));
    LF_RETURN_IF_ERROR(CheckPageSize(live, order_.page_size()));
  }
  LF_RETURN_IF_ERROR(
      CheckSpace(*place_, SpaceFor(mode, format::DatabaseBytes(order_.page_size(), order_.page_count()), live, r_.options_.reserve_bytes)));
  state_.set_path(place_->path());
  state_.set_mode(mode);
  state_.set_started_at_ms(ToUnixMillis(RealClock().Now()));
  LF_RETURN_IF_ERROR(Enter(storage::v1::RESTORE_STEP_PREPARED));
  LF_CRASH_POINT("restore.prepared");
  return absl::OkStatus();
}

// Takes up what a former run left, as the table says.
absl::Status LocalRestorer::Session::Continue() {
  state_.add_steps("went on after an interruption");
  LF_ASSIGN_OR_RETURN(const auto target, place_->Stat(place_->name()));
  if (state_.step() == storage::v1::RESTORE_STEP_APPLYING && state_.mode() != v1::RESTORE_MODE_LIVE && IsInode(target, state_)) {
    LF_RETURN_IF_ERROR(place_->Sync());
    return Enter(storage::v1::RESTORE_STEP_APPLIED);
  }
  if (state_.step() == storage::v1::RESTORE_STEP_PREPARED || state_.step() == storage::v1::RESTORE_STEP_APPLIED) return absl::OkStatus();

  auto staging = StagingFile::Reopen(*place_, staging_name(), order_.page_size(), order_.page_count());
  absl::Status usable = staging.status();
  if (usable.ok()) {
    staging_ = std::move(*staging);
    usable = staging_->Verify(root_, state_.versions(), cancel_);
  }
  if (usable.code() == Code::kCancelled) return usable;
  if (state_.step() == storage::v1::RESTORE_STEP_APPLYING && state_.mode() == v1::RESTORE_MODE_LIVE && usable.ok()) {
    auto context = Context();
    const auto committed = LiveWasCommitted(context);
    if (!committed.ok()) {
      static_cast<void>(InstallUndo(context));  // whatever the database holds now, the former state is kept
      return WithReason(Annotate(committed.status(), "whether the interrupted restore had ended cannot be told"), "RESTORE_OUTCOME_UNKNOWN",
                        "look at the database; its previous state is kept as the undo");
    }
    return Enter(*committed ? storage::v1::RESTORE_STEP_APPLIED : storage::v1::RESTORE_STEP_CHECKED);
  }
  if (usable.ok()) return absl::OkStatus();
  // The staging file is lost: from the beginning, with whatever was moved aside back in its place.
  auto lost = StagingFile::Reopen(*place_, staging_name(), order_.page_size(), order_.page_count());
  if (state_.mode() != v1::RESTORE_MODE_LIVE && lost.ok()) {
    staging_ = std::move(*lost);
    auto context = Context();
    PutCompanionsBack(context);
  }
  staging_.reset();
  state_.clear_versions();
  state_.add_steps("the staging file was not complete: it is fetched again");
  return Enter(storage::v1::RESTORE_STEP_PREPARED);
}

void LocalRestorer::Session::Wait(std::chrono::milliseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (!cancel_.cancelled() && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(
        std::min<std::chrono::nanoseconds>(std::chrono::milliseconds(50), until - std::chrono::steady_clock::now()));
    progress_.Tick();
  }
}

absl::Status LocalRestorer::Session::FetchAll() {
  progress_.Begin("fetching", 0, 60);
  LF_RETURN_IF_ERROR(place_->Remove(staging_name()));
  LF_ASSIGN_OR_RETURN(staging_, StagingFile::Create(*place_, staging_name(), order_.page_size(), order_.page_count()));
  LF_CRASH_POINT("restore.staging_created");
  const uint32_t extents = format::ExtentCount(order_.page_size(), order_.page_count());
  const auto sink = [&](const FetchedExtent& extent) -> absl::Status {
    LF_RETURN_IF_ERROR(CheckCancelled());
    LF_RETURN_IF_ERROR(staging_->Append(extent));
    progress_.AddWireBytes(extent.wire_bytes);
    progress_.At(staging_->next_extent(), extents);
    LF_CRASH_POINT("restore.fetching");
    return absl::OkStatus();
  };
  Backoff backoff({}, std::hash<std::string>()(state_.operation_id()));
  auto last_gain = std::chrono::steady_clock::now();
  while (staging_->next_extent() < extents) {
    LF_RETURN_IF_ERROR(CheckCancelled());
    const uint32_t had = staging_->next_extent();
    const absl::Status status = r_.fetcher_.Fetch(state_.operation_id(), order_, had, cancel_, sink);
    LF_RETURN_IF_ERROR(CheckCancelled());
    if (status.ok()) break;
    if (!MayHelpToRetry(status)) return status;
    const auto now = std::chrono::steady_clock::now();
    if (staging_->next_extent() > had) {
      last_gain = now;
      backoff.Connected(now - std::chrono::minutes(2));
    }
    if (now - last_gain > r_.options_.fetch_patience) {
      return Error(Code::kUnavailable, "FETCH_STALLED",
                   fmt::format("nothing came for {} s: {}", r_.options_.fetch_patience.count(), MessageOf(status)),
                   "look at the connection to the controller, then order the restore again");
    }
    Wait(backoff.Next(now));
  }
  LF_RETURN_IF_ERROR(staging_->Finish(root_));
  struct stat st {};
  if (fstat(staging_->fd(), &st) != 0) return ErrnoError(errno, "look at " + staging_->path());
  state_.set_staging_device(st.st_dev);
  state_.set_staging_inode(st.st_ino);
  state_.add_steps(fmt::format("fetched {} pages and proved their root digest", order_.page_count()));
  // Made durable by the first sync before APPLYING; until then a staging file that is not as recorded is fetched again.
  state_.set_step(storage::v1::RESTORE_STEP_STAGED);
  LF_CRASH_POINT("restore.staged");
  return absl::OkStatus();
}

absl::Status LocalRestorer::Session::Check() {
  progress_.Begin("checking", 60, 80);
  check::CheckRequest request;
  request.cancelled = [this] { return cancel_.cancelled(); };
  request.progress = [this](int64_t bytes) { progress_.At(bytes, static_cast<int64_t>(staging_->bytes())); };
  const check::CheckResult result = r_.checker_.Check(staging_->fd(), request);
  if (result.status.code() == Code::kCancelled) return result.status;
  LF_RETURN_IF_ERROR(CheckCancelled());
  const check::State found = result.status.ok() ? result.verdict.state : check::State::kFailed;
  const std::string words = result.status.ok() ? result.Text() : MessageOf(result.status);
  switch (found) {
    case check::State::kOk:
      state_.add_steps("SQLite's checks found nothing");
      break;
    case check::State::kCannotTell:
      state_.add_steps("SQLite's checks cannot tell without the application: " + words);
      break;
    case check::State::kDamaged:
      if (!order_.check_override() && order_.check_state() != v1::CHECK_STATE_DAMAGED) {
        return Error(Code::kDataLoss, "SNAPSHOT_DAMAGED", "SQLite's checks found damage in the snapshot: " + words,
                     "restore another snapshot, or this one although it is damaged by overriding the check");
      }
      state_.add_steps("SQLite's checks found damage, as was known or is overridden: " + words);
      break;
    case check::State::kFailed:
      if (!order_.check_override()) {
        return Error(
            Code::kInternal, "CHECK_FAILED", "SQLite's checks could not be carried out: " + words,
            "look at the memory of the device and at the installation of litefleet-check, or override the check: the bytes are proven");
      }
      state_.add_steps("SQLite's checks could not be carried out, which is overridden: " + words);
      break;
  }
  LF_RETURN_IF_ERROR(staging_->Sync());
  LF_RETURN_IF_ERROR(Enter(storage::v1::RESTORE_STEP_CHECKED));
  LF_CRASH_POINT("restore.checked");
  return absl::OkStatus();
}

absl::Status LocalRestorer::Session::Apply() {
  LF_RETURN_IF_ERROR(CheckCancelled());
  auto context = Context();
  absl::Status status;
  switch (state_.mode()) {
    case v1::RESTORE_MODE_NEW:
      status = ApplyNew(context);
      break;
    case v1::RESTORE_MODE_LIVE:
      status = ApplyLive(context);
      break;
    default:
      status = ApplyReplace(context);
      break;
  }
  read_back_ = context.read_back;
  return status;
}

absl::Status LocalRestorer::Session::Finish() {
  if (staging_ == nullptr) {
    // After a crash the file may be at the target's name by now; only its size is asked for here.
    auto staging = StagingFile::Reopen(*place_, state_.mode() == v1::RESTORE_MODE_LIVE ? staging_name() : place_->name(),
                                       order_.page_size(), order_.page_count());
    if (staging.ok()) staging_ = std::move(*staging);
  }
  if (staging_ != nullptr) {
    auto context = Context();
    if (const absl::Status kept = InstallUndo(context); !kept.ok())
      state_.add_steps("the previous state could not be kept: " + MessageOf(kept));
    LF_CRASH_POINT("restore.undo_installed");
    if (state_.mode() == v1::RESTORE_MODE_LIVE) CheckpointLive(context);
    LF_CRASH_POINT("restore.checkpointed");
  }
  staging_.reset();
  if (state_.mode() == v1::RESTORE_MODE_LIVE) {
    if (const absl::Status removed = place_->Remove(staging_name()); !removed.ok()) state_.add_steps(MessageOf(removed));
  }
  static_cast<void>(place_->Sync());
  return absl::OkStatus();
}

// After an error: the old state is in place, what the restore made goes.
void LocalRestorer::Session::CleanUp() {
  staging_.reset();
  if (!place_.has_value() || state_.path().empty()) return;
  const auto target = place_->Stat(place_->name());
  if (state_.mode() != v1::RESTORE_MODE_NEW && (!target.ok() || !target->has_value())) return;  // then the undo is all there is
  for (const std::string& name : {staging_name(), TargetPlace::TemporaryUndoName(state_.operation_id())}) {
    if (const absl::Status removed = place_->Remove(name); !removed.ok()) state_.add_steps(MessageOf(removed));
  }
  static_cast<void>(place_->Sync());
}

absl::StatusOr<std::unique_ptr<LocalRestorer>> LocalRestorer::Open(RestorerOptions options, PageFetcher& fetcher) {
  LF_ASSIGN_OR_RETURN(RestoreJournal journal, RestoreJournal::Open(options.state_folder));
  return std::unique_ptr<LocalRestorer>(new LocalRestorer(std::move(options), fetcher, std::move(journal)));
}

Outcome LocalRestorer::Run(const std::string& operation_id, const v1::RestoreOrder& order, const Target& target, const CancelToken& cancel,
                           const std::function<void(const v1::Progress&)>& progress) {
  return Session(*this, operation_id, order, target, cancel, progress).Run();
}

absl::StatusOr<v1::RestorePlan> LocalRestorer::Plan(const v1::RestoreOrder& order, const Target& target) {
  return MakePlan(order, target, options_.apply, options_.reserve_bytes, options_.copy_bytes_per_second);
}

absl::Status LocalRestorer::Forget(const std::string& operation_id) { return journal_.Remove(operation_id); }

std::vector<std::string> LocalRestorer::Recover(const std::set<std::string>& active) {
  std::vector<std::string> done;
  const auto states = journal_.List();
  if (!states.ok()) return {MessageOf(states.status())};
  for (const RestoreState& state : *states) {
    if (active.contains(state.operation_id())) continue;
    const auto place = TargetPlace::Resolve(state.path().empty() ? "/" : state.path());
    if (place.ok() && state.step() < storage::v1::RESTORE_STEP_APPLYING) {
      for (const std::string& name :
           {TargetPlace::StagingName(state.operation_id()), TargetPlace::TemporaryUndoName(state.operation_id())}) {
        static_cast<void>(place->Remove(name));
      }
      done.push_back(fmt::format("rolled the restore {} of {} back", state.operation_id(), state.database()));
    } else if (place.ok() && state.step() < storage::v1::RESTORE_STEP_DONE) {
      // Not decided here without the order: every file is kept, and said.
      done.push_back(fmt::format(
          "the restore {} of {} was interrupted at its end and nobody asks for it any more: look at {} and the .litefleet files "
          "beside it",
          state.operation_id(), state.database(), state.path()));
      continue;
    }
    static_cast<void>(journal_.Remove(state.operation_id()));
  }
  return done;
}

absl::Status LocalRestorer::DropUndo(const std::string& database) {
  LF_ASSIGN_OR_RETURN(const auto record, journal_.LoadUndo(database));
  if (!record.has_value()) return absl::OkStatus();
  for (const std::string& suffix : record->parts()) LF_RETURN_IF_ERROR(io::RemoveFile(record->undo() + suffix));
  return journal_.RemoveUndo(database);
}

std::vector<std::string> LocalRestorer::DropUndosOlderThan(std::chrono::seconds age, const Clock& clock) {
  std::vector<std::string> dropped;
  const auto records = journal_.ListUndos();
  if (!records.ok()) return dropped;
  const int64_t limit = ToUnixMillis(clock.Now() - age);
  for (const auto& record : *records) {
    if (record.made_at_ms() < limit && DropUndo(record.database()).ok()) dropped.push_back(record.database());
  }
  return dropped;
}

}  // namespace litefleet::restore
