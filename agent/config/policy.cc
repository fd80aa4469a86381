#include "agent/config/policy.h"

#include "common/base/status.h"
#include "common/config/schedule.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

// Of a text of the controller's, in a sentence for people.
constexpr size_t kMaxWord = 64;

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text.substr(0, kMaxWord)) quoted += c >= 0x20 && c < 0x7f && c != '"' ? c : '?';
  return quoted + (text.size() > kMaxWord ? "...\"" : "\"");
}

// As agent.toml names it; its number where this version has no name for it.
std::string MethodName(v1::Method method) {
  switch (method) {
    case v1::METHOD_ONLINE:
      return "online";
    case v1::METHOD_DUMP:
      return "dump";
    case v1::METHOD_FILE:
      return "file";
    case v1::METHOD_CONTINUOUS:
      return "continuous";
    default:
      return fmt::format("{}", static_cast<int>(method));
  }
}

class Rules {
 public:
  explicit Rules(RuledConfig& ruled) : ruled_(ruled) {}

  void Limit(const char* what, bool present, int64_t value, int64_t least, std::optional<int64_t>& limit) {
    if (!present) return;
    if (value != 0 && (value < least || value > kMaxRate)) {
      Problem(fmt::format("a limit of {} bytes a second for {} is out of range", value, what));
    } else if (!limit.has_value()) {
      limit = value;
    }
  }
  // What `rule` says and nobody stronger has said.
  void Database(const v1::DatabasePolicy& rule, DatabaseConfig& database) {
    const std::string whose = rule.database().empty() ? std::string("databases") : Quoted(rule.database());
    if (rule.method() != v1::METHOD_UNSPECIFIED && !database.method_set) {
      const std::string method = MethodName(rule.method());
      if (IsMethod(method)) {
        database.method = method;
        database.method_set = true;
      } else {
        Problem(fmt::format("this agent does not know the method {} for {}", method, whose));
      }
    }
    if (rule.has_schedule() && !database.schedule_set) {
      if (const absl::StatusOr<Schedule> schedule = Schedule::Parse(rule.schedule()); schedule.ok()) {
        database.schedule = *schedule;
        database.schedule_set = true;
      } else {
        Problem(fmt::format("{} is no schedule for {} that this agent knows", Quoted(rule.schedule()), whose));
      }
    }
    if (rule.has_sync_interval() && !database.sync_set) {
      const std::chrono::milliseconds interval(rule.sync_interval().seconds() * 1000 + rule.sync_interval().nanos() / 1'000'000);
      if (interval >= kLeastSync && interval <= kMostSync) {
        database.sync_interval = interval;
        database.sync_set = true;
      } else {
        Problem(fmt::format("a sync_interval of {} ms for {} is out of range", interval.count(), whose));
      }
    }
    if (rule.has_allow_restart_checkpoint() && !database.restart_set) {
      database.allow_restart_checkpoint = rule.allow_restart_checkpoint();
      database.restart_set = true;
    }
    if (rule.has_compression_level() && !database.compression_level.has_value() && !ruled_.config.compression_level.has_value()) {
      if (rule.compression_level() >= kMinCompression && rule.compression_level() <= kMaxCompression) {
        database.compression_level = rule.compression_level();
      } else {
        Problem(fmt::format("a compression level of {} for {} is out of range", rule.compression_level(), whose));
      }
    }
  }
  void Problem(std::string sentence) {
    for (const std::string& said : ruled_.problems) {
      if (said == sentence) return;
    }
    if (ruled_.problems.size() < kMaxProblems) ruled_.problems.push_back(std::move(sentence));
  }

 private:
  RuledConfig& ruled_;
};

}  // namespace

RuledConfig ApplyPolicy(const AgentConfig& own, const v1::DevicePolicy& policy) {
  RuledConfig ruled{own, {}};
  Rules rules(ruled);
  rules.Limit("uploads", policy.has_upload_bytes_per_second(), policy.upload_bytes_per_second(), kMinRate,
              ruled.config.upload_bytes_per_second);
  rules.Limit("downloads", policy.has_download_bytes_per_second(), policy.download_bytes_per_second(), kMinDownloadRate,
              ruled.config.download_bytes_per_second);
  for (DatabaseConfig& database : ruled.config.databases) {
    // The first that names it counts.
    for (const v1::DatabasePolicy& rule : policy.databases()) {
      if (rule.database() != database.name) continue;
      rules.Database(rule, database);
      break;
    }
    rules.Database(policy.defaults(), database);
  }
  return ruled;
}

}  // namespace litefleet::config
