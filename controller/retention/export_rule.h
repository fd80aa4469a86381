// What a policy says of exports: `[export]`, which the controller carries out itself (controller/exports).
//
//   [export]                              of each new state into files below `[export] directory` of controller.toml
//   format = "csv"                        or "sql"
//   every = "1d"                          at most so often (default "1d"; "0s": after every backup)
//   keep = 7                              the newest so many of a database (default 7)
//   databases = ["orders"]                these alone; without it all
//
// Thread safety: a value and pure functions.
#ifndef LITEFLEET_CONTROLLER_RETENTION_EXPORT_RULE_H_
#define LITEFLEET_CONTROLLER_RETENTION_EXPORT_RULE_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/config/toml_reader.h"

namespace litefleet::retention {

struct ExportRule {
  bool csv = true;  // else SQL
  std::chrono::milliseconds every = std::chrono::hours(24);
  int keep = 7;
  std::vector<std::string> databases;  // empty: all
};

// Of a policy's text that is read; nothing where it says nothing of exports. What is wrong is told by the reader's Finish.
std::optional<ExportRule> ReadExportRule(config::TomlTable& policy);
// Of the text of a policy that was applied.
absl::StatusOr<std::optional<ExportRule>> ExportRuleOf(const std::string& text);

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_EXPORT_RULE_H_
