#include "common/base/error_detail.h"

#include "common/base/status.h"

namespace litefleet {

v1::ErrorDetail ToErrorDetail(const absl::Status& status) {
  v1::ErrorDetail detail;
  detail.set_code(status.raw_code());
  detail.set_message(MessageOf(status));
  detail.mutable_info()->set_reason(ReasonOf(status));
  detail.mutable_info()->set_hint(HintOf(status));
  return detail;
}

absl::Status FromErrorDetail(const v1::ErrorDetail& detail) {
  if (detail.code() == 0) return absl::OkStatus();
  return Error(static_cast<absl::StatusCode>(detail.code()), detail.info().reason(), detail.message(), detail.info().hint());
}

}  // namespace litefleet
