// litefleet.v1.AgentService over gRPC: who calls is asked first, then the call goes to its reactor.
//
// Enrol and renew run here, on an executor; the streams belong to the reactors beside this file. Thread safety: gRPC calls the handlers
// from its own threads; none of them blocks. Ownership: what is given must outlive the server that this is registered with.
// Errors: those of Authenticate and Enrollment, RESOURCE_EXHAUSTED OVERLOADED when the executor's queue is full.
#ifndef LITEFLEET_CONTROLLER_RPC_AGENT_SERVICE_H_
#define LITEFLEET_CONTROLLER_RPC_AGENT_SERVICE_H_

#include <functional>
#include <memory>

#include "common/base/executor.h"
#include "controller/identity/enrollment.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::rpc {

struct AgentServiceParts {
  Authenticator* authenticator = nullptr;
  identity::Enrollment* enrollment = nullptr;
  Executor* work = nullptr;
  Executor* uploads = nullptr;  // waits for the disk
  std::function<absl::StatusOr<v1::SendWantedResponse>(const DeviceId&, const v1::SendWantedRequest&)> send_wanted;
  // Each returns a reactor that deletes itself in OnDone.
  std::function<grpc::ServerBidiReactor<v1::ControlRequest, v1::ControlResponse>*(grpc::CallbackServerContext*, const Caller&)> control;
  std::function<grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>*(grpc::CallbackServerContext*, const Caller&)> upload;
  std::function<grpc::ServerWriteReactor<v1::FetchResponse>*(grpc::CallbackServerContext*, const Caller&, const v1::FetchRequest&)> fetch;
};

std::unique_ptr<v1::AgentService::CallbackService> MakeAgentService(AgentServiceParts parts);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_AGENT_SERVICE_H_
