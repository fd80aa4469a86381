#include "controller/cli/exit_code.h"

#include <algorithm>
#include <iterator>

#include "common/base/error_detail.h"
#include "common/base/status.h"

namespace litefleet::cli {
namespace {

struct ReasonExit {
  std::string_view reason;
  ExitCode code;
};

// Reasons whose canonical code says "try again" or "too late" (which callers between programs act on) without that anything was
// unreachable: a script that waits for a device to come back must not wait for these.
constexpr ReasonExit kByReason[] = {
    {"ADDRESS_IN_USE", kConflict}, {"ALREADY_RUNNING", kConflict}, {"DATABASE_BUSY", kConflict},
    {"IN_USE", kConflict},         {"WAL_INDEX_BUSY", kConflict},  {"WRITER_STALL", kConflict},
    {"CHECK_TIMEOUT", kFailed},    {"PIN_TOO_LONG", kFailed},      {"STORE_FAILED", kFailed},
};

}  // namespace

int ExitCodeOf(const absl::Status& status) {
  if (status.ok()) return kDone;
  const auto known = std::find_if(std::begin(kByReason), std::end(kByReason),
                                  [reason = ReasonOf(status)](const ReasonExit& each) { return each.reason == reason; });
  if (known != std::end(kByReason)) return known->code;
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kDone;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kOutOfRange:
      return kUsage;
    case absl::StatusCode::kNotFound:
      return kNotFound;
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return kDenied;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
      return kConflict;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return kUnreachable;
    case absl::StatusCode::kDataLoss:
      return kVerificationFailed;
    default:
      return kFailed;
  }
}

int ExitCodeOf(const v1::Operation& ended) {
  switch (ended.state()) {
    case v1::OPERATION_STATE_SUCCEEDED:
      return kDone;
    case v1::OPERATION_STATE_PARTLY:
      return kPartly;
    case v1::OPERATION_STATE_EXPIRED:
      return kUnreachable;
    case v1::OPERATION_STATE_FAILED: {
      const int code = ExitCodeOf(FromErrorDetail(ended.error()));
      return code == kDone || code == kUsage ? kFailed : code;
    }
    default:
      return kFailed;
  }
}

int Combine(std::span<const int> codes) {
  if (codes.empty()) return kDone;
  if (std::all_of(codes.begin(), codes.end(), [&](int code) { return code == codes.front(); })) return codes.front();
  const bool some_done = std::any_of(codes.begin(), codes.end(), [](int code) { return code == kDone || code == kPartly; });
  return some_done ? kPartly : kFailed;
}

std::string_view CodeName(absl::StatusCode code) {
  static constexpr std::string_view kNames[] = {
      "ok",        "cancelled",      "unknown",           "invalid_argument",   "deadline_exceeded",
      "not_found", "already_exists", "permission_denied", "resource_exhausted", "failed_precondition",
      "aborted",   "out_of_range",   "unimplemented",     "internal",           "unavailable",
      "data_loss", "unauthenticated"};
  const auto index = static_cast<size_t>(code);
  return index < std::size(kNames) ? kNames[index] : kNames[2];
}

}  // namespace litefleet::cli
