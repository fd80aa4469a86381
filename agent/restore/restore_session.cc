#include "agent/restore/restore_session.h"

#include <algorithm>
#include <utility>

#include "agent/restore/delta_fetch.h"
#include "agent/restore/fetch_patience.h"
#include "agent/restore/plan.h"
#include "agent/restore/undo.h"
#include "common/base/clock.h"
#include "common/base/crash_point.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using storage::v1::RestoreState;
using storage::v1::RestoreStep;

constexpr std::string_view kHookUndoSuffix = "-undo";

absl::Status StatusOf(const RestoreState& state) {
  if (state.code() == 0) return absl::OkStatus();
  return Error(static_cast<Code>(state.code()), state.reason(), state.message(), state.hint());
}

bool IsInode(const std::optional<struct stat>& st, const RestoreState& state) {
  return st.has_value() && state.staging_inode() != 0 && st->st_ino == state.staging_inode() && st->st_dev == state.staging_device();
}

bool IsSame(const std::optional<struct stat>& a, const std::optional<struct stat>& b) {
  return a.has_value() && b.has_value() && a->st_ino == b->st_ino && a->st_dev == b->st_dev;
}

// Looks at what a former run may have committed. A cancel that comes meanwhile is behind the point of no return, and does not end it; the
// end of the program does.
template <class Look>
auto LookToTheEnd(const CancelToken& cancel, const Look& look) {
  auto seen = look(cancel);
  if (seen.ok() || !cancel.cancelled() || cancel.interrupted()) return seen;
  const CancelToken end = CancelToken::EndOf(cancel);
  return look(end);
}

}  // namespace

std::string HookUndoId(const std::string& operation_id) { return operation_id + std::string(kHookUndoSuffix); }
bool IsHookUndo(const std::string& operation_id) { return operation_id.ends_with(kHookUndoSuffix); }

Outcome OutcomeOf(const RestoreState& state) {
  Outcome outcome;
  outcome.status = StatusOf(state);
  outcome.steps.assign(state.steps().begin(), state.steps().end());
  outcome.undo = state.undo();
  outcome.stall_ms = state.stall_ms();
  outcome.stall_bytes = state.stall_bytes();
  outcome.mode = static_cast<v1::RestoreMode>(state.mode());
  outcome.applied = state.applied();
  for (const std::string& run : state.hooks()) static_cast<void>(outcome.hooks.emplace_back().ParseFromString(run));
  return outcome;
}

RestoreSession::RestoreSession(const Parts& parts, const std::string& operation_id, const v1::RestoreOrder& order, const Target& target,
                               const CancelToken& cancel, const ProgressMeter::Report& report, const storage::v1::UndoRecord* undoes)
    : parts_(parts),
      order_(order),
      target_(target),
      cancel_(cancel),
      report_(report),
      root_(format::RootDigest::FromBytes(order.root_digest()).value_or(format::RootDigest{})),
      progress_(report_, static_cast<int64_t>(format::DatabaseBytes(order.page_size(), order.page_count())), parts.options.now) {
  state_.set_operation_id(operation_id);
  state_.set_database(target.database);
  state_.set_snapshot_id(order.snapshot_id());
  state_.set_root_digest(order.root_digest());
  state_.set_order(order.SerializeAsString());
  if (undoes != nullptr) *state_.mutable_undoes() = *undoes;
}

absl::Status RestoreSession::CheckCancelled() const {
  return cancel_.cancelled() ? Error(Code::kCancelled, "CANCELLED", "the restore was cancelled") : absl::OkStatus();
}

absl::Status RestoreSession::Enter(RestoreStep step) {
  state_.set_step(step);
  return parts_.journal.Save(state_);
}

absl::Status RestoreSession::EnterApplied() {
  auto context = Context();
  return context.Applied();
}

ApplyContext RestoreSession::Context() {
  return {parts_.options.apply, order_, *place_, target_.reserve, target_.rollback_stall, staging_.get(),
          parts_.journal,       state_, cancel_, progress_,       absl::OkStatus(),       resumed_};
}

namespace {

// The program ends: what a crash would leave stays, and the next run goes on from there.
Outcome Interrupted(const absl::Status& status) {
  Outcome outcome;
  outcome.status = status;
  return outcome;
}

}  // namespace

Outcome RestoreSession::Run() {
  absl::Status status = Go();
  if (state_.step() == storage::v1::RESTORE_STEP_DONE) return OutcomeOf(state_);
  // What a former run may have committed was not seen: not even a cancel says what it is.
  const bool unseen = resumed_ && cancel_.ending() && MayHaveReached();
  if (absl::IsCancelled(status) && (cancel_.interrupted() || unseen)) return Interrupted(status);
  const bool finished = status.ok();
  // It had reached its target, and what is left of it lies where nobody comes now: for the next start. Behind a link it is not looked for.
  const bool reached = state_.undoing_after_hook() || state_.step() == storage::v1::RESTORE_STEP_APPLIED;
  if (!finished && !place_.has_value() && reached && ReasonOf(status) != "FILE_REPLACED") {
    kept_ = true;
    Outcome outcome = OutcomeOf(state_);
    outcome.status = status;
    return outcome;
  }
  if (!finished && !place_.has_value() && reached) {
    // A crash may have come between its own record and what the state says of it. What is kept of an earlier restore is not the state of
    // before this one.
    const auto kept = parts_.journal.LoadUndo(state_.database());
    const bool own = kept.ok() && kept->has_value() && (*kept)->operation_id() == state_.operation_id();
    if (own && state_.undo().empty() && !Removes(**kept)) state_.set_undo((*kept)->undo());
    if (!own && kept.ok() && state_.undo().empty()) static_cast<void>(parts_.journal.RemoveUndo(state_.database()));
    state_.add_steps(fmt::format("the restored database stays, and its previous state as {} where {} was",
                                 state_.undo().empty() ? TargetPlace::TemporaryUndoName(state_.operation_id()) : state_.undo(),
                                 state_.path()));
    state_.clear_undoing_after_hook();
  }
  if (!finished) CleanUp();
  if (finished) status = read_back_;
  // Behind it the next start goes on, whatever cancel came before.
  const bool behind = status.ok();
  if (behind || state_.hooks_begun()) status = AfterApply(status);
  if (absl::IsCancelled(status) && (behind ? cancel_.ending() : cancel_.interrupted())) return Interrupted(status);
  if (finished && staging_outlasts_hooks()) RemoveStaging();
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

std::optional<Outcome> RestoreSession::Settle() {
  abandoned_ = Error(Code::kAborted, "RESTORE_ABANDONED", "nobody asks for the restore any more");
  Outcome outcome = Run();
  if (ReasonOf(outcome.status) == "RESTORE_ABANDONED") return std::nullopt;
  return outcome;
}

absl::Status RestoreSession::Go() {
  LF_ASSIGN_OR_RETURN(auto before, parts_.journal.Load(state_.operation_id()));
  if (before.has_value()) {
    LF_RETURN_IF_ERROR(TakeUp(*std::move(before)));
  } else {
    if (!undoes()) LF_RETURN_IF_ERROR(CheckOrder(order_, target_));
    LF_ASSIGN_OR_RETURN(TargetPlace place, TargetPlace::Resolve(target_.path));
    place_.emplace(std::move(place));
    LF_RETURN_IF_ERROR(Begin());
  }
  if (state_.step() == storage::v1::RESTORE_STEP_DONE) return absl::OkStatus();
  if (state_.undoing_after_hook()) return absl::OkStatus();  // it had reached its target, and goes back
  if (!abandoned_.ok() && state_.step() != storage::v1::RESTORE_STEP_APPLIED) return RollBack();
  if (state_.step() == storage::v1::RESTORE_STEP_PREPARED) LF_RETURN_IF_ERROR(undoes() ? TakeUndo() : FetchAll());
  if (state_.step() == storage::v1::RESTORE_STEP_STAGED) {
    LF_RETURN_IF_ERROR(LoadText());
    LF_RETURN_IF_ERROR(TakeTables());
    LF_RETURN_IF_ERROR(Check());
  }
  if (state_.step() != storage::v1::RESTORE_STEP_APPLIED) {
    LF_RETURN_IF_ERROR(BeforeApply());
    LF_RETURN_IF_ERROR(Apply());
  }
  return Finish();
}

absl::Status RestoreSession::Begin() {
  LF_RETURN_IF_ERROR(CheckCancelled());
  LF_ASSIGN_OR_RETURN(const v1::RestoreMode mode, undoes() ? DecideUndoMode(state_.undoes(), *place_) : DecideMode(order_, *place_));
  LiveTarget live;
  if (mode == v1::RESTORE_MODE_LIVE) {
    LF_ASSIGN_OR_RETURN(live, LookAtLiveTarget(*place_, parts_.options.apply, cancel_));
    const bool keeps_pages = order_.content() == v1::SNAPSHOT_CONTENT_SQL || order_.tables_size() > 0;
    if (!keeps_pages) LF_RETURN_IF_ERROR(CheckPageSize(live, order_.page_size()));
    if (!keeps_pages) LF_RETURN_IF_ERROR(CheckNotEmpty(mode, order_.page_count(), *place_));
  }
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, target_.reserve.At(place_->directory()));
  SpaceNeeded space = SpaceFor(mode, order_, live, reserve);
  if (undoes()) space.staging = 0;
  LF_RETURN_IF_ERROR(CheckSpace(*place_, space));
  state_.set_path(place_->path());
  state_.set_mode(mode);
  state_.set_started_at_ms(ToUnixMillis(RealClock().Now()));
  LF_RETURN_IF_ERROR(Enter(storage::v1::RESTORE_STEP_PREPARED));
  LF_CRASH_POINT("restore.prepared");
  return absl::OkStatus();
}

// What a former run left is at the path that it went to. Where the order or the configuration has changed since, it is abandoned.
absl::Status RestoreSession::TakeUp(RestoreState before) {
  if (before.step() == storage::v1::RESTORE_STEP_DONE) {
    state_ = std::move(before);
    return absl::OkStatus();
  }
  const bool undo = before.has_undoes();
  if (abandoned_.ok() && !undo) abandoned_ = CheckOrder(order_, target_);
  if (abandoned_.ok()) {
    const auto now = TargetPlace::Resolve(target_.path);
    abandoned_ = now.status();
    if (now.ok() && ((!undo && before.root_digest() != order_.root_digest()) || before.path() != now->path())) {
      abandoned_ = Error(Code::kFailedPrecondition, "ORDER_INVALID",
                         fmt::format("the restore {} began with another snapshot or for {}", before.operation_id(), before.path()),
                         "bring the configuration of the device back, or order the restore again");
    }
  }
  if ((undo || !abandoned_.ok()) && !before.order().empty() && order_.ParseFromString(before.order())) {
    root_ = format::RootDigest::FromBytes(order_.root_digest()).value_or(format::RootDigest{});
  }
  state_ = std::move(before);
  if (state_.loaded_page_size() != 0) UseLoaded();
  LF_ASSIGN_OR_RETURN(TargetPlace place, TargetPlace::Resolve(state_.path()));
  // Links were resolved when it began: one that is there now leads to somebody else's file.
  if (place.path() != state_.path()) {
    return Error(Code::kFailedPrecondition, "FILE_REPLACED",
                 fmt::format("{} leads to {} by a link that was not there when the restore began", state_.path(), place.path()),
                 "look at who may write to its directory and to those above, then restore again");
  }
  place_.emplace(std::move(place));
  return Continue();
}

// Takes up what a former run left, as the table says.
absl::Status RestoreSession::Continue() {
  state_.add_steps("went on after an interruption");
  resumed_ = true;
  if (state_.step() == storage::v1::RESTORE_STEP_UNDOING) return ContinueUndoing();
  LF_ASSIGN_OR_RETURN(const auto target, place_->Stat(place_->name()));
  if (state_.step() == storage::v1::RESTORE_STEP_APPLYING && !live() && (removes() ? IsRemoved(target) : IsInode(target, state_))) {
    // Beside a file that somebody made meanwhile nothing is put.
    if (undoes() && (!removes() || !target.has_value())) {
      if (const absl::Status placed = PlaceUndoCompanions(*place_, state_); !placed.ok()) state_.add_steps(MessageOf(placed));
    }
    return EnterApplied();
  }
  if (state_.step() == storage::v1::RESTORE_STEP_PREPARED || state_.step() == storage::v1::RESTORE_STEP_APPLIED) return absl::OkStatus();
  const bool copies = state_.step() == storage::v1::RESTORE_STEP_APPLYING && live();
  if (!abandoned_.ok() && !copies) return absl::OkStatus();
  if (removes()) return absl::OkStatus();

  auto staging = undoes() ? StagingFile::Take(*place_, staging_name())
                          : StagingFile::Reopen(*place_, staging_name(), order_.page_size(), order_.page_count());
  absl::Status usable = staging.status();
  if (usable.ok()) {
    staging_ = *std::move(staging);
    const auto verify = [this](const CancelToken& cancel) { return staging_->Verify(root_, state_.versions(), cancel); };
    if (!undoes()) usable = copies ? LookToTheEnd(cancel_, verify) : verify(cancel_);
  }
  if (absl::IsCancelled(usable)) return usable;
  if (copies) return ContinueLive(usable);
  if (usable.ok()) return absl::OkStatus();
  if (undoes()) return Annotate(usable, "the state that was kept for the undo");
  // The staging file is lost: fetched again as far as it is, with whatever was moved aside back in its place.
  LF_RETURN_IF_ERROR(PutAsideBack());
  if (staging_ != nullptr && state_.versions().size() == 2) static_cast<void>(staging_->WriteVersions(state_.versions()));
  staging_.reset();
  ForgetLoaded();
  state_.clear_versions();
  state_.add_steps("the staging file was not complete: what it lacks is fetched again");
  return Enter(storage::v1::RESTORE_STEP_PREPARED);
}

absl::Status RestoreSession::ContinueLive(const absl::Status& staging) {
  const absl::StatusOr<LiveDifference> difference = staging.ok() ? LookAtCopy(*staging_) : absl::StatusOr<LiveDifference>(staging);
  if (absl::IsCancelled(difference.status())) return difference.status();
  if (!difference.ok()) {
    // Whatever the database holds now, the former state is kept.
    static_cast<void>(InstallUndo(*place_, parts_.journal, state_));
    return WithReason(Annotate(difference.status(), "whether the interrupted restore had ended cannot be told"), "RESTORE_OUTCOME_UNKNOWN",
                      "look at the database; its previous state is kept as the undo");
  }
  if (difference->committed()) return EnterApplied();
  if (order_.tables_size() == 0) return Enter(storage::v1::RESTORE_STEP_CHECKED);
  // The tables were merged with a state that others may have gone on from by now.
  staging_.reset();
  ForgetLoaded();
  return Enter(storage::v1::RESTORE_STEP_PREPARED);
}

absl::StatusOr<LiveDifference> RestoreSession::LookAtCopy(const StagingFile& staging) {
  return LookToTheEnd(cancel_,
                      [&](const CancelToken& cancel) { return CompareLive(*place_, parts_.options.apply, staging, state_, cancel); });
}

// The read-back had found a difference, nobody had committed, and the former state was on its way back: in one transaction, or by one
// rename.
absl::Status RestoreSession::ContinueUndoing() {
  const std::string_view what = live() ? "what was committed was not what was ordered" : "what was put there was not what was ordered";
  const absl::StatusOr<bool> back = live() ? IsUndone() : IsTakenBack();
  if (absl::IsCancelled(back.status()) || (!live() && !back.ok())) return back.status();
  if (back.ok() && *back) {
    put_back_ = true;
    state_.set_applied(false);
    return Error(Code::kDataLoss, "READ_BACK_DIFFERS", fmt::format("{}: the previous state was put back", what),
                 "look at the storage of that machine, then restore again");
  }
  // Others may have committed since: nothing of theirs is undone.
  state_.set_applied(true);
  LF_RETURN_IF_ERROR(InstallUndo(*place_, parts_.journal, state_));
  return Error(Code::kDataLoss, "READ_BACK_DIFFERS", fmt::format("{}, and putting the previous state back was interrupted", what),
               fmt::format("look at the database and at the storage of that machine; the previous state is kept as {}", state_.undo()));
}

absl::StatusOr<bool> RestoreSession::IsTakenBack() {
  // Its own name says nothing where it is gone: a run between may have installed the undo.
  LF_ASSIGN_OR_RETURN(const auto target, place_->Stat(place_->name()));
  if (!target.has_value() || IsInode(target, state_)) return false;
  LF_ASSIGN_OR_RETURN(const auto kept, place_->Stat(TargetPlace::TemporaryUndoName(state_.operation_id())));
  if (kept.has_value() && !IsSame(kept, target)) return false;
  PutCompanionsBack(*place_, state_);
  return true;
}

absl::StatusOr<bool> RestoreSession::IsUndone() {
  LF_ASSIGN_OR_RETURN(const auto staging, StagingFile::Reopen(*place_, staging_name(), order_.page_size(), order_.page_count()));
  LF_ASSIGN_OR_RETURN(const LiveDifference difference, LookAtCopy(*staging));
  return difference.from_old == 0;
}

absl::Status RestoreSession::RollBack() {
  LF_RETURN_IF_ERROR(PutAsideBack());
  return abandoned_;
}

absl::Status RestoreSession::PutAsideBack() {
  if (state_.step() != storage::v1::RESTORE_STEP_APPLYING || live()) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const auto target, place_->Stat(place_->name()));
  // What lies beside a database that somebody made meanwhile belongs to it.
  if (state_.mode() == v1::RESTORE_MODE_NEW && target.has_value()) {
    if (!undoes() && !state_.undo_parts().empty()) LF_RETURN_IF_ERROR(InstallUndo(*place_, parts_.journal, state_));
  } else {
    PutCompanionsBack(*place_, state_);
  }
  state_.set_step(storage::v1::RESTORE_STEP_CHECKED);
  return absl::OkStatus();
}

// The staging file with what a former run had fetched, else a new one.
absl::Status RestoreSession::OpenStaging() {
  const std::string log_file = parts_.journal.ExtentsFile(state_.operation_id());
  auto staging = StagingFile::Reopen(*place_, staging_name(), order_.page_size(), order_.page_count());
  auto log = StagingLog::Open(log_file, root_);
  if (staging.ok() && log.ok()) {
    const uint32_t extents = format::ExtentCount(order_.page_size(), order_.page_count());
    const absl::Status resumed = (*staging)->Resume(**log, cancel_, [&](uint32_t held) { progress_.At(held, extents); });
    if (absl::IsCancelled(resumed)) return resumed;
    if (resumed.ok()) {
      staging_ = *std::move(staging);
      log_ = *std::move(log);
      held_ = staging_->next_extent();
      if (held_ > 0) state_.add_steps(fmt::format("found {} of {} extents in the staging file, each with its digest", held_, extents));
      return absl::OkStatus();
    }
  }
  held_ = 0;
  LF_RETURN_IF_ERROR(place_->Remove(staging_name()));
  LF_ASSIGN_OR_RETURN(staging_, StagingFile::Create(*place_, staging_name(), order_.page_size(), order_.page_count()));
  // Where it cannot be made a crash costs a fetch from the beginning, nothing else.
  auto fresh = StagingLog::Create(log_file, root_);
  log_ = fresh.ok() ? *std::move(fresh) : nullptr;
  LF_CRASH_POINT("restore.staging_created");
  return absl::OkStatus();
}

absl::Status RestoreSession::FetchAll() {
  progress_.Begin("fetching", 0, 60);
  LF_RETURN_IF_ERROR(OpenStaging());
  LF_RETURN_IF_ERROR(FetchDifferences());
  LF_RETURN_IF_ERROR(FetchRest());
  absl::Status finished = staging_->Finish(root_);
  if (ReasonOf(finished) == "ROOT_MISMATCH" && held_ > 0) {
    // Every extent had its digest, and yet they are not this snapshot's.
    state_.add_steps("what was there before is not of this snapshot: all of it is fetched again");
    staging_.reset();
    LF_RETURN_IF_ERROR(place_->Remove(staging_name()));
    LF_RETURN_IF_ERROR(OpenStaging());
    LF_RETURN_IF_ERROR(FetchRest());
    finished = staging_->Finish(root_);
  }
  LF_RETURN_IF_ERROR(finished);
  log_.reset();
  struct stat st {};
  if (fstat(staging_->fd(), &st) != 0) return ErrnoError(errno, "look at " + staging_->path());
  state_.set_staging_device(st.st_dev);
  state_.set_staging_inode(st.st_ino);
  state_.add_steps(fmt::format("proved the root digest of {} pages", order_.page_count()));
  // Made durable by the first sync before APPLYING; until then a crash is taken up in the step before.
  state_.set_step(storage::v1::RESTORE_STEP_STAGED);
  LF_CRASH_POINT("restore.staged");
  return absl::OkStatus();
}

absl::Status RestoreSession::FetchDifferences() {
  // A database and its text share nothing.
  if (order_.content() == v1::SNAPSHOT_CONTENT_SQL) return absl::OkStatus();
  // Without a log nothing remembers what an extent has to be.
  if (state_.mode() == v1::RESTORE_MODE_NEW || log_ == nullptr) return absl::OkStatus();
  if (staging_->next_extent() == format::ExtentCount(order_.page_size(), order_.page_count())) return absl::OkStatus();
  const DeltaFetch::Persist persist = [this](const std::function<absl::Status()>& attempt, const std::function<uint64_t()>& gained) {
    return Persist(attempt, gained);
  };
  DeltaFetch delta(
      {state_.operation_id(), order_, *place_, parts_.options.apply, parts_.fetcher, *staging_, *log_, cancel_, progress_, persist});
  DeltaFetch::Result result;
  LF_RETURN_IF_ERROR(delta.Run(root_, result));
  if (!result.supported) return absl::OkStatus();
  if (!result.note.empty()) state_.add_steps("the present database could not be read to its end: " + result.note);
  state_.add_steps(fmt::format("fetched {} of {} pages: the others were here already, each with its digest",
                               result.fetched_bytes / order_.page_size(), order_.page_count()));
  if (result.shared_bytes > 0) {
    state_.add_steps(fmt::format("{} of these share their blocks with the present database and were not written",
                                 result.shared_bytes / order_.page_size()));
  }
  return absl::OkStatus();
}

absl::Status RestoreSession::FetchRest() {
  const uint32_t extents = format::ExtentCount(order_.page_size(), order_.page_count());
  if (staging_->next_extent() == extents) return absl::OkStatus();
  const auto sink = [&](const FetchedExtent& extent) -> absl::Status {
    LF_RETURN_IF_ERROR(CheckCancelled());
    LF_RETURN_IF_ERROR(staging_->Append(extent));
    if (log_ != nullptr && !log_->Put(extent.extent, extent.name).ok()) log_.reset();
    progress_.AddWireBytes(extent.wire_bytes);
    progress_.AddChangedBytes(static_cast<int64_t>(extent.pages.size()));
    progress_.At(staging_->next_extent(), extents);
    LF_CRASH_POINT("restore.fetching");
    return absl::OkStatus();
  };
  LF_RETURN_IF_ERROR(Persist(
      [&] {
        const uint32_t next = staging_->next_extent();
        return next == extents ? absl::OkStatus() : parts_.fetcher.Fetch(state_.operation_id(), order_, next, cancel_, sink);
      },
      [&] { return uint64_t{staging_->next_extent()}; }));
  state_.add_steps(fmt::format("fetched {} pages", order_.page_count()));
  return absl::OkStatus();
}

absl::Status RestoreSession::Persist(const std::function<absl::Status()>& attempt, const std::function<uint64_t()>& gained) {
  return PersistFetch({state_.operation_id(), parts_.options.fetch_patience, cancel_, progress_}, attempt, gained);
}

absl::Status RestoreSession::Check() {
  if (removes()) return Enter(storage::v1::RESTORE_STEP_CHECKED);
  progress_.Begin("checking", 60, 80);
  check::CheckRequest request;
  request.cancelled = [this] { return cancel_.cancelled(); };
  request.progress = [this](int64_t bytes) { progress_.At(bytes, static_cast<int64_t>(staging_->bytes())); };
  request.part = (order_.tables_size() > 0 && !live()) || !order_.part().empty();
  const check::CheckResult result = parts_.checker.Check(staging_->fd(), request);
  if (result.status.code() == Code::kCancelled) return result.status;
  LF_RETURN_IF_ERROR(CheckCancelled());
  const check::State found = result.status.ok() ? result.verdict.state : check::State::kFailed;
  const std::string words = result.status.ok() ? result.Text() : MessageOf(result.status);
  switch (found) {
    case check::State::kOk:
      state_.add_steps("SQLite's checks found nothing");
      if (!words.empty()) state_.add_steps("rows refer to tables that were not chosen: " + words);
      break;
    case check::State::kCannotTell:
      state_.add_steps("SQLite's checks cannot tell everything: " + words);
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
  LF_RETURN_IF_ERROR(staging_->Sync(cancel_));
  LF_RETURN_IF_ERROR(Enter(storage::v1::RESTORE_STEP_CHECKED));
  LF_CRASH_POINT("restore.checked");
  return absl::OkStatus();
}

absl::Status RestoreSession::Apply() {
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
  put_back_ = context.put_back;
  return status;
}

absl::Status RestoreSession::Finish() {
  if (const absl::Status kept = InstallUndo(*place_, parts_.journal, state_); !kept.ok())
    state_.add_steps("the previous state could not be kept: " + MessageOf(kept));
  LF_CRASH_POINT("restore.undo_installed");
  if (live()) CheckpointLive(*place_, parts_.options.apply, state_, cancel_);
  LF_CRASH_POINT("restore.checkpointed");
  staging_.reset();
  if (!staging_outlasts_hooks()) RemoveStaging();  // also a second name of what was placed, which a crash has left
  static_cast<void>(place_->Sync());
  return absl::OkStatus();
}

void RestoreSession::RemoveStaging() {
  if (const absl::Status removed = place_->Remove(staging_name()); !removed.ok()) state_.add_steps(MessageOf(removed));
}

bool RestoreSession::MayHaveReached() const {
  if (put_back_) return false;
  return state_.step() == storage::v1::RESTORE_STEP_UNDOING || (state_.step() == storage::v1::RESTORE_STEP_APPLYING && live());
}

// After an error: the old state is in place, what the restore made goes.
void RestoreSession::CleanUp() {
  staging_.reset();
  log_.reset();
  if (!place_.has_value() || state_.path().empty()) return;
  const auto target = place_->Stat(place_->name());
  if (state_.mode() != v1::RESTORE_MODE_NEW && (!target.ok() || !target->has_value())) return;  // then the undo is all there is
  if (const absl::Status back = PutAsideBack(); !back.ok()) state_.add_steps("what was moved aside did not come back: " + MessageOf(back));
  if (state_.step() == storage::v1::RESTORE_STEP_UNDOING && live()) CheckpointLive(*place_, parts_.options.apply, state_, cancel_);
  const std::string undo = TargetPlace::TemporaryUndoName(state_.operation_id());
  const bool reached = MayHaveReached();
  if (const auto kept = place_->Stat(undo); reached && kept.ok() && kept->has_value()) {
    if (const absl::Status installed = InstallUndo(*place_, parts_.journal, state_); !installed.ok())
      state_.add_steps(fmt::format("the previous state stays as {}: {}", place_->PathOf(undo), MessageOf(installed)));
  }
  if (undoes()) PutUndoBack();
  for (const std::string& name : {staging_name(), load_name(), undo}) {
    if ((undoes() && name == staging_name()) || (reached && name == undo)) continue;
    if (const absl::Status removed = place_->Remove(name); !removed.ok()) state_.add_steps(MessageOf(removed));
  }
  static_cast<void>(place_->Sync());
}

}  // namespace litefleet::restore
