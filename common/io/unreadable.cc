#include "common/io/unreadable.h"

#include <string>

#include "common/base/status.h"

namespace litefleet::io {

bool IsUnreadable(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "IO_ERROR" || reason == "FILE_TOO_SHORT" || reason == "FILE_TOO_LARGE";
}

}  // namespace litefleet::io
