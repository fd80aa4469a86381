#include "controller/cli/admin_client.h"

#include <grpcpp/client_context.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "common/rpc/identity_file.h"
#include "common/rpc/status.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_service.grpc.pb.h"

namespace litefleet::cli {
namespace {

using Stub = v1::AdminService::Stub;

constexpr std::chrono::seconds kDeadline{30};
constexpr std::chrono::seconds kDoctorDeadline{300};   // reads the whole catalog
constexpr std::chrono::seconds kForgetDeadline{3600};  // deletes all snapshots of a device

// What gRPC reports without a reason of ours never came from the service.
absl::Status Explained(const grpc::Status& status, const rpc::Address& address) {
  absl::Status result = rpc::ToAbsl(status);
  if (result.ok() || !ReasonOf(result).empty()) return result;
  if (absl::IsUnavailable(result)) {
    return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE",
                 fmt::format("cannot reach the controller at {}: {}", address.Text(), status.error_message()),
                 address.is_unix() ? "check that litefleet-controller runs, and that --data or --server names its directory or socket"
                                   : "check the address, that litefleet-controller runs there, and that --identity is of its CA");
  }
  if (absl::IsDeadlineExceeded(result)) {
    return Error(absl::StatusCode::kDeadlineExceeded, "CONTROLLER_SLOW",
                 fmt::format("the controller at {} did not answer in time", address.Text()),
                 "try again; see the controller's log if it stays");
  }
  if (absl::IsUnimplemented(result)) {
    return Error(absl::StatusCode::kUnimplemented, "VERSION_MISMATCH",
                 fmt::format("the controller at {} does not know this call", address.Text()),
                 "compare `litefleet version`: the controller is older than this program");
  }
  return result;
}

// gRPC says nothing about why a socket cannot be connected, so it is looked at before.
absl::Status LookAtSocket(const rpc::Address& address) {
  if (!address.is_unix()) return absl::OkStatus();
  struct stat info = {};
  const std::string& path = address.path;
  if (stat(path.c_str(), &info) != 0) {
    if (errno == EACCES) {
      return Error(absl::StatusCode::kPermissionDenied, "NO_PERMISSION",
                   fmt::format("the directory of {} may not be entered by this user", path),
                   "run it as the controller's user, or use --server HOST:PORT with --identity FILE");
    }
    return Error(absl::StatusCode::kUnavailable, "CONTROLLER_UNREACHABLE", fmt::format("there is no controller's socket at {}", path),
                 "start litefleet-controller, or name its directory by --data, or use --server HOST:PORT with --identity FILE");
  }
  if (!S_ISSOCK(info.st_mode)) {
    return Error(absl::StatusCode::kInvalidArgument, "NOT_A_SOCKET", fmt::format("{} is no socket", path),
                 "give the socket itself: --server unix:DIR/admin.sock");
  }
  if (access(path.c_str(), W_OK) != 0) {
    return Error(absl::StatusCode::kPermissionDenied, "NO_PERMISSION", fmt::format("this user may not use {}", path),
                 "run it as the controller's user, or use --server HOST:PORT with --identity FILE");
  }
  return absl::OkStatus();
}

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
  rpc::ChannelOptions options{.address = address, .identity = {}, .user_agent = "litefleet/" LITEFLEET_VERSION};
  if (!address.is_unix()) {
    if (identity_file.empty()) {
      return Error(absl::StatusCode::kInvalidArgument, "IDENTITY_MISSING",
                   fmt::format("{} is reached over TLS, which needs an operator's file", address.Text()),
                   "give --identity FILE (admin.pem of the controller's directory, or one of `litefleet-controller operator create`)");
    }
    LF_ASSIGN_OR_RETURN(options.identity, rpc::ReadIdentityFile(identity_file));
  }
  LF_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, rpc::MakeChannel(options));
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
  v1::DownloadSnapshotRequest request;
  request.set_snapshot(snapshot);
  const auto reader = connection_->stub->DownloadSnapshot(&context, request);
  v1::DownloadSnapshotResponse response;
  absl::Status mine = absl::OkStatus();
  bool first = true;
  while (mine.ok() && reader->Read(&response)) {
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
  return mine.ok() ? Explained(status, address_) : mine;
}

}  // namespace litefleet::cli
