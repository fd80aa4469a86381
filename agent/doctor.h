// `litefleet-agent doctor`: looks at everything that a backup needs, one finding a fact, each with what to do about it.
//
// Changes nothing, and may run beside the agent: databases are opened as for a backup, through SQLite alone. Blocks for up to about
// 10 s a database that is locked.
#ifndef LITEFLEET_AGENT_DOCTOR_H_
#define LITEFLEET_AGENT_DOCTOR_H_

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/config/config.h"

namespace litefleet {

struct Finding {
  enum class Level { kOk, kWarn, kFail };
  Level level = Level::kOk;
  std::string check;    // lower-case words with hyphens; of a database: "database-..."
  std::string subject;  // the database's name, else empty
  std::string message;
  std::string fix;  // empty where all is well
};

std::vector<Finding> Diagnose(const std::string& config_path, const absl::StatusOr<config::AgentConfig>& config);

// 0, or 1 if anything failed.
int RunDoctor(const std::string& config_path, const absl::StatusOr<config::AgentConfig>& config, bool json, std::ostream& out);

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_DOCTOR_H_
