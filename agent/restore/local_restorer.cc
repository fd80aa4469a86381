#include "agent/restore/local_restorer.h"

#include <algorithm>
#include <utility>

#include "agent/restore/files_session.h"
#include "agent/restore/plan.h"
#include "agent/restore/restore_session.h"
#include "agent/restore/undo.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {

using storage::v1::RestoreState;

namespace {

// Of a question: no operation has this id.
constexpr std::string_view kNoOperation = "plan";

absl::Status NoUndo(const Target& target) {
  return Error(absl::StatusCode::kFailedPrecondition, "UNDO_MISSING",
               fmt::format("no previous state of {} is kept: it is files", target.database), "restore an earlier snapshot of them");
}

bool ConcernsFiles(const v1::RestoreOrder& order, const Target& target) {
  return order.content() == v1::SNAPSHOT_CONTENT_FILES || target.files.has_value();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LocalRestorer>> LocalRestorer::Open(RestorerOptions options, PageFetcher& fetcher) {
  LF_ASSIGN_OR_RETURN(RestoreJournal journal, RestoreJournal::Open(options.state_folder));
  return std::unique_ptr<LocalRestorer>(new LocalRestorer(std::move(options), fetcher, std::move(journal)));
}

Outcome LocalRestorer::Run(const std::string& operation_id, const v1::RestoreOrder& order, const Target& target, const CancelToken& cancel,
                           const std::function<void(const v1::Progress&)>& progress) {
  const RestoreSession::Parts parts{options_, fetcher_, journal_, checker_};
  if (ConcernsFiles(order, target)) return FilesSession(parts, operation_id, order, target, cancel, progress).Run();
  return RestoreSession(parts, operation_id, order, target, cancel, progress).Run();
}

absl::StatusOr<v1::RestorePlan> LocalRestorer::Plan(const v1::RestoreOrder& order, const Target& target) {
  return ConcernsFiles(order, target) ? MakeFilesPlan(order, target) : MakePlan(order, target, options_.apply);
}

Outcome LocalRestorer::Undo(const std::string& operation_id, const v1::UndoOrder& order, const Target& target, const CancelToken& cancel,
                            const std::function<void(const v1::Progress&)>& progress) {
  if (target.files.has_value()) {
    Outcome refused;
    refused.status = NoUndo(target);
    return refused;
  }
  const auto wish = FindUndo(journal_, operation_id, order, target);
  if (!wish.ok()) {
    Outcome refused;
    refused.status = wish.status();
    return refused;
  }
  return RestoreSession({options_, fetcher_, journal_, checker_}, operation_id, wish->order, target, cancel, progress, &wish->record).Run();
}

v1::RestorePlan LocalRestorer::PlanUndo(const v1::UndoOrder& order, const Target& target) {
  if (target.files.has_value()) return MakeUndoPlan(NoUndo(target), target, options_.apply);
  return MakeUndoPlan(FindUndo(journal_, std::string(kNoOperation), order, target), target, options_.apply);
}

absl::Status LocalRestorer::Forget(const std::string& operation_id) {
  LF_ASSIGN_OR_RETURN(const auto state, journal_.Load(operation_id));
  if (state.has_value() && state->step() != storage::v1::RESTORE_STEP_DONE) {
    // It ended without a run that could end it: the database is not configured any more, for instance.
    if (Settle(*state).kept) return absl::OkStatus();
  }
  LF_RETURN_IF_ERROR(journal_.Remove(HookUndoId(operation_id)));
  return journal_.Remove(operation_id);
}

bool LocalRestorer::HasBegun(const std::string& operation_id) const {
  const auto state = journal_.Load(operation_id);
  return !state.ok() || state->has_value();
}

std::optional<Outcome> LocalRestorer::Settle(const std::string& operation_id, const CancelToken& stop) {
  const auto state = journal_.Load(operation_id);
  if (!state.ok() || !state->has_value()) return std::nullopt;
  return Settle(**state, stop).outcome;
}

LocalRestorer::Settled LocalRestorer::Settle(const RestoreState& state, const CancelToken& stop) {
  v1::RestoreOrder order;
  static_cast<void>(order.ParseFromString(state.order()));
  const Target target{state.database(), state.path(), "allow", {}, {}};
  const RestoreSession::Parts parts{options_, fetcher_, journal_, checker_};
  if (!ConcernsFiles(order, target)) {
    RestoreSession session(parts, state.operation_id(), order, target, stop, nullptr);
    std::optional<Outcome> outcome = session.Settle();
    return {std::move(outcome), session.kept()};
  }
  FilesSession session(parts, state.operation_id(), order, target, stop, nullptr);
  std::optional<Outcome> outcome = session.Settle();
  return {std::move(outcome), session.kept()};
}

LocalRestorer::Recovery LocalRestorer::Recover(const std::set<std::string>& active, const CancelToken& stop) {
  Recovery recovery;
  const auto states = journal_.List(recovery.said);
  if (!states.ok()) {
    recovery.said.push_back(MessageOf(states.status()));
    return recovery;
  }
  for (const RestoreState& state : *states) {
    if (active.contains(state.operation_id()) || IsHookUndo(state.operation_id())) continue;
    if (stop.interrupted()) break;
    auto [outcome, kept] = Settle(state, stop);
    if (outcome.has_value() && absl::IsCancelled(outcome->status) && stop.interrupted()) {
      recovery.said.push_back(
          fmt::format("the restore {} of {} was not ended: it goes on at the next start", state.operation_id(), state.database()));
      break;
    }
    if (kept) {
      recovery.said.push_back(
          fmt::format("what the restore {} left in {} could not be removed (is it mounted?), and is left for the next start",
                      state.operation_id(), state.path()));
      continue;
    }
    if (!outcome.has_value()) {
      recovery.said.push_back(fmt::format("rolled the restore {} of {} back", state.operation_id(), state.database()));
      static_cast<void>(journal_.Remove(state.operation_id()));
      continue;
    }
    recovery.said.push_back(outcome->status.ok() ? fmt::format("finished the restore {} of {}", state.operation_id(), state.database())
                                                 : fmt::format("the restore {} of {} ended: {}", state.operation_id(), state.database(),
                                                               MessageOf(outcome->status)));
    Recovered& recovered = recovery.ended.emplace_back();
    recovered.operation_id = state.operation_id();
    static_cast<void>(recovered.order.ParseFromString(state.order()));
    recovered.order.set_database(state.database());
    recovered.undo = state.has_undoes();
    recovered.outcome = *std::move(outcome);
  }
  return recovery;
}

absl::StatusOr<std::string> LocalRestorer::DropUndo(const std::string& database, const std::string& restore_operation_id) {
  LF_ASSIGN_OR_RETURN(const auto record, journal_.LoadUndo(database));
  if (!record.has_value()) return std::string();
  LF_RETURN_IF_ERROR(CheckRestoreOf(*record, restore_operation_id));
  LF_ASSIGN_OR_RETURN(const bool removed, RemoveKept(*record));
  LF_RETURN_IF_ERROR(journal_.RemoveUndo(database));
  return removed ? record->undo() : std::string();
}

std::vector<std::string> LocalRestorer::DropUndosOlderThan(std::chrono::seconds age, const Clock& clock,
                                                           const std::function<bool(const std::string&)>& busy) {
  std::vector<std::string> dropped;
  const auto records = journal_.ListUndos();
  if (!records.ok()) return dropped;
  for (const auto& record : *records) {
    if (journal_.AgeOfUndo(record, clock) >= age && !busy(record.database()) && DropUndo(record.database()).ok())
      dropped.push_back(record.database());
  }
  return dropped;
}

}  // namespace litefleet::restore
