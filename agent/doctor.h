// `litefleet-agent doctor`: looks at everything that a backup needs, one finding a fact, each with what to do about it.
//
// Changes nothing, and may run beside the agent: databases are opened as for a backup, through SQLite alone. Blocks for up to about
// 10 s a database that is locked, and `probe_timeout` a few times for a controller or a helper that does not answer.
#ifndef LITEFLEET_AGENT_DOCTOR_H_
#define LITEFLEET_AGENT_DOCTOR_H_

#include <chrono>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/config/config.h"
#include "common/base/clock.h"

namespace litefleet {

struct Finding {
  enum class Level { kOk, kWarn, kFail };
  Level level = Level::kOk;
  std::string check;    // lower-case words with hyphens; of a database: "database-..."
  std::string subject;  // the database's name, else empty
  std::string message;
  std::string fix;  // empty where all is well
};

// What it looks with; tests put in their own.
struct DoctorParts {
  const Clock* clock = nullptr;  // null: the real one
  std::string check_helper;      // empty: where restores look for it
  std::chrono::milliseconds probe_timeout{10'000};
};

// Checks: configuration, configuration-trust, state, state-space, identity, certificate, name-resolution, tls, clock, check-helper, and of
// each database database-directory, database-locks, database-opens, database-journal-mode, database-shm-owner, database-space.
std::vector<Finding> Diagnose(const std::string& config_path, const absl::StatusOr<config::AgentConfig>& config,
                              const DoctorParts& parts = {});

// 0, or 1 if anything failed.
int RunDoctor(const std::string& config_path, const absl::StatusOr<config::AgentConfig>& config, bool json, std::ostream& out);

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_DOCTOR_H_
