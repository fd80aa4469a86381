#include "agent/restore/fetch_patience.h"

#include <algorithm>
#include <thread>

#include "common/base/backoff.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

using Code = absl::StatusCode;
using std::chrono::steady_clock;

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

absl::Status CheckWanted(const CancelToken& cancel) {
  return cancel.cancelled() ? Error(Code::kCancelled, "CANCELLED", "the restore was cancelled") : absl::OkStatus();
}

void WaitFor(const FetchPatience& fetch, std::chrono::milliseconds time) {
  const auto until = steady_clock::now() + time;
  while (!fetch.cancel.cancelled() && steady_clock::now() < until) {
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(std::chrono::milliseconds(50), until - steady_clock::now()));
    fetch.progress.Tick();
  }
}

}  // namespace

absl::Status PersistFetch(const FetchPatience& fetch, const std::function<absl::Status()>& attempt,
                          const std::function<uint64_t()>& gained) {
  Backoff backoff({}, std::hash<std::string>()(fetch.operation_id));
  auto last_gain = steady_clock::now();
  for (;;) {
    LF_RETURN_IF_ERROR(CheckWanted(fetch.cancel));
    const uint64_t had = gained();
    const absl::Status status = attempt();
    LF_RETURN_IF_ERROR(CheckWanted(fetch.cancel));
    if (status.ok() || !MayHelpToRetry(status)) return status;
    const auto now = steady_clock::now();
    if (gained() > had) {
      last_gain = now;
      backoff.Connected(now - std::chrono::minutes(2));
    }
    if (now - last_gain > fetch.patience) {
      return Error(Code::kUnavailable, "FETCH_STALLED", fmt::format("nothing came for {} s: {}", fetch.patience.count(), MessageOf(status)),
                   "look at the connection to the controller, then order the restore again");
    }
    WaitFor(fetch, backoff.Next(now));
  }
}

}  // namespace litefleet::restore
