// Sets the process's logger up: one line an event to standard error, as text or JSON. Everybody else calls `spdlog::info(...)`.
//
// Not for files or rotation: that is the job of journald or of whoever started the program. In text form a line begins with the time,
// except under journald (JOURNAL_STREAM names this very stream), where it begins with the priority `<6>` instead. Colour only at a
// terminal without NO_COLOR.
// Thread safety: SetupLog may be called again at any time (a reload); logging from any thread.
#ifndef LITEFLEET_COMMON_OBS_LOG_H_
#define LITEFLEET_COMMON_OBS_LOG_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace litefleet::obs {

struct LogOptions {
  std::string level = "info";   // trace debug info warn error off
  std::string format = "text";  // text json
};

// kInvalidArgument CONFIG_INVALID for an unknown level or format; the logger stays as it was.
absl::Status SetupLog(const LogOptions& options);

// {"time":"...","level":"info","message":"..."} without the line's end: what the JSON form prints.
std::string JsonLine(std::string_view time, std::string_view level, std::string_view message);

// Whether standard error is connected to the journal: JOURNAL_STREAM holds device:inode of it.
bool StandardErrorIsJournal();

}  // namespace litefleet::obs

#endif  // LITEFLEET_COMMON_OBS_LOG_H_
