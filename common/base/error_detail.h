// Errors as part of a message: absl::Status <-> litefleet.v1.ErrorDetail. Pure functions.
#ifndef LITEFLEET_COMMON_BASE_ERROR_DETAIL_H_
#define LITEFLEET_COMMON_BASE_ERROR_DETAIL_H_

#include "absl/status/status.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet {

v1::ErrorDetail ToErrorDetail(const absl::Status& status);
absl::Status FromErrorDetail(const v1::ErrorDetail& detail);

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_ERROR_DETAIL_H_
