#include "agent/config/config.h"

#include <set>
#include <utility>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/config/toml_reader.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kDay = std::chrono::hours(24);

std::string ReadPushRestore(TomlTable& table, const std::string& fallback) {
  const std::string value = table.String("push_restore", fallback);
  if (value == "local-confirm" || value == "signed") {
    table.Reject("push_restore", fmt::format("\"{}\" is not supported by this version", value), "use \"allow\" or \"never\"");
  } else if (value != "allow" && value != "never") {
    table.Reject("push_restore", fmt::format("\"{}\" is not a known value", value), "use \"allow\" or \"never\"");
  }
  return value;
}

// Absolute, without "." and "..", not a directory by its end.
bool IsPlainPath(std::string_view path) {
  if (path.empty() || path.front() != '/' || path.back() == '/' || path.find('\0') != std::string_view::npos) return false;
  for (size_t at = 1; at < path.size();) {
    const size_t end = std::min(path.find('/', at), path.size());
    const std::string_view part = path.substr(at, end - at);
    if (part == "." || part == ".." || part.empty()) return false;
    at = end + 1;
  }
  return true;
}

DatabaseConfig ReadDatabase(TomlTable& table, const std::string& push_restore) {
  DatabaseConfig database;
  database.name = table.RequiredString("name");
  if (table.Has("name") && !IsName(database.name)) {
    table.Reject("name", fmt::format("\"{}\" is not a name", database.name),
                 "letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit");
  }
  database.path = table.RequiredString("path");
  if (table.Has("path") && !IsPlainPath(database.path)) {
    table.Reject("path", fmt::format("\"{}\" is not an absolute path of a file", database.path), "for instance \"/var/lib/app/app.db\"");
  }
  database.method = table.String("method", "online");
  if (database.method != "online") {
    table.Reject("method", fmt::format("\"{}\" is not supported by this version", database.method), "use \"online\"");
  }
  database.schedule = table.OptionalDuration("schedule", seconds(1), 366 * kDay);
  if (database.schedule) {
    const auto total = std::chrono::duration_cast<seconds>(*database.schedule).count();
    database.schedule_text = total % 86400 == 0  ? fmt::format("{}d", total / 86400)
                             : total % 3600 == 0 ? fmt::format("{}h", total / 3600)
                             : total % 60 == 0   ? fmt::format("{}m", total / 60)
                                                 : fmt::format("{}s", total);
  }
  database.busy_timeout = table.Duration("busy_timeout", database.busy_timeout, milliseconds(0), std::chrono::minutes(10));
  database.rollback_stall = table.Duration("rollback_stall", database.rollback_stall, milliseconds(10), std::chrono::hours(1));
  database.max_pin = table.Duration("max_pin", database.max_pin, seconds(1), kDay);
  database.push_restore = ReadPushRestore(table, push_restore);
  return database;
}

RateWindow ReadWindow(TomlTable& table) {
  RateWindow window;
  const auto time = [&](std::string_view key, const std::string& text) {
    const auto parsed = ParseTimeOfDay(text);
    if (table.Has(key) && !parsed) table.Reject(key, fmt::format("\"{}\" is no time of the day", text), "for instance \"08:00\"");
    return parsed.value_or(std::chrono::minutes(0));
  };
  window.from = time("from", table.RequiredString("from"));
  window.to = time("to", table.RequiredString("to"));
  if (table.Has("from") && table.Has("to") && window.from == window.to)
    table.Reject("to", "the window ends when it begins", "\"00:00\" to \"24:00\" is the whole day");
  for (const std::string& day : table.Strings("days")) {
    const auto parsed = ParseWeekday(day);
    if (parsed) window.days.set(static_cast<size_t>(*parsed));
    if (!parsed) table.Reject("days", fmt::format("\"{}\" is no day", day), "mon tue wed thu fri sat sun");
  }
  window.upload_bytes_per_second = table.Size("upload", 0, 1024, int64_t{1} << 40);
  return window;
}

absl::StatusOr<AgentConfig> Read(TomlReader reader) {
  AgentConfig config;
  TomlTable& root = reader.root();
  config.state = root.String("state", config.state);
  if (!IsPlainPath(config.state)) {
    root.Reject("state", fmt::format("\"{}\" is not an absolute path", config.state), "for instance \"/var/lib/litefleet-agent\"");
  }
  const std::string controller = root.RequiredString("controller");
  if (root.Has("controller")) {
    const absl::StatusOr<rpc::Address> address = rpc::ParseAddress(controller);
    if (address.ok()) {
      config.controller = *address;
    } else {
      root.Reject("controller", MessageOf(address.status()), HintOf(address.status()));
    }
  }
  config.allow_network_file_system = root.Bool("allow_network_file_system", false);
  if (TomlTable* log = root.Table("log")) {
    config.log.level = log->Choice("level", {"trace", "debug", "info", "warn", "error", "off"}, config.log.level);
    config.log.format = log->Choice("format", {"text", "json"}, config.log.format);
  }
  if (TomlTable* limits = root.Table("limits")) {
    config.upload_bytes_per_second = limits->Size("upload", 0, 1024, int64_t{1} << 40);
    config.nice = static_cast<int>(limits->Integer("nice", config.nice, 0, 19));
    config.spool_bytes = static_cast<uint64_t>(limits->Size("spool_bytes", 256 << 20, 1 << 20, int64_t{1} << 50));
    const int64_t reserve = limits->Size("disk_reserve", io::DiskReserve::kDefaultBytes, 0, int64_t{1} << 50);
    if (limits->Has("disk_reserve")) config.disk_reserve = io::DiskReserve(static_cast<uint64_t>(reserve));
  }
  for (TomlTable* table : root.Tables("upload_window")) config.upload_windows.push_back(ReadWindow(*table));
  std::string push_restore = "allow";
  if (TomlTable* restore = root.Table("restore")) {
    push_restore = ReadPushRestore(*restore, push_restore);
    config.keep_previous = restore->Duration("keep_previous", config.keep_previous, milliseconds(0), 366 * kDay);
  }
  std::set<std::string> names;
  std::set<std::string> paths;
  for (TomlTable* table : root.Tables("database")) {
    DatabaseConfig database = ReadDatabase(*table, push_restore);
    if (!database.name.empty() && !names.insert(database.name).second) {
      table->Reject("name", fmt::format("\"{}\" names a second database", database.name), "every database needs a name of its own");
    }
    if (!database.path.empty() && !paths.insert(database.path).second) {
      table->Reject("path", fmt::format("\"{}\" is configured twice", database.path), "one [[database]] a file");
    }
    config.databases.push_back(std::move(database));
  }
  LF_RETURN_IF_ERROR(reader.Finish());
  return config;
}

}  // namespace

const DatabaseConfig* AgentConfig::Find(std::string_view name) const {
  for (const DatabaseConfig& database : databases) {
    if (database.name == name) return &database;
  }
  return nullptr;
}

absl::StatusOr<AgentConfig> ReadConfig(const std::string& path) {
  LF_ASSIGN_OR_RETURN(TomlReader reader, TomlReader::ReadFile(path));
  return Read(std::move(reader));
}

absl::StatusOr<AgentConfig> ParseConfig(std::string_view text, const std::string& name) {
  LF_ASSIGN_OR_RETURN(TomlReader reader, TomlReader::Parse(text, name));
  return Read(std::move(reader));
}

}  // namespace litefleet::config
