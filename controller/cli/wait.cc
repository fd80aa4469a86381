#include "controller/cli/wait.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/patience.h"
#include "controller/cli/progress.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kTick{200};        // how often the progress line is drawn anew
constexpr milliseconds kRetryFirst{250};  // between two watches of which the first broke
constexpr milliseconds kRetryLast{4000};
constexpr milliseconds kPoll{1000};  // for several operations at once
constexpr size_t kMaxStates = 256;   // of one watch, not yet looked at

absl::Status Interrupted() { return Error(absl::StatusCode::kCancelled, "INTERRUPTED", "interrupted"); }

absl::Status Offline(const v1::Operation& operation, std::chrono::seconds timeout) {
  const bool cancelling = operation.state() == v1::OPERATION_STATE_CANCELLING;
  const std::string_view what = operation.state() == v1::OPERATION_STATE_QUEUED ? "stays queued and runs when the device connects"
                                : cancelling                                    ? "stays cancelling until the device says what became of it"
                                                                                : "goes on when the device connects";
  return Error(absl::StatusCode::kUnavailable, "DEVICE_OFFLINE",
               fmt::format("device {} was offline for {} s all in all; operation {} {}", operation.device_name(), timeout.count(),
                           operation.id(), what),
               cancelling ? fmt::format("litefleet operation show {} says until when at most", operation.id())
                          : fmt::format("litefleet operation watch {0}, or litefleet operation cancel {0}", operation.id()));
}

absl::Status NoAnswer(const v1::Operation& operation, std::chrono::seconds timeout) {
  return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE",
               fmt::format("the controller was silent for {} s all in all; operation {} goes on without this program", timeout.count(),
                           operation.id()),
               fmt::format("litefleet operation watch {}", operation.id()));
}

// Errors of a watch after which another one may do better.
bool MayHeal(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status) ||
         absl::IsResourceExhausted(status) || absl::IsInternal(status) || absl::IsUnknown(status);
}

// What the stream's thread tells the waiting one.
struct Mailbox {
  Mutex mu;
  CondVar changed;
  std::deque<v1::Operation> states ABSL_GUARDED_BY(mu);
  std::optional<absl::Status> end ABSL_GUARDED_BY(mu);
};

}  // namespace

absl::StatusOr<v1::Operation> WaitFor(Session& session, const v1::Operation& operation, const WaitOptions& options,
                                      const std::function<void(const v1::Operation&)>& on_change) {
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  v1::Operation now = operation;
  std::atomic<bool> interrupted = false;
  Interrupts::Guard guard(session.interrupts(), [&] { interrupted = true; });
  RateMeter meter;
  milliseconds retry = kRetryFirst;
  Patience patience(options.timeout, session.clock().Steady());
  for (;;) {
    Mailbox mailbox;
    const auto stream = client->Watch(
        now.id(),
        [&mailbox](const v1::Operation& state) {
          MutexLock lock(mailbox.mu);
          if (mailbox.states.size() >= kMaxStates) mailbox.states.pop_front();
          mailbox.states.push_back(state);
          mailbox.changed.Signal();
        },
        [&mailbox](const absl::Status& why) {
          MutexLock lock(mailbox.mu);
          mailbox.end = why;
          mailbox.changed.Signal();
        });
    std::optional<absl::Status> end;
    bool answered = false;  // by the controller, to this watch
    SteadyTime looked = session.clock().Steady();
    while (!end.has_value()) {
      std::deque<v1::Operation> states;
      {
        MutexLock lock(mailbox.mu);
        if (mailbox.states.empty() && !mailbox.end.has_value()) mailbox.changed.WaitUntil(mailbox.mu, session.clock().Steady() + kTick);
        states.swap(mailbox.states);
        if (states.empty()) end = mailbox.end;
      }
      const SteadyTime time = session.clock().Steady();
      for (const v1::Operation& state : states) {
        now = state;
        retry = kRetryFirst;
        answered = true;
        if (on_change) on_change(now);
        if (HasEnded(now)) {
          session.ClearProgress();
          return now;
        }
        meter.Add(time, now.progress().done_bytes());
      }
      if (now.state() == v1::OPERATION_STATE_QUEUED && !now.device_connected() && time - looked > std::chrono::seconds(1)) {
        // A device that connects changes nothing of the operation by itself.
        looked = time;
        v1::GetOperationRequest request;
        request.set_operation(now.id());
        if (auto answer = client->GetOperation(request); answer.ok()) now = answer->operation();
      }
      patience.Look(time, answered && (now.device_connected() || !RunsOnDevice(now.kind())));
      if (interrupted) return Interrupted();
      if (patience.ended()) return answered ? Offline(now, options.timeout) : NoAnswer(now, options.timeout);
      session.ShowProgress(ProgressLine(now, meter.Rate()));
    }
    if (!end->ok() && !MayHeal(*end)) return *end;
    patience.Look(session.clock().Steady(), answered);
    if (patience.ended()) return end->ok() ? NoAnswer(now, options.timeout) : *end;
    session.ShowProgress(SubjectOf(now) + ": waiting for the controller");
    const SteadyTime next = session.clock().Steady() + retry;
    retry = std::min(retry * 2, kRetryLast);
    MutexLock lock(mailbox.mu);
    while (session.clock().Steady() < next && !interrupted)
      mailbox.changed.WaitUntil(mailbox.mu, std::min(next, session.clock().Steady() + kTick));
    if (interrupted) return Interrupted();
    patience.Look(session.clock().Steady(), false);
  }
}

absl::StatusOr<std::vector<v1::Operation>> WaitForAll(Session& session, std::vector<v1::Operation> operations, const WaitOptions& options) {
  if (operations.size() == 1) {
    auto ended = WaitFor(session, operations.front(), options);
    if (!ended.ok()) {
      if (ReasonOf(ended.status()) != "DEVICE_OFFLINE") return ended.status();
      return operations;
    }
    return std::vector<v1::Operation>{*std::move(ended)};
  }
  LF_ASSIGN_OR_RETURN(AdminClient * client, session.Client());
  Mutex mu;
  CondVar wake;
  bool interrupted = false;
  Interrupts::Guard guard(session.interrupts(), [&] {
    MutexLock lock(mu);
    interrupted = true;
    wake.Signal();
  });
  const SteadyTime begin = session.clock().Steady();
  std::vector<Patience> patience(operations.size(), Patience(options.timeout, begin));
  for (;;) {
    size_t ended = 0;
    size_t waiting = 0;
    int64_t done_bytes = 0;
    for (size_t i = 0; i < operations.size(); ++i) {
      v1::Operation& operation = operations[i];
      if (!HasEnded(operation)) {
        v1::GetOperationRequest request;
        request.set_operation(operation.id());
        auto answer = client->GetOperation(request);
        const SteadyTime time = session.clock().Steady();
        if (answer.ok()) operation = answer->operation();
        patience[i].Look(time, answer.ok() && (operation.device_connected() || !RunsOnDevice(operation.kind())));
        if (!answer.ok() && (!MayHeal(answer.status()) || patience[i].ended())) return answer.status();
        if (!HasEnded(operation) && !patience[i].ended()) ++waiting;
      }
      if (HasEnded(operation)) ++ended;
      done_bytes += operation.progress().done_bytes();
    }
    if (waiting == 0) {
      session.ClearProgress();
      return operations;
    }
    session.ShowProgress(fmt::format("{} of {} operations have ended, {} MiB done", ended, operations.size(), done_bytes >> 20));
    const SteadyTime next = session.clock().Steady() + kPoll;
    MutexLock lock(mu);
    while (!interrupted && session.clock().Steady() < next) wake.WaitUntil(mu, next);
    if (interrupted) return Interrupted();
  }
}

int ReportWait(Session& session, const absl::Status& error, const std::vector<v1::Operation>& operations) {
  if (ReasonOf(error) != "INTERRUPTED") return session.Report(error);
  session.ClearProgress();
  std::vector<std::string> going;
  for (const v1::Operation& operation : operations)
    if (!HasEnded(operation)) going.push_back(operation.id());
  if (going.empty()) return kInterrupted;
  const std::string id = going.size() == 1 ? going.front() : "ID";
  session.Warn(fmt::format("detached: {} go{} on without this program",
                           going.size() == 1 ? "operation " + id : fmt::format("{} operations", going.size()),
                           going.size() == 1 ? "es" : ""));
  session.Warn(fmt::format("watch it with `litefleet operation watch {0}`, cancel it with `litefleet operation cancel {0}`", id));
  return kInterrupted;
}

}  // namespace litefleet::cli
