#include "agent/config/config.h"

#include <filesystem>
#include <set>
#include <utility>

#include "agent/config/own_places.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/config/schedule.h"
#include "common/config/toml_reader.h"
#include "common/files/glob.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kDay = std::chrono::hours(24);

std::string ReadPushRestore(TomlTable& table, const std::string& fallback) {
  const std::string value = table.String("push_restore", fallback);
  if (value != "allow" && value != "signed" && value != "local-confirm" && value != "never") {
    table.Reject("push_restore", fmt::format("\"{}\" is not a known value", value),
                 "use \"allow\", \"signed\", \"local-confirm\" or \"never\"");
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

dump::DumpOptions ReadDump(TomlTable& table) {
  dump::DumpOptions dump;
  dump.compatible = table.Bool("compatible", false);
  dump.tables = table.Strings("tables");
  dump.without = table.Strings("without_tables");
  dump.schema_only = table.Bool("schema_only", false);
  dump.data_only = table.Bool("data_only", false);
  if (dump.schema_only && dump.data_only)
    table.Reject("data_only", "a dump of neither schema nor data", "set one of schema_only and data_only");
  return dump;
}

RunConditions ReadWhen(TomlTable& table) {
  RunConditions when;
  when.on_mains = table.Choice("power", {"any", "mains"}, "any") == "mains";
  when.max_load_percent = static_cast<int>(table.Integer("max_load_percent", 0, 1, 100'000));
  when.quiet = table.Duration("quiet", when.quiet, seconds(1), kDay);
  when.at_latest = table.OptionalDuration("at_latest", std::chrono::minutes(1), 366 * kDay);
  if (when.at_latest && !when.any()) table.Reject("at_latest", "there is nothing to wait for", "set power, max_load_percent or quiet too");
  return when;
}

HookConfig ReadHooks(TomlTable& table, const std::string& directory, const HookConfig& fallback) {
  HookConfig hooks = fallback;
  const auto program = [&](std::string_view key, const std::optional<std::string>& text, std::string& value) {
    if (!text) return;
    value = *text;
    // "" takes away what [hooks] says for all.
    if (!text->empty() && (!IsPlainPath(*text) || !text->starts_with(directory + "/"))) {
      table.Reject(key, fmt::format("\"{}\" is no program below {}", *text, directory),
                   fmt::format("an absolute path, for instance \"{}/{}\"", directory, key));
    }
  };
  program("before_backup", table.OptionalString("before_backup"), hooks.before_backup);
  program("after_backup", table.OptionalString("after_backup"), hooks.after_backup);
  program("before_restore", table.OptionalString("before_restore"), hooks.before_restore);
  program("after_restore", table.OptionalString("after_restore"), hooks.after_restore);
  hooks.timeout = table.Duration("hook_timeout", hooks.timeout, seconds(1), std::chrono::hours(1));
  return hooks;
}

// What databases and files have in common.
void ReadCommon(TomlTable& table, const AgentConfig& config, const HookConfig& hooks, const std::string& push_restore,
                DatabaseConfig& database) {
  database.name = table.RequiredString("name");
  if (table.Has("name") && !IsName(database.name)) {
    table.Reject("name", fmt::format("\"{}\" is not a name", database.name),
                 "letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit");
  }
  if (const std::optional<std::string> text = table.OptionalString("schedule")) {
    const absl::StatusOr<Schedule> schedule = Schedule::Parse(*text);
    if (!schedule.ok()) table.Reject("schedule", MessageOf(schedule.status()), HintOf(schedule.status()));
    if (schedule.ok()) {
      database.schedule = *schedule;
      database.schedule_set = true;
    }
  }
  if (const std::optional<std::string> text = table.OptionalString("window")) {
    database.window = DayWindow::Parse(*text);
    if (!database.window) table.Reject("window", fmt::format("\"{}\" is no time of the day", *text), "for instance \"22:00-06:00\"");
  }
  database.jitter = table.Duration("jitter", database.jitter, milliseconds(0), kDay);
  if (TomlTable* when = table.Table("when")) database.when = ReadWhen(*when);
  if (const int64_t level = table.Integer("compression_level", 0, kMinCompression, kMaxCompression); level != 0)
    database.compression_level = static_cast<int>(level);
  database.push_restore = ReadPushRestore(table, push_restore);
  database.hooks = ReadHooks(table, config.hooks_directory, hooks);
}

std::vector<std::string> CheckedGlobs(TomlTable& table, std::string_view key, std::vector<std::string> globs) {
  for (const std::string& glob : globs) {
    if (const std::string problem = files::ProblemOfGlob(glob); !problem.empty())
      table.Reject(key, fmt::format("\"{}\" is no pattern: {}", glob, problem), "for instance \"*.conf\" or \"attachments/**\"");
  }
  return globs;
}

DatabaseConfig ReadFiles(TomlTable& table, const AgentConfig& config, const HookConfig& hooks, const std::string& push_restore) {
  DatabaseConfig database;
  database.method = "files";
  database.method_set = true;
  ReadCommon(table, config, hooks, push_restore, database);
  database.path = table.RequiredString("root");
  if (table.Has("root") && !IsPlainPath(database.path)) {
    table.Reject("root", fmt::format("\"{}\" is not an absolute path of a directory", database.path), "for instance \"/var/lib/app\"");
  }
  if (database.when.quiet.count() > 0)
    table.Reject("when", "files have no quiet that could be seen", "set power or max_load_percent, or leave quiet out");
  files::Rules& rules = database.files.emplace();
  rules.include = CheckedGlobs(table, "include", table.Strings("include"));
  if (rules.include.empty())
    table.Reject(table.Has("include") ? "include" : "name", "the files have no include",
                 "for instance include = [\"*.conf\", \"attachments/**\"]");
  rules.exclude = CheckedGlobs(table, "exclude", table.Strings("exclude"));
  rules.max_file_bytes = table.Size("max_file_bytes", rules.max_file_bytes, 0, int64_t{1} << 40);
  rules.max_bytes = table.Size("max_bytes", rules.max_bytes, 0, int64_t{1} << 40);
  rules.max_files = table.Integer("max_files", rules.max_files, 1, files::kMostFiles);
  return database;
}

DatabaseConfig ReadDatabase(TomlTable& table, const AgentConfig& config, const HookConfig& hooks, const std::string& push_restore) {
  DatabaseConfig database;
  database.path = table.RequiredString("path");
  if (table.Has("path") && !IsPlainPath(database.path)) {
    table.Reject("path", fmt::format("\"{}\" is not an absolute path of a file", database.path), "for instance \"/var/lib/app/app.db\"");
  }
  database.method_set = table.Has("method");
  database.method = table.String("method", "online");
  if (TomlTable* dump = table.Table("dump")) database.dump = ReadDump(*dump);
  if (!IsMethod(database.method)) {
    table.Reject("method", fmt::format("\"{}\" is not supported by this version", database.method),
                 "use \"online\", \"file\", \"dump\" or \"continuous\"");
  }
  database.sync_interval = table.Duration("sync_interval", database.sync_interval, kLeastSync, kMostSync);
  database.sync_set = table.Has("sync_interval");
  database.allow_restart_checkpoint = table.Bool("allow_restart_checkpoint", false);
  database.restart_set = table.Has("allow_restart_checkpoint");
  database.checkpoint_size = static_cast<uint64_t>(
      table.Size("checkpoint_size", static_cast<int64_t>(database.checkpoint_size), kLeastCheckpointSize, kMostCheckpointSize));
  database.chain_check = table.Duration("chain_check", database.chain_check, seconds(1), 90 * kDay);
  ReadCommon(table, config, hooks, push_restore, database);
  database.busy_timeout = table.Duration("busy_timeout", database.busy_timeout, milliseconds(0), std::chrono::minutes(10));
  database.rollback_stall = table.Duration("rollback_stall", database.rollback_stall, milliseconds(10), std::chrono::hours(1));
  database.max_pin = table.Duration("max_pin", database.max_pin, seconds(1), kDay);
  return database;
}

// "upload" or "download", in bytes a second; nothing where it is not there.
std::optional<int64_t> CheckedRate(TomlTable& table, std::string_view key, int64_t value) {
  if (!table.Has(key)) return std::nullopt;
  const int64_t least = key == "download" ? kMinDownloadRate : kMinRate;
  if (value != 0 && value < least)
    table.Reject(key, fmt::format("{} bytes a second are too few", value), fmt::format("at least {}KiB, or 0 for no limit", least >> 10));
  return value;
}

// All but the rate.
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
    config.upload_bytes_per_second = CheckedRate(*limits, "upload", limits->Size("upload", 0, 0, kMaxRate));
    config.download_bytes_per_second = CheckedRate(*limits, "download", limits->Size("download", 0, 0, kMaxRate));
    if (const int64_t level = limits->Integer("compression_level", 0, kMinCompression, kMaxCompression); level != 0)
      config.compression_level = static_cast<int>(level);
    config.pause_hook = limits->String("pause_hook", "");
    if (limits->Has("pause_hook") && !IsPlainPath(config.pause_hook)) {
      limits->Reject("pause_hook", fmt::format("\"{}\" is not an absolute path of a program", config.pause_hook),
                     "for instance \"/etc/litefleet/pause\"");
    }
    config.nice = static_cast<int>(limits->Integer("nice", config.nice, 0, 19));
    config.spool_bytes = static_cast<uint64_t>(limits->Size("spool_bytes", 256 << 20, 1 << 20, int64_t{1} << 50));
    config.spool_age = limits->Duration("spool_age", config.spool_age, std::chrono::minutes(1), 3660 * kDay);
    const int64_t reserve = limits->Size("disk_reserve", io::DiskReserve::kDefaultBytes, 0, int64_t{1} << 50);
    if (limits->Has("disk_reserve")) config.disk_reserve = io::DiskReserve(static_cast<uint64_t>(reserve));
  }
  for (TomlTable* table : root.Tables("upload_window")) {
    RateWindow& window = config.upload_windows.emplace_back(ReadWindow(*table));
    window.bytes_per_second = CheckedRate(*table, "upload", table->Size("upload", 0, 0, kMaxRate)).value_or(0);
  }
  for (TomlTable* table : root.Tables("download_window")) {
    RateWindow& window = config.download_windows.emplace_back(ReadWindow(*table));
    window.bytes_per_second = CheckedRate(*table, "download", table->Size("download", 0, 0, kMaxRate)).value_or(0);
  }
  std::string push_restore = "allow";
  if (TomlTable* restore = root.Table("restore")) {
    push_restore = ReadPushRestore(*restore, push_restore);
    config.order_keys = restore->String("order_keys", config.order_keys);
    if (!IsPlainPath(config.order_keys)) {
      restore->Reject("order_keys", fmt::format("\"{}\" is not an absolute path", config.order_keys),
                      "for instance \"/etc/litefleet/order-keys\"");
    }
    config.keep_previous = restore->Duration("keep_previous", config.keep_previous, milliseconds(0), 366 * kDay);
  }
  HookConfig hooks;
  if (TomlTable* table = root.Table("hooks")) {
    config.hooks_directory = table->String("directory", config.hooks_directory);
    if (!IsPlainPath(config.hooks_directory)) {
      table->Reject("directory", fmt::format("\"{}\" is not an absolute path", config.hooks_directory),
                    "for instance \"/etc/litefleet/hooks\"");
    }
    hooks = ReadHooks(*table, config.hooks_directory, hooks);
  }
  std::set<std::string> names;
  std::set<std::string> paths;
  for (TomlTable* table : root.Tables("database")) {
    DatabaseConfig database = ReadDatabase(*table, config, hooks, push_restore);
    if (!database.name.empty() && !names.insert(database.name).second) {
      table->Reject("name", fmt::format("\"{}\" names a second database", database.name), "every database needs a name of its own");
    }
    if (!database.path.empty() && !paths.insert(database.path).second) {
      table->Reject("path", fmt::format("\"{}\" is configured twice", database.path), "one [[database]] a file");
    }
    config.databases.push_back(std::move(database));
  }
  // The same directory may be a root twice, with other patterns.
  for (TomlTable* table : root.Tables("files")) {
    DatabaseConfig files = ReadFiles(*table, config, hooks, push_restore);
    if (!files.name.empty() && !names.insert(files.name).second)
      table->Reject("name", fmt::format("\"{}\" is a name already", files.name), "files and databases share their names");
    for (const std::string& own : OwnPlaces(config)) {
      if (!files.path.empty() && Touches(files, own))
        table->Reject("root", fmt::format("the agent's own {} is among the files, and a restore would change it", own), kExcludeOwn);
    }
    config.databases.push_back(std::move(files));
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

bool IsMethod(std::string_view method) { return method == "online" || method == "file" || method == "dump" || method == "continuous"; }

absl::StatusOr<AgentConfig> ReadConfig(const std::string& path) {
  LF_ASSIGN_OR_RETURN(TomlReader reader,
                      TomlReader::ReadFile(path,
                                           "write one, or name another: /usr/share/doc/litefleet/examples/agent.toml (deploy/etc of "
                                           "the sources) has every option"));
  LF_ASSIGN_OR_RETURN(AgentConfig config, Read(std::move(reader)));
  const std::string own = std::filesystem::absolute(path).string();
  for (const DatabaseConfig& files : config.databases) {
    if (!files.files || !Touches(files, own)) continue;
    return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID",
                 fmt::format("{}: this file is among the files of \"{}\"", path, files.name), kExcludeOwn);
  }
  return config;
}

absl::StatusOr<AgentConfig> ParseConfig(std::string_view text, const std::string& name) {
  LF_ASSIGN_OR_RETURN(TomlReader reader, TomlReader::Parse(text, name));
  return Read(std::move(reader));
}

}  // namespace litefleet::config
