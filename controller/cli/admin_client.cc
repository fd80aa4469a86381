#include "controller/cli/admin_client.h"

#include <grpcpp/client_context.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "common/base/status.h"
#include "controller/cli/channel_client.h"
#include "controller/cli/silence_limit.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_service.grpc.pb.h"

namespace litefleet::cli {
namespace {

using Stub = v1::AdminService::Stub;

constexpr std::chrono::seconds kDeadline{30};
constexpr std::chrono::seconds kDoctorDeadline{300};   // reads the whole catalog
constexpr std::chrono::seconds kForgetDeadline{3600};  // deletes all snapshots of a device
constexpr std::chrono::seconds kSilence{120};          // of a controller that is there, within a download

class ContextCancel final : public AdminClient::Cancellable {
 public:
  explicit ContextCancel(grpc::ClientContext& context) : context_(context) {}
  void Cancel() override { context_.TryCancel(); }

 private:
  grpc::ClientContext& context_;
};

}  // namespace

struct AdminClient::Connection {
  std::unique_ptr<Stub> stub;

  template <class Request, class Response>
  absl::StatusOr<Response> Call(const rpc::Address& address, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request, std::chrono::seconds deadline = kDeadline) {
    LF_RETURN_IF_ERROR(LookAtSocket(address));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + deadline);
    Response response;
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    if (!status.ok()) return Explained(status, address);
    return response;
  }
};

AdminClient::AdminClient(rpc::Address address, std::unique_ptr<Connection> connection)
    : address_(std::move(address)), connection_(std::move(connection)) {}
AdminClient::~AdminClient() = default;

absl::StatusOr<std::unique_ptr<AdminClient>> AdminClient::Make(const rpc::Address& address, const std::string& identity_file) {
  LF_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(address, identity_file));
  auto connection = std::make_unique<Connection>();
  connection->stub = v1::AdminService::NewStub(channel);
  return std::unique_ptr<AdminClient>(new AdminClient(address, std::move(connection)));
}

#define LF_CLIENT_CALL(Name)                                                               \
  absl::StatusOr<v1::Name##Response> AdminClient::Name(const v1::Name##Request& request) { \
    return connection_->Call(address_, &Stub::Name, request);                              \
  }
LF_CLIENT_CALL(GetVersion)
LF_CLIENT_CALL(GetStatus)
LF_CLIENT_CALL(CreateToken)
LF_CLIENT_CALL(ListTokens)
LF_CLIENT_CALL(RevokeToken)
LF_CLIENT_CALL(ListDevices)
LF_CLIENT_CALL(GetDevice)
LF_CLIENT_CALL(UpdateDevice)
LF_CLIENT_CALL(RevokeDevice)
LF_CLIENT_CALL(ListDatabases)
LF_CLIENT_CALL(GetDatabase)
LF_CLIENT_CALL(StartBackups)
LF_CLIENT_CALL(ListSnapshots)
LF_CLIENT_CALL(GetSnapshot)
LF_CLIENT_CALL(ListGaps)
LF_CLIENT_CALL(CheckSnapshot)
LF_CLIENT_CALL(DrillSnapshot)
LF_CLIENT_CALL(DeleteSnapshot)
LF_CLIENT_CALL(PinSnapshot)
LF_CLIENT_CALL(UnpinSnapshot)
LF_CLIENT_CALL(ListTrash)
LF_CLIENT_CALL(RestoreTrash)
LF_CLIENT_CALL(GetStoreStats)
LF_CLIENT_CALL(StartPrune)
LF_CLIENT_CALL(StartScrub)
LF_CLIENT_CALL(ApplyPolicy)
LF_CLIENT_CALL(ListPolicies)
LF_CLIENT_CALL(GetPolicy)
LF_CLIENT_CALL(DeletePolicy)
LF_CLIENT_CALL(ListPolicyVerdicts)
LF_CLIENT_CALL(ListHolds)
LF_CLIENT_CALL(ReleaseHold)
LF_CLIENT_CALL(PlanRestore)
LF_CLIENT_CALL(StartRestore)
LF_CLIENT_CALL(PlanUndo)
LF_CLIENT_CALL(StartUndo)
LF_CLIENT_CALL(StartDropUndo)
LF_CLIENT_CALL(ListOperations)
LF_CLIENT_CALL(GetOperation)
LF_CLIENT_CALL(CancelOperation)
#undef LF_CLIENT_CALL

absl::StatusOr<v1::RunDoctorResponse> AdminClient::RunDoctor(const v1::RunDoctorRequest& request) {
  return connection_->Call(address_, &Stub::RunDoctor, request, kDoctorDeadline);
}

absl::StatusOr<v1::ForgetDeviceResponse> AdminClient::ForgetDevice(const v1::ForgetDeviceRequest& request) {
  return connection_->Call(address_, &Stub::ForgetDevice, request, kForgetDeadline);
}

namespace {

class WatchStream final : public AdminClient::Cancellable {
 public:
  WatchStream(Stub& stub, rpc::Address address, const std::string& operation, std::function<void(const v1::Operation&)> on_change,
              std::function<void(const absl::Status&)> on_end) {
    thread_ =
        std::thread([this, &stub, address = std::move(address), operation, on_change = std::move(on_change), on_end = std::move(on_end)] {
          if (const absl::Status socket = LookAtSocket(address); !socket.ok()) return on_end(socket);
          v1::WatchOperationRequest request;
          request.set_operation(operation);
          const auto reader = stub.WatchOperation(&context_, request);
          v1::WatchOperationResponse response;
          while (reader->Read(&response)) on_change(response.operation());
          on_end(Explained(reader->Finish(), address));
        });
  }
  ~WatchStream() override {
    Cancel();
    thread_.join();
  }
  void Cancel() override { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<AdminClient::Cancellable> AdminClient::Watch(const std::string& operation,
                                                             std::function<void(const v1::Operation&)> on_change,
                                                             std::function<void(const absl::Status&)> on_end) {
  return std::make_unique<WatchStream>(*connection_->stub, address_, operation, std::move(on_change), std::move(on_end));
}

absl::Status AdminClient::Download(const std::string& snapshot, const std::function<void(Cancellable*)>& cancel,
                                   const std::function<absl::Status(const v1::Snapshot&)>& on_header,
                                   const std::function<absl::Status(v1::DownloadPages)>& on_pages) {
  LF_RETURN_IF_ERROR(LookAtSocket(address_));
  grpc::ClientContext context;
  ContextCancel handle(context);
  cancel(&handle);
  SilenceLimit limit(kSilence, [&] { context.TryCancel(); });
  const auto next = [&limit](auto& reader, v1::DownloadSnapshotResponse& response) {
    const SilenceLimit::Wait wait(limit);
    return reader.Read(&response);
  };
  v1::DownloadSnapshotRequest request;
  request.set_snapshot(snapshot);
  const auto reader = connection_->stub->DownloadSnapshot(&context, request);
  v1::DownloadSnapshotResponse response;
  absl::Status mine = absl::OkStatus();
  bool first = true;
  while (mine.ok() && next(*reader, response)) {
    if (first != response.has_header()) {
      mine = Error(absl::StatusCode::kDataLoss, "PROTOCOL_VIOLATED", "the controller's stream is not in order");
    } else {
      mine = first ? on_header(response.header().snapshot()) : on_pages(std::move(*response.mutable_pages()));
    }
    first = false;
  }
  if (!mine.ok()) context.TryCancel();
  const grpc::Status status = reader->Finish();
  cancel(nullptr);
  if (mine.ok() && !status.ok() && limit.ran_out()) {
    return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_SILENT",
                 fmt::format("the controller sent nothing of the snapshot for {} s", std::chrono::seconds(kSilence).count()),
                 "see its log, and download again: what has come is not kept");
  }
  return mine.ok() ? Explained(status, address_) : mine;
}

}  // namespace litefleet::cli
