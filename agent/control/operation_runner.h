// What the control session asks of the rest of the agent. The composition root (agent.cc) implements it over upload and restore.
//
// Thread safety: calls may come from any thread; none blocks. Operations of one database run one after the other; how many run at
// once is bounded. An operation that was begun ends with exactly one OperationResult, also after a restart of the agent.
#ifndef LITEFLEET_AGENT_CONTROL_OPERATION_RUNNER_H_
#define LITEFLEET_AGENT_CONTROL_OPERATION_RUNNER_H_

#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::control {

class OperationRunner {
 public:
  virtual ~OperationRunner() = default;
  // Makes the order durable in the state directory and queues it. The same operation id twice is the same order.
  virtual absl::Status Accept(const v1::Order& order) = 0;
  // Ends with state CANCELLED within 2 s, whatever the operation is doing; unknown ids too. A restore that waits and of which a former run
  // had begun is put right first: at once, unless another operation of its database runs.
  virtual void Cancel(const std::string& operation_id) = 0;
  // The controller has the result: forget the order.
  virtual void ResultRecorded(const std::string& operation_id) = 0;
  // What a restore or an undo would do. `done` is called once, later, on another thread.
  virtual void Plan(const v1::Query& query, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)> done) = 0;
};

// Where operations report to. Thread safety: calls may come from any thread; none blocks.
class OperationListener {
 public:
  virtual ~OperationListener() = default;
  virtual void OnProgress(const v1::OperationProgress& progress) = 0;
  // The result is durable in the state directory before this is called; it is sent until ResultRecorded.
  virtual void OnResult(const v1::OperationResult& result) = 0;
  // It ended without a result: what it made waits in the spool, and is reported from there.
  virtual void OnDropped(const std::string& operation_id) = 0;
};

}  // namespace litefleet::control

#endif  // LITEFLEET_AGENT_CONTROL_OPERATION_RUNNER_H_
