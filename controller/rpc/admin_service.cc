#include "controller/rpc/admin_service.h"

#include <grpcpp/version_info.h>

#include <exception>
#include <string>
#include <string_view>
#include <utility>

#include "common/base/status.h"
#include "common/rpc/status.h"
#include "controller/rpc/download_reactor.h"
#include "controller/rpc/watch_reactor.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;

template <class Response>
using StreamReactor = grpc::ServerWriteReactor<Response>;

absl::Status Overloaded() {
  return Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too many requests waiting", "try again in a moment");
}

// No exception may leave a handler: the caller would see UNIMPLEMENTED.
template <class Work>
absl::Status Guarded(Work&& work) {
  try {
    return std::forward<Work>(work)();
  } catch (const std::exception& error) {
    return Error(absl::StatusCode::kInternal, "UNEXPECTED", error.what());
  } catch (...) {
    return Error(absl::StatusCode::kInternal, "UNEXPECTED", "an unknown exception");
  }
}

class AdminServiceImpl final : public v1::AdminService::CallbackService {
 public:
  AdminServiceImpl(const AdminHandlers& handlers, Authenticator& authenticator, Executor& work, Executor& streams)
      : handlers_(handlers), authenticator_(authenticator), work_(work), streams_(streams) {}

  ServerUnaryReactor* GetVersion(CallbackServerContext* context, const v1::GetVersionRequest* request,
                                 v1::GetVersionResponse* response) override {
    return Unary(context, "/litefleet.v1.AdminService/GetVersion", response,
                 [this, request](const Caller&) -> absl::StatusOr<v1::GetVersionResponse> {
                   LF_ASSIGN_OR_RETURN(v1::GetVersionResponse version, handlers_.GetVersion(*request));
                   version.set_grpc_version(GRPC_CPP_VERSION_STRING);
                   return version;
                 });
  }

#define LF_ADMIN_CALL(Name)                                                                                                           \
  ServerUnaryReactor* Name(CallbackServerContext* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return Unary(context, "/litefleet.v1.AdminService/" #Name, response,                                                              \
                 [this, request](const Caller&) { return handlers_.Name(*request); });                                                \
  }
#define LF_ADMIN_ORDER(Name)                                                                                                          \
  ServerUnaryReactor* Name(CallbackServerContext* context, const v1::Name##Request* request, v1::Name##Response* response) override { \
    return Unary(context, "/litefleet.v1.AdminService/" #Name, response,                                                              \
                 [this, request](const Caller& caller) { return handlers_.Name(*request, caller.ordered_by()); });                    \
  }
  LF_ADMIN_CALL(GetStatus)
  LF_ADMIN_CALL(RunDoctor)
  LF_ADMIN_CALL(CreateToken)
  LF_ADMIN_CALL(ListTokens)
  LF_ADMIN_CALL(RevokeToken)
  LF_ADMIN_CALL(ListDevices)
  LF_ADMIN_CALL(GetDevice)
  LF_ADMIN_CALL(UpdateDevice)
  LF_ADMIN_CALL(RevokeDevice)
  LF_ADMIN_ORDER(ForgetDevice)
  LF_ADMIN_CALL(ListDatabases)
  LF_ADMIN_CALL(GetDatabase)
  LF_ADMIN_ORDER(StartBackups)
  LF_ADMIN_CALL(ListSnapshots)
  LF_ADMIN_CALL(GetSnapshot)
  LF_ADMIN_CALL(ListGaps)
  LF_ADMIN_ORDER(CheckSnapshot)
  LF_ADMIN_ORDER(DrillSnapshot)
  LF_ADMIN_ORDER(StartRestore)
  LF_ADMIN_ORDER(StartUndo)
  LF_ADMIN_ORDER(StartDropUndo)
  LF_ADMIN_ORDER(DeleteSnapshot)
  LF_ADMIN_CALL(PinSnapshot)
  LF_ADMIN_CALL(UnpinSnapshot)
  LF_ADMIN_CALL(ListTrash)
  LF_ADMIN_CALL(RestoreTrash)
  LF_ADMIN_CALL(GetStoreStats)
  LF_ADMIN_ORDER(StartPrune)
  LF_ADMIN_ORDER(StartScrub)
  LF_ADMIN_CALL(ApplyPolicy)
  LF_ADMIN_CALL(ListPolicies)
  LF_ADMIN_CALL(GetPolicy)
  LF_ADMIN_CALL(DeletePolicy)
  LF_ADMIN_CALL(ListPolicyVerdicts)
  LF_ADMIN_CALL(ListHolds)
  LF_ADMIN_CALL(ReleaseHold)
  LF_ADMIN_CALL(ListOperations)
  LF_ADMIN_CALL(GetOperation)
  LF_ADMIN_CALL(CancelOperation)
#undef LF_ADMIN_ORDER
#undef LF_ADMIN_CALL

  ServerUnaryReactor* PlanRestore(CallbackServerContext* context, const v1::PlanRestoreRequest* request,
                                  v1::PlanRestoreResponse* response) override {
    return Later(context, "/litefleet.v1.AdminService/PlanRestore", request, response, &AdminHandlers::PlanRestore);
  }
  ServerUnaryReactor* PlanUndo(CallbackServerContext* context, const v1::PlanUndoRequest* request,
                               v1::PlanUndoResponse* response) override {
    return Later(context, "/litefleet.v1.AdminService/PlanUndo", request, response, &AdminHandlers::PlanUndo);
  }

  StreamReactor<v1::DownloadSnapshotResponse>* DownloadSnapshot(CallbackServerContext* context,
                                                                const v1::DownloadSnapshotRequest* request) override {
    const auto caller = authenticator_.Authenticate(*context, "/litefleet.v1.AdminService/DownloadSnapshot");
    return LaunchDownload(context, caller.status(), handlers_, streams_, request->snapshot());
  }

  StreamReactor<v1::WatchOperationResponse>* WatchOperation(CallbackServerContext* context,
                                                            const v1::WatchOperationRequest* request) override {
    const auto caller = authenticator_.Authenticate(*context, "/litefleet.v1.AdminService/WatchOperation");
    return LaunchWatch(context, caller.status(), handlers_, work_, request->operation());
  }

 private:
  template <class Response, class Work>
  ServerUnaryReactor* Unary(CallbackServerContext* context, std::string_view method, Response* response, Work work) {
    ServerUnaryReactor* const reactor = context->DefaultReactor();
    auto caller = authenticator_.Authenticate(*context, method);
    if (!caller.ok()) {
      reactor->Finish(ToGrpc(caller.status()));
      return reactor;
    }
    const bool taken = work_.TryPost([response, reactor, caller = *std::move(caller), work = std::move(work)] {
      reactor->Finish(ToGrpc(Guarded([&]() -> absl::Status {
        LF_ASSIGN_OR_RETURN(*response, work(caller));
        return absl::OkStatus();
      })));
    });
    if (!taken) reactor->Finish(ToGrpc(Overloaded()));
    return reactor;
  }

  // Answered when a device has answered.
  template <class Request, class Response>
  ServerUnaryReactor* Later(CallbackServerContext* context, std::string_view method, const Request* request, Response* response,
                            void (AdminHandlers::*handler)(const Request&, absl::AnyInvocable<void(absl::StatusOr<Response>)>) const) {
    ServerUnaryReactor* const reactor = context->DefaultReactor();
    const auto caller = authenticator_.Authenticate(*context, method);
    if (!caller.ok()) {
      reactor->Finish(ToGrpc(caller.status()));
      return reactor;
    }
    const bool taken = work_.TryPost([this, request, response, reactor, handler] {
      const absl::Status thrown = Guarded([&] {
        (handlers_.*handler)(*request, [response, reactor](absl::StatusOr<Response> answer) {
          if (answer.ok()) *response = *std::move(answer);
          reactor->Finish(ToGrpc(answer.status()));
        });
        return absl::OkStatus();
      });
      if (!thrown.ok()) reactor->Finish(ToGrpc(thrown));
    });
    if (!taken) reactor->Finish(ToGrpc(Overloaded()));
    return reactor;
  }

  const AdminHandlers& handlers_;
  Authenticator& authenticator_;
  Executor& work_;
  Executor& streams_;
};

}  // namespace

std::unique_ptr<v1::AdminService::CallbackService> MakeAdminService(const AdminHandlers& handlers, Authenticator& authenticator,
                                                                    Executor& work, Executor& streams) {
  return std::make_unique<AdminServiceImpl>(handlers, authenticator, work, streams);
}

}  // namespace litefleet::rpc
