#include "controller/retention/export_rule.h"

#include <string_view>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::retention {
namespace {

constexpr std::chrono::milliseconds kLongestInterval = std::chrono::hours(24 * 366);
constexpr int kMaxExports = 1000;

}  // namespace

std::optional<ExportRule> ReadExportRule(config::TomlTable& policy) {
  config::TomlTable* const table = policy.Table("export");
  if (table == nullptr) return std::nullopt;
  ExportRule rule;
  rule.csv = table->Choice("format", {"csv", "sql"}, "csv") == "csv";
  rule.every = table->Duration("every", rule.every, std::chrono::milliseconds(0), kLongestInterval);
  rule.keep = static_cast<int>(table->Integer("keep", rule.keep, 1, kMaxExports));
  rule.databases = table->Strings("databases");
  for (const std::string& name : rule.databases) {
    if (!IsName(name)) table->Reject("databases", fmt::format("\"{}\" is not a name", name), "the names that devices have in agent.toml");
  }
  if (table->Has("databases") && rule.databases.empty()) table->Reject("databases", "no database is named", "leave it out for all");
  return rule;
}

absl::StatusOr<std::optional<ExportRule>> ExportRuleOf(const std::string& text) {
  LF_ASSIGN_OR_RETURN(config::TomlReader reader, config::TomlReader::Parse(text, "policy"));
  return ReadExportRule(reader.root());
}

}  // namespace litefleet::retention
