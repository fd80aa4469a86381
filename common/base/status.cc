#include "common/base/status.h"

#include <cstring>
#include <optional>

#include "absl/strings/cord.h"

namespace litefleet {
namespace {

constexpr char kReasonUrl[] = "litefleet/reason";
constexpr char kHintUrl[] = "litefleet/hint";

std::string PayloadOf(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : std::string();
}

}  // namespace

absl::Status Error(absl::StatusCode code, std::string_view reason, std::string_view message, std::string_view hint) {
  return WithReason(absl::Status(code, absl::string_view(message.data(), message.size())), reason, hint);
}

absl::Status ErrnoError(int error, std::string_view what) {
  const std::string message = std::string(what) + ": " + std::strerror(error);
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL", message, "free some space there and try again");
    case EACCES:
    case EPERM:
    case EROFS:
      return Error(absl::StatusCode::kPermissionDenied, "NO_PERMISSION", message,
                   "run as a user that may do this, or change the permissions");
    case ENOENT:
    case ENOTDIR:
      return Error(absl::StatusCode::kNotFound, "FILE_NOT_FOUND", message);
    case EEXIST:
      return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", message);
    case EINTR:
      return Error(absl::StatusCode::kCancelled, "INTERRUPTED", message);
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return Error(absl::StatusCode::kInternal, "SYSTEM_LIMIT", message, "the system has no descriptors or no memory left for it");
    default:
      return Error(absl::StatusCode::kInternal, "IO_ERROR", message);
  }
}

std::string ReasonOf(const absl::Status& status) { return PayloadOf(status, kReasonUrl); }
std::string HintOf(const absl::Status& status) { return PayloadOf(status, kHintUrl); }
std::string MessageOf(const absl::Status& status) { return std::string(status.message().data(), status.message().size()); }

absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  const std::string message = std::string(context) + ": " + MessageOf(status);
  return WithReason(absl::Status(status.code(), message), ReasonOf(status), HintOf(status));
}

absl::Status WithReason(absl::Status status, std::string_view reason, std::string_view hint) {
  if (status.ok()) return status;
  if (!reason.empty()) status.SetPayload(kReasonUrl, absl::Cord(absl::string_view(reason.data(), reason.size())));
  if (!hint.empty()) status.SetPayload(kHintUrl, absl::Cord(absl::string_view(hint.data(), hint.size())));
  return status;
}

}  // namespace litefleet
