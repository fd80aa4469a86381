// agent.toml, read strictly: an unknown key, a wrong type or a value out of range is an error that names file and line.
//
// Only keys that have an effect in this version are known. Thread safety: values and pure functions.
#ifndef LITEFLEET_AGENT_CONFIG_CONFIG_H_
#define LITEFLEET_AGENT_CONFIG_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/config/rate_windows.h"
#include "common/io/disk_reserve.h"
#include "common/obs/log.h"
#include "common/rpc/address.h"

namespace litefleet::config {

struct DatabaseConfig {
  std::string name;
  std::string path;  // absolute
  std::string method = "online";
  std::optional<std::chrono::milliseconds> schedule;  // unset: on order only
  std::string schedule_text;                          // as written
  std::chrono::milliseconds busy_timeout{5000};
  // Longest time for which writers of a rollback-journal database may be held up.
  std::chrono::milliseconds rollback_stall{2000};
  // Longest time for which a read transaction on a WAL database may be held; 0: as long as reading takes.
  std::chrono::milliseconds max_pin{0};
  std::string push_restore = "allow";  // allow | never

  friend bool operator==(const DatabaseConfig&, const DatabaseConfig&) = default;
};

struct AgentConfig {
  std::string state = "/var/lib/litefleet-agent";
  rpc::Address controller;
  obs::LogOptions log;
  int64_t upload_bytes_per_second = 0;     // 0: no limit
  std::vector<RateWindow> upload_windows;  // when another limit holds
  uint64_t spool_bytes = 256 << 20;        // of a backup that waits for the network
  io::DiskReserve disk_reserve;            // stays free beside databases and in the state directory
  int nice = 10;                           // of the whole agent, 0 to 19
  bool allow_network_file_system = false;
  std::chrono::milliseconds keep_previous{std::chrono::hours(24)};  // the state before a restore
  std::vector<DatabaseConfig> databases;                            // names are unique

  // Null where there is none.
  const DatabaseConfig* Find(std::string_view name) const;
};

// Errors: kInvalidArgument CONFIG_INVALID; those of reading the file.
absl::StatusOr<AgentConfig> ReadConfig(const std::string& path);
// `name` stands for the file in errors.
absl::StatusOr<AgentConfig> ParseConfig(std::string_view text, const std::string& name);

}  // namespace litefleet::config

#endif  // LITEFLEET_AGENT_CONFIG_CONFIG_H_
