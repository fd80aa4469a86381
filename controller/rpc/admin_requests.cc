#include "controller/rpc/admin_requests.h"

#include <algorithm>
#include <vector>

#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelValue = 63;
constexpr size_t kMaxRequestId = 64;

bool IsPrintable(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

}  // namespace

absl::Status Invalid(std::string_view reason, std::string_view message, std::string_view hint) {
  return Error(absl::StatusCode::kInvalidArgument, reason, message, hint);
}

absl::StatusOr<int> CheckedPageSize(int32_t wanted) {
  if (wanted == 0) return 100;
  if (wanted < 0 || wanted > 1000)
    return Invalid("PAGE_SIZE_INVALID", fmt::format("page_size is {}, it must be 1 to 1000, or 0 for 100", wanted));
  return wanted;
}

absl::Status CheckRequestId(std::string_view request_id) {
  if (request_id.size() > kMaxRequestId || !IsPrintable(request_id)) {
    return Invalid("REQUEST_ID_INVALID", fmt::format("request_id must be at most {} printable ASCII characters", kMaxRequestId));
  }
  return absl::OkStatus();
}

absl::Status CheckLabel(std::string_view key, std::string_view value) {
  if (!IsName(key)) {
    return Invalid("LABEL_INVALID", fmt::format("'{}' is no label key", key),
                   "a key is 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit");
  }
  if (value.size() > kMaxLabelValue || !IsPrintable(value) || value.find_first_of(",=") != std::string_view::npos) {
    return Invalid("LABEL_INVALID", fmt::format("the value of label '{}' is not allowed", key),
                   fmt::format("a value is at most {} printable ASCII characters without ',' and '='", kMaxLabelValue));
  }
  return absl::OkStatus();
}

absl::Status CheckSelector(std::string_view selector) {
  if (selector.empty()) return absl::OkStatus();
  size_t labels = 0;
  for (size_t at = 0; at <= selector.size();) {
    const size_t comma = std::min(selector.find(',', at), selector.size());
    const std::string_view term = selector.substr(at, comma - at);
    const size_t equals = term.find('=');
    if (equals == std::string_view::npos) {
      return Invalid("SELECTOR_INVALID", fmt::format("selector '{}': '{}' is not KEY=VALUE", selector, term),
                     "write for instance site=oslo,tier=edge; all must match");
    }
    if (const absl::Status label = CheckLabel(term.substr(0, equals), term.substr(equals + 1)); !label.ok()) {
      return WithReason(Annotate(label, fmt::format("selector '{}'", selector)), "SELECTOR_INVALID", HintOf(label));
    }
    if (++labels > kMaxLabels) return Invalid("SELECTOR_INVALID", fmt::format("a selector has at most {} labels", kMaxLabels));
    at = comma + 1;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::chrono::seconds> CheckedDuration(bool set, const google::protobuf::Duration& wanted, std::chrono::seconds least,
                                                     std::chrono::seconds most, std::chrono::seconds otherwise, std::string_view field) {
  if (!set) return otherwise;
  if (wanted.seconds() < least.count() || wanted.seconds() > most.count() || wanted.nanos() < 0) {
    return Invalid("DURATION_OUT_OF_RANGE",
                   fmt::format("{} is {} s, it must be between {} s and {} s", field, wanted.seconds(), least.count(), most.count()));
  }
  return std::chrono::seconds(wanted.seconds());
}

absl::StatusOr<SystemTime> CheckedTime(const google::protobuf::Timestamp& wanted, std::string_view field) {
  constexpr int64_t kYear2200 = 7'258'118'400;
  if (wanted.seconds() < 0 || wanted.seconds() > kYear2200 || wanted.nanos() < 0 || wanted.nanos() > 999'999'999) {
    return Invalid("TIME_OUT_OF_RANGE", fmt::format("{} is no time between 1970 and 2200", field));
  }
  return FromProtoTime(wanted);
}

absl::StatusOr<std::pair<std::string, std::string>> SplitDatabaseReference(std::string_view reference, std::string_view field) {
  const size_t slash = reference.find('/');
  if (slash == std::string_view::npos || slash == 0 || !IsName(reference.substr(slash + 1))) {
    return Invalid("DATABASE_REFERENCE_INVALID", fmt::format("{} '{}' is not DEVICE/DATABASE", field, reference),
                   "write the device's name, a slash and the database's name; `litefleet database list` shows them");
  }
  return std::pair(std::string(reference.substr(0, slash)), std::string(reference.substr(slash + 1)));
}

absl::Status ByName(const absl::Status& status, const v1::Device& device) {
  if (status.ok()) return status;
  std::string message = MessageOf(status);
  if (const size_t at = message.find(device.id()); at != std::string::npos) message.replace(at, device.id().size(), device.name());
  return Error(status.code(), ReasonOf(status), message, HintOf(status));
}

}  // namespace litefleet::rpc
