#include "common/rpc/status.h"

#include "common/base/status.h"
#include "litefleet/v1/errors.pb.h"

namespace litefleet::rpc {

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::ErrorStatus details;
  details.set_code(status.raw_code());
  details.set_message(MessageOf(status));
  v1::ErrorInfo info;
  info.set_reason(ReasonOf(status));
  info.set_hint(HintOf(status));
  details.add_details()->PackFrom(info);
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()), MessageOf(status), details.SerializeAsString());
}

absl::Status ToAbsl(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  v1::ErrorStatus details;
  v1::ErrorInfo info;
  if (!status.error_details().empty() && details.ParseFromString(status.error_details()) && details.details_size() == 1 &&
      details.details(0).UnpackTo(&info)) {
    return WithReason(result, info.reason(), info.hint());
  }
  return result;
}

}  // namespace litefleet::rpc
