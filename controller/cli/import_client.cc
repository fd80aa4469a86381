#include "controller/cli/import_client.h"

#include <grpcpp/client_context.h>

#include <memory>

#include "common/base/status.h"
#include "controller/cli/channel_client.h"
#include "litefleet/v1/admin_import.grpc.pb.h"

namespace litefleet::cli {
namespace {

class CallCancel final : public AdminClient::Cancellable {
 public:
  explicit CallCancel(grpc::ClientContext& context) : context_(context) {}
  void Cancel() override { context_.TryCancel(); }

 private:
  grpc::ClientContext& context_;
};

absl::Status Violated() { return Error(absl::StatusCode::kDataLoss, "PROTOCOL_VIOLATED", "the controller's stream is not in order"); }

}  // namespace

absl::Status SendImport(const rpc::Address& address, const std::string& identity_file, const v1::ImportBegin& begin,
                        const ImportCalls& calls) {
  LF_RETURN_IF_ERROR(LookAtSocket(address));
  LF_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(address, identity_file));
  const std::unique_ptr<v1::ImportService::Stub> stub = v1::ImportService::NewStub(channel);
  grpc::ClientContext context;
  CallCancel handle(context);
  calls.cancel(&handle);
  const auto stream = stub->ImportSnapshot(&context);
  v1::ImportSnapshotRequest request;
  *request.mutable_begin() = begin;
  v1::ImportSnapshotResponse response;
  absl::Status mine = absl::OkStatus();
  // A write or a read that fails has its reason in the status of the call.
  bool going = stream->Write(request) && stream->Read(&response);
  if (going && !response.has_operation()) mine = Violated();
  if (going && mine.ok()) calls.on_operation(response.operation());
  bool received = false;
  while (going && mine.ok()) {
    request.Clear();
    std::string& piece = *request.mutable_piece();
    mine = calls.next(piece);
    if (!mine.ok()) break;
    if (!piece.empty()) {
      going = stream->Write(request);
      continue;
    }
    request.mutable_end()->set_sha256(calls.sha256());
    going = stream->Write(request) && stream->Read(&response);
    received = going && response.has_received();
    if (going && !received) mine = Violated();
    if (going) stream->WritesDone();
    break;
  }
  if (!mine.ok()) context.TryCancel();
  const grpc::Status status = stream->Finish();
  calls.cancel(nullptr);
  if (!mine.ok()) return mine;
  const absl::Status explained = Explained(status, address);
  return explained.ok() && !received ? Violated() : explained;
}

}  // namespace litefleet::cli
