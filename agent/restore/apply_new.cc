#include <algorithm>

#include "agent/restore/apply.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

// The session keeps what was moved aside: it does not belong to that file.
absl::Status Appeared(const ApplyContext& context) {
  return Error(absl::StatusCode::kFailedPrecondition, "TARGET_EXISTS",
               fmt::format("a database has appeared at {} meanwhile", context.place.path()),
               "restore again: it is restored live then, or with --mode replace");
}

}  // namespace

absl::Status ApplyNew(ApplyContext& context) {
  context.progress.Begin("applying", 80, 100);
  if (!context.undoes()) LF_RETURN_IF_ERROR(TakeOwnerOfDirectory(context.place, context.staging->fd(), context.staging->path()));
  LF_RETURN_IF_ERROR(context.staging->Sync(context.cancel));
  LF_RETURN_IF_ERROR(context.CheckCancelled());

  // Before anything is moved: what lies beside a database that somebody made meanwhile belongs to it.
  LF_ASSIGN_OR_RETURN(const auto appeared, context.place.Stat(context.place.name()));
  if (appeared.has_value()) return Appeared(context);
  for (const std::string_view suffix : kCompanions) {
    LF_ASSIGN_OR_RETURN(const auto st, context.place.Stat(context.place.name() + std::string(suffix)));
    auto& parts = *context.state.mutable_undo_parts();
    if (st.has_value() && std::find(parts.begin(), parts.end(), suffix) == parts.end()) parts.Add(std::string(suffix));
  }
  LF_RETURN_IF_ERROR(context.Enter(storage::v1::RESTORE_STEP_APPLYING));
  LF_CRASH_POINT("restore.new.before_move");
  absl::Status status = MoveCompanionsAside(context);
  LF_CRASH_POINT("restore.new.before_rename");
  if (status.ok()) status = context.place.RenameNew(context.staging->name(), context.place.name());
  if (status.code() == absl::StatusCode::kAlreadyExists) return Appeared(context);
  LF_RETURN_IF_ERROR(status);
  LF_CRASH_POINT("restore.new.after_rename");
  context.Say(fmt::format("placed the {} database at {}", context.undoes() ? "previous" : "restored", context.place.path()));
  return context.Applied();
}

}  // namespace litefleet::restore
