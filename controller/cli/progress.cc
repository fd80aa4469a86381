#include "controller/cli/progress.h"

#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {

void RateMeter::Add(SteadyTime now, int64_t done) {
  if (!samples_.empty() && done < samples_.back().second) samples_.clear();
  samples_.emplace_back(now, done);
  while (samples_.size() > 2 && now - samples_.front().first > std::chrono::seconds(10)) samples_.pop_front();
}

double RateMeter::Rate() const {
  if (samples_.size() < 2) return 0;
  const double seconds = std::chrono::duration<double>(samples_.back().first - samples_.front().first).count();
  return seconds < 0.2 ? 0 : static_cast<double>(samples_.back().second - samples_.front().second) / seconds;
}

std::string ProgressLine(std::string_view what, int64_t done, int64_t total, double rate) {
  std::string line(what);
  if (total > 0) {
    line +=
        fmt::format(" {}% {} of {}", done >= total ? 100 : static_cast<int>(static_cast<double>(done) * 100 / static_cast<double>(total)),
                    SizeText(done), SizeText(total));
  } else if (done > 0) {
    line += " " + SizeText(done);
  }
  if (rate > 0 && done < total) {
    const double left = static_cast<double>(total - done) / rate;
    line += fmt::format(", {}/s", SizeText(static_cast<int64_t>(rate)));
    if (left < 86400 * 30) line += fmt::format(", {} left", DurationText(std::chrono::milliseconds(static_cast<int64_t>(left * 1000))));
  }
  return line;
}

std::string ProgressLine(const v1::Operation& operation, double rate) {
  const std::string subject = SubjectOf(operation);
  switch (operation.state()) {
    case v1::OPERATION_STATE_QUEUED:
      return fmt::format("{}: queued{}", subject,
                         operation.device_connected() || !RunsOnDevice(operation.kind()) ? "" : ", the device is offline");
    case v1::OPERATION_STATE_SENT:
      return fmt::format("{}: sent", subject);
    case v1::OPERATION_STATE_CANCELLING:
      return fmt::format("{}: cancelling{}", subject,
                         operation.device_connected() || !RunsOnDevice(operation.kind()) ? "" : ", the device is offline");
    default:
      break;
  }
  const std::string phase = operation.progress().phase().empty() ? Word(operation.state()) : operation.progress().phase();
  return ProgressLine(fmt::format("{}: {}", subject, phase), operation.progress().done_bytes(), operation.progress().total_bytes(), rate);
}

}  // namespace litefleet::cli
