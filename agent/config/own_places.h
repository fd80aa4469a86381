// What is the agent's own and says what this device does and lets itself be done to: state, hooks, keys, configuration. No [[files]] may
// have it among its files, or a restore would be the controller's way to change it.
//
// Links count where they lead at this moment: ask again before something is changed. Thread safety: pure functions that look at the file
// system.
#ifndef LITEFLEET_AGENT_CONFIG_OWN_PLACES_H_
#define LITEFLEET_AGENT_CONFIG_OWN_PLACES_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "agent/config/config.h"

namespace litefleet::config {

inline constexpr std::string_view kExcludeOwn =
    "exclude it, or name another root: what this device lets be done to it is not the controller's to change";

// Absolute paths, without that of the configuration itself.
std::vector<std::string> OwnPlaces(const AgentConfig& config);
// Whether what `files` means has to do with what is at `own`: the path itself, where it leads, or a symbolic link on the way.
bool Touches(const DatabaseConfig& files, const std::string& own);
// All of them, and the configuration. kFailedPrecondition CONFIG_INVALID.
absl::Status CheckOwn(const DatabaseConfig& files, const AgentConfig& config, const std::string& config_path);

}  // namespace litefleet::config

#endif  // LITEFLEET_AGENT_CONFIG_OWN_PLACES_H_
