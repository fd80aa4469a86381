#include "controller/retention/policy.h"

#include <algorithm>
#include <optional>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/config/toml_reader.h"
#include "fmt/format.h"

namespace litefleet::retention {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLongest = std::chrono::hours(24 * 366 * 100);
constexpr int kMaxCount = 1'000'000;
constexpr size_t kMaxTiers = 32;

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
  bool keeps = false;
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
    keeps = policy.keep_last > 0 || !policy.tiers.empty();
  }
  if (!keeps) {
    root.Reject("name", "the policy keeps nothing but the floor",
                "give [retention] a keep_last or tiers = [{every = \"1d\", for = \"30d\"}]");
  }
  LF_RETURN_IF_ERROR(reader.Finish());
  return policy;
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

}  // namespace litefleet::retention
