#include "common/obs/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/ansicolor_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::obs {
namespace {

std::string_view Text(spdlog::string_view_t view) { return {view.data(), view.size()}; }

// Syslog's numbers, as systemd reads them at the beginning of a line.
int Priority(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::critical:
      return 2;
    case spdlog::level::err:
      return 3;
    case spdlog::level::warn:
      return 4;
    case spdlog::level::info:
      return 6;
    default:
      return 7;
  }
}

// One event is one line, whatever the message holds: a device's text must not be able to forge lines.
void AppendOneLine(std::string_view message, spdlog::memory_buf_t& out) {
  for (const char c : message) {
    if (c == '\n') {
      fmt::format_to(std::back_inserter(out), "\\n");
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out.push_back(c);
    }
  }
}

class OneLineFlag final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    AppendOneLine(Text(message.payload), out);
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<OneLineFlag>(); }
};

class JournalFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    fmt::format_to(std::back_inserter(out), "<{}>", Priority(message.level));
    AppendOneLine(Text(message.payload), out);
    out.push_back('\n');
  }
  std::unique_ptr<formatter> clone() const override { return std::make_unique<JournalFormatter>(); }
};

class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    const auto time = std::chrono::time_point_cast<SystemTime::duration>(message.time);
    const std::string line = JsonLine(FormatRfc3339(time), Text(spdlog::level::to_string_view(message.level)), Text(message.payload));
    out.append(line.data(), line.data() + line.size());
    out.push_back('\n');
  }
  std::unique_ptr<formatter> clone() const override { return std::make_unique<JsonFormatter>(); }
};

bool ParseLevel(std::string_view text, spdlog::level::level_enum& level) {
  const std::pair<std::string_view, spdlog::level::level_enum> kLevels[] = {
      {"trace", spdlog::level::trace}, {"debug", spdlog::level::debug}, {"info", spdlog::level::info},
      {"warn", spdlog::level::warn},   {"error", spdlog::level::err},   {"off", spdlog::level::off}};
  for (const auto& [name, value] : kLevels) {
    if (name == text) {
      level = value;
      return true;
    }
  }
  return false;
}

bool Colour() {
  const char* no_color = getenv("NO_COLOR");
  return isatty(STDERR_FILENO) == 1 && (no_color == nullptr || *no_color == '\0');
}

}  // namespace

std::string JsonLine(std::string_view time, std::string_view level, std::string_view message) {
  std::string line = fmt::format(R"({{"time":"{}","level":"{}","message":")", time, level);
  for (const char c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line += '\\';
      line += c;
    } else if (c == '\n') {
      line += "\\n";
    } else if (byte < 0x20 || byte == 0x7f) {
      line += fmt::format("\\u{:04x}", byte);
    } else {
      line += c;
    }
  }
  line += "\"}";
  return line;
}

bool StandardErrorIsJournal() {
  const char* stream = getenv("JOURNAL_STREAM");
  struct stat st {};
  if (stream == nullptr || fstat(STDERR_FILENO, &st) != 0) return false;
  return fmt::format("{}:{}", static_cast<uint64_t>(st.st_dev), static_cast<uint64_t>(st.st_ino)) == stream;
}

absl::Status SetupLog(const LogOptions& options) {
  spdlog::level::level_enum level{};
  if (!ParseLevel(options.level, level)) {
    return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", fmt::format("\"{}\" is no log level", options.level),
                 "use trace, debug, info, warn, error or off");
  }
  if (options.format != "text" && options.format != "json") {
    return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", fmt::format("\"{}\" is no log format", options.format),
                 "use text or json");
  }
  std::shared_ptr<spdlog::logger> logger;
  const bool colour = options.format == "text" && Colour();
  if (colour) {
    logger = std::make_shared<spdlog::logger>("litefleet", std::make_shared<spdlog::sinks::ansicolor_stderr_sink_mt>());
  } else {
    logger = std::make_shared<spdlog::logger>("litefleet", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  }
  if (options.format == "json") {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else if (StandardErrorIsJournal()) {
    logger->set_formatter(std::make_unique<JournalFormatter>());
  } else {
    auto formatter = std::make_unique<spdlog::pattern_formatter>();
    formatter->add_flag<OneLineFlag>('*').set_pattern(colour ? "%Y-%m-%dT%H:%M:%S.%e%z %^%-7l%$ %*" : "%Y-%m-%dT%H:%M:%S.%e%z %-7l %*");
    logger->set_formatter(std::move(formatter));
  }
  logger->set_level(level);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

}  // namespace litefleet::obs
