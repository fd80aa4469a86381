#include "controller/retention/policy.h"

#include <algorithm>
#include <optional>
#include <set>

#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/config/schedule.h"
#include "common/config/toml_reader.h"
#include "controller/retention/export_rule.h"
#include "fmt/format.h"

namespace litefleet::retention {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongest = std::chrono::hours(24 * 366 * 100);
constexpr int kMaxCount = 1'000'000;
constexpr size_t kMaxTiers = 32;
constexpr size_t kMaxDatabases = 1000;
constexpr int64_t kMinUpload = 1024;
constexpr int64_t kMinDownload = 32 << 10;  // agents take no smaller one
constexpr int64_t kMaxRate = int64_t{1} << 40;
constexpr int64_t kMaxQuotaBytes = int64_t{1} << 50;

// "k=v,k2=v2"; nothing where it is none.
std::optional<Labels> ParseLabels(std::string_view text) {
  Labels labels;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals == 0) return std::nullopt;
    if (!labels.emplace(item.substr(0, equals), item.substr(equals + 1)).second) return std::nullopt;
  }
  return labels;
}

void ReadBackup(config::TomlTable& table, v1::DatabasePolicy& policy) {
  if (const std::optional<std::string> schedule = table.OptionalString("schedule")) {
    if (const auto parsed = config::Schedule::Parse(*schedule); !parsed.ok())
      table.Reject("schedule", MessageOf(parsed.status()), HintOf(parsed.status()));
    policy.set_schedule(*schedule);
  }
  if (table.Has("method")) {
    // An agent that does not know one says so, and goes on as it did.
    const std::string method = table.Choice("method", {"online", "dump", "file", "continuous"}, "online");
    policy.set_method(method == "dump"         ? v1::METHOD_DUMP
                      : method == "file"       ? v1::METHOD_FILE
                      : method == "continuous" ? v1::METHOD_CONTINUOUS
                                               : v1::METHOD_ONLINE);
  }
  if (const auto interval = table.OptionalDuration("sync_interval", std::chrono::milliseconds(100), std::chrono::hours(1)))
    *policy.mutable_sync_interval() = ToProtoDuration(*interval);
  if (table.Has("allow_restart_checkpoint")) policy.set_allow_restart_checkpoint(table.Bool("allow_restart_checkpoint", false));
  if (const int64_t level = table.Integer("compression_level", 0, 1, 19); level != 0)
    policy.set_compression_level(static_cast<int32_t>(level));
}

void ReadDatabases(config::TomlTable& backup, v1::DevicePolicy& policy) {
  const std::vector<config::TomlTable*> tables = backup.Tables("database");
  std::set<std::string> names;
  for (config::TomlTable* table : tables) {
    v1::DatabasePolicy& database = *policy.add_databases();
    const std::string name = table->RequiredString("name");
    database.set_database(name);
    if (table->Has("name") && !IsName(name)) {
      table->Reject("name", fmt::format("\"{}\" is not a name", name), "the name of a database as devices have it in agent.toml");
    } else if (table->Has("name") && !names.insert(name).second) {
      table->Reject("name", fmt::format("\"{}\" is named twice", name), "one [[backup.database]] a name");
    }
    ReadBackup(*table, database);
  }
  if (tables.size() > kMaxDatabases)
    backup.Reject("database", fmt::format("{} databases", tables.size()), fmt::format("at most {}", kMaxDatabases));
}

// Nothing where the key is missing.
std::optional<int64_t> ReadRate(config::TomlTable& table, const char* key, int64_t least) {
  const int64_t rate = table.Size(key, 0, 0, kMaxRate);
  if (!table.Has(key)) return std::nullopt;
  if (rate != 0 && rate < least)
    table.Reject(key, fmt::format("{} bytes a second are too few", rate), fmt::format("at least {}KiB, or 0 for no limit", least >> 10));
  return rate;
}

}  // namespace

absl::StatusOr<Policy> ParsePolicy(std::string_view text, const std::string& source) {
  LF_ASSIGN_OR_RETURN(config::TomlReader reader, config::TomlReader::Parse(text, source));
  config::TomlTable& root = reader.root();
  Policy policy;
  policy.name = root.RequiredString("name");
  if (root.Has("name") && !IsName(policy.name)) {
    root.Reject("name", fmt::format("\"{}\" is not a name", policy.name),
                "letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit");
  }
  policy.selector = root.String("selector", "");
  if (const auto labels = ParseLabels(policy.selector); labels.has_value()) {
    policy.labels = *labels;
  } else {
    root.Reject("selector", fmt::format("\"{}\" is no selector", policy.selector), "write key=value,key2=value2");
  }
  policy.retains = root.Has("retention");
  if (config::TomlTable* retention = root.Table("retention")) {
    policy.keep_last = static_cast<int>(retention->Integer("keep_last", 0, 0, kMaxCount));
    policy.floor = static_cast<int>(retention->Integer("floor", 1, 1, kMaxCount));
    const std::vector<config::TomlTable*> tiers = retention->Tables("tiers");
    for (config::TomlTable* table : tiers) {
      Tier tier;
      const std::string every = table->RequiredString("every");
      const std::string keep_for = table->RequiredString("for");
      tier.text = every + " for " + keep_for;
      if (every != "all") {
        if (const auto parsed = config::ParseDuration(every); parsed.ok() && *parsed >= milliseconds(1) && *parsed <= kLongest) {
          tier.every = *parsed;
        } else if (table->Has("every")) {
          table->Reject("every", fmt::format("\"{}\" is no interval", every), "write \"all\", or a duration: \"15m\", \"1h\", \"1d\"");
        }
      }
      if (const auto parsed = config::ParseDuration(keep_for); parsed.ok() && *parsed >= milliseconds(1) && *parsed <= kLongest) {
        tier.keep_for = *parsed;
      } else if (table->Has("for")) {
        table->Reject("for", fmt::format("\"{}\" is no duration", keep_for), "for instance \"7d\"");
      }
      policy.tiers.push_back(std::move(tier));
    }
    if (tiers.size() > kMaxTiers) retention->Reject("tiers", fmt::format("{} tiers", tiers.size()), fmt::format("at most {}", kMaxTiers));
    if (policy.keep_last == 0 && policy.tiers.empty()) {
      root.Reject("retention", "the policy keeps nothing but the floor",
                  "give [retention] a keep_last or tiers = [{every = \"1d\", for = \"30d\"}]");
    }
  }
  policy.carried.set_name(policy.name);
  if (config::TomlTable* quota = root.Table("quota")) {
    if (quota->Has("bytes")) policy.quota_bytes = quota->Size("bytes", 0, 0, kMaxQuotaBytes);
    if (quota->Has("snapshots")) policy.quota_snapshots = quota->Integer("snapshots", 0, 0, kMaxCount);
  }
  if (config::TomlTable* backup = root.Table("backup")) {
    ReadBackup(*backup, *policy.carried.mutable_defaults());
    ReadDatabases(*backup, policy.carried);
  }
  if (config::TomlTable* limits = root.Table("limits")) {
    if (const auto rate = ReadRate(*limits, "upload", kMinUpload)) policy.carried.set_upload_bytes_per_second(*rate);
    if (const auto rate = ReadRate(*limits, "download", kMinDownload)) policy.carried.set_download_bytes_per_second(*rate);
  }
  static_cast<void>(ReadExportRule(root));  // the controller carries it out: here it has to be right
  if (!policy.retains && !root.Has("quota") && !root.Has("backup") && !root.Has("limits") && !root.Has("export"))
    root.Reject("name", "the policy says nothing", "give it a [retention], a [quota], a [backup], [limits] or an [export]");
  LF_RETURN_IF_ERROR(reader.Finish());
  return policy;
}

Labels ToLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  Labels result;
  for (const auto& [key, value] : labels) result.emplace(key, value);
  return result;
}

bool Matches(const Policy& policy, const Labels& device) {
  return std::all_of(policy.labels.begin(), policy.labels.end(), [&](const auto& label) {
    const auto found = device.find(label.first);
    return found != device.end() && found->second == label.second;
  });
}

absl::StatusOr<const Policy*> Choose(const std::vector<Policy>& policies, const Labels& device) {
  const Policy* best = nullptr;
  const Policy* tie = nullptr;
  for (const Policy& policy : policies) {
    if (!Matches(policy, device)) continue;
    if (best == nullptr || policy.labels.size() > best->labels.size()) {
      best = &policy;
      tie = nullptr;
    } else if (policy.labels.size() == best->labels.size()) {
      tie = &policy;
    }
  }
  if (tie != nullptr) {
    return Error(absl::StatusCode::kFailedPrecondition, "POLICY_TIE",
                 fmt::format("policies {} and {} both match, with {} labels each", best->name, tie->name, best->labels.size()),
                 "give one of them another label in its selector, or change the device's labels");
  }
  return best;
}

absl::StatusOr<v1::DevicePolicy> CarriedTo(const std::vector<Policy>& policies, const Labels& device) {
  LF_ASSIGN_OR_RETURN(const Policy* chosen, Choose(policies, device));
  return chosen == nullptr ? v1::DevicePolicy() : chosen->carried;
}

}  // namespace litefleet::retention
