#include "controller/rpc/agent_service.h"

#include <spdlog/spdlog.h>

#include "common/base/status.h"
#include "common/rpc/status.h"

namespace litefleet::rpc {
namespace {

// Ends a stream before it has begun.
template <class Reactor>
class Refusal final : public Reactor {
 public:
  explicit Refusal(const absl::Status& why) { this->Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

class AgentServiceImpl final : public v1::AgentService::CallbackService {
 public:
  explicit AgentServiceImpl(AgentServiceParts parts) : parts_(std::move(parts)) {}

  grpc::ServerUnaryReactor* Enroll(grpc::CallbackServerContext* context, const v1::EnrollRequest* request,
                                   v1::EnrollResponse* response) override {
    const auto caller = parts_.authenticator->Authenticate(*context, "/litefleet.v1.AgentService/Enroll");
    if (!caller.ok()) return Refuse(context, caller.status());
    const std::string peer = context->peer();
    return Run(context, [this, request, response, peer] {
      auto enrolled = parts_.enrollment->Enroll(*request);
      if (!enrolled.ok()) {
        spdlog::warn("enrolment from {} refused: {}", peer, MessageOf(enrolled.status()));
        return enrolled.status();
      }
      *response = *std::move(enrolled);
      if (response->challenge().empty())
        spdlog::info("device {} ({}) enrolled from {}", response->device_name(), response->device_id(), peer);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* RenewCertificate(grpc::CallbackServerContext* context, const v1::RenewCertificateRequest* request,
                                             v1::RenewCertificateResponse* response) override {
    auto caller = parts_.authenticator->Authenticate(*context, "/litefleet.v1.AgentService/RenewCertificate");
    if (!caller.ok()) return Refuse(context, caller.status());
    return Run(context, [this, request, response, device = caller->device, serial = caller->certificate_serial] {
      auto renewed = parts_.enrollment->Renew(device, serial, *request);
      if (!renewed.ok()) return renewed.status();
      *response = *std::move(renewed);
      spdlog::info("device {}: certificate renewed", device.value());
      return absl::OkStatus();
    });
  }

  grpc::ServerBidiReactor<v1::ControlRequest, v1::ControlResponse>* Control(grpc::CallbackServerContext* context) override {
    const auto caller = parts_.authenticator->Authenticate(*context, "/litefleet.v1.AgentService/Control");
    if (!caller.ok()) return new Refusal<grpc::ServerBidiReactor<v1::ControlRequest, v1::ControlResponse>>(caller.status());
    return parts_.control(context, *caller);
  }

  grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* Upload(grpc::CallbackServerContext* context) override {
    const auto caller = parts_.authenticator->Authenticate(*context, "/litefleet.v1.AgentService/Upload");
    if (!caller.ok()) return new Refusal<grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>>(caller.status());
    return parts_.upload(context, *caller);
  }

  grpc::ServerWriteReactor<v1::FetchResponse>* Fetch(grpc::CallbackServerContext* context, const v1::FetchRequest* request) override {
    const auto caller = parts_.authenticator->Authenticate(*context, "/litefleet.v1.AgentService/Fetch");
    if (!caller.ok()) return new Refusal<grpc::ServerWriteReactor<v1::FetchResponse>>(caller.status());
    return parts_.fetch(context, *caller, *request);
  }

  grpc::ServerUnaryReactor* SendWanted(grpc::CallbackServerContext* context, const v1::SendWantedRequest* request,
                                       v1::SendWantedResponse* response) override {
    auto caller = parts_.authenticator->Authenticate(*context, "/litefleet.v1.AgentService/SendWanted");
    if (!caller.ok()) return Refuse(context, caller.status());
    return Run(
        context,
        [this, request, response, device = caller->device]() -> absl::Status {
          LF_ASSIGN_OR_RETURN(*response, parts_.send_wanted(device, *request));
          return absl::OkStatus();
        },
        parts_.uploads);
  }

 private:
  static grpc::ServerUnaryReactor* Refuse(grpc::CallbackServerContext* context, const absl::Status& why) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(ToGrpc(why));
    return reactor;
  }

  // Request and response live until Finish.
  template <class Work>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, Work work, Executor* executor = nullptr) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    if (!(executor == nullptr ? parts_.work : executor)->TryPost([reactor, work = std::move(work)]() mutable {
          reactor->Finish(ToGrpc(work()));
        })) {
      reactor->Finish(
          ToGrpc(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too much to do", "try again later")));
    }
    return reactor;
  }

  const AgentServiceParts parts_;
};

}  // namespace

std::unique_ptr<v1::AgentService::CallbackService> MakeAgentService(AgentServiceParts parts) {
  return std::make_unique<AgentServiceImpl>(std::move(parts));
}

}  // namespace litefleet::rpc
