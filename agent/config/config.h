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
#include "agent/config/day_window.h"
#include "agent/config/rate_windows.h"
#include "common/config/schedule.h"
#include "common/dump/dump_options.h"
#include "common/files/rules.h"
#include "common/io/disk_reserve.h"
#include "common/obs/log.h"
#include "common/rpc/address.h"

namespace litefleet::config {

// The device's own commands around backups and restores: absolute paths below AgentConfig::hooks_directory; empty: none.
struct HookConfig {
  std::string before_backup;
  std::string after_backup;
  std::string before_restore;
  std::string after_restore;
  std::chrono::milliseconds timeout{60'000};  // of each
  friend bool operator==(const HookConfig&, const HookConfig&) = default;
};

// What runs of the schedule wait for beside their time ([database.when]).
struct RunConditions {
  bool on_mains = false;               // power = "mains"
  int max_load_percent = 0;            // of the last minute and of all processors; 0: any
  std::chrono::milliseconds quiet{0};  // so long nobody has written the database
  // A run goes when it has waited for so long, whatever does not hold; unset: never.
  std::optional<std::chrono::milliseconds> at_latest;

  bool any() const { return on_mains || max_load_percent > 0 || quiet.count() > 0; }
  friend bool operator==(const RunConditions&, const RunConditions&) = default;
};

// A [[database]], or a [[files]]: plain files below a directory, which share the names of databases and all that is done by name.
struct DatabaseConfig {
  std::string name;
  std::string path;                                         // absolute; of files: their root
  std::optional<files::Rules> files;                        // set: a [[files]]
  std::string method = "online";                            // online | file | dump | continuous; of files: files
  bool method_set = false;                                  // by agent.toml: no policy changes it
  std::chrono::milliseconds sync_interval{1000};            // of method continuous: how often what was committed is shipped
  bool sync_set = false;                                    // as method_set
  bool allow_restart_checkpoint = false;                    // of method continuous: RESTART where nothing else keeps the WAL small
  bool restart_set = false;                                 // as method_set
  uint64_t checkpoint_size = 4 << 20;                       // of method continuous: the agent checkpoints a WAL of about this many bytes
  std::chrono::milliseconds chain_check{24 * 3600 * 1000};  // of method continuous: how often all of it is read and compared
  Schedule schedule;                                        // without one on order only
  bool schedule_set = false;
  // Runs of the schedule begin within it alone.
  std::optional<DayWindow> window;
  // Most by which a run comes later than its schedule says; how much is the device's own.
  std::chrono::milliseconds jitter{0};
  RunConditions when;
  std::optional<int> compression_level;  // zstd's, 1 to 19; unset: little for a first backup, more for what changed
  std::chrono::milliseconds busy_timeout{5000};
  // Longest time for which writers of a rollback-journal database may be held up.
  std::chrono::milliseconds rollback_stall{2000};
  // Longest time for which a read transaction on a WAL database may be held; 0: as long as reading takes.
  std::chrono::milliseconds max_pin{0};
  std::string push_restore = "allow";  // allow | signed | local-confirm | never
  HookConfig hooks;
  dump::DumpOptions dump;  // of method dump

  friend bool operator==(const DatabaseConfig&, const DatabaseConfig&) = default;
};

struct AgentConfig {
  std::string state = "/var/lib/litefleet-agent";
  rpc::Address controller;
  obs::LogOptions log;
  std::optional<int64_t> upload_bytes_per_second;  // unset: no limit, and a policy may set one; 0: no limit
  std::vector<RateWindow> upload_windows;          // when another limit holds
  std::optional<int64_t> download_bytes_per_second;
  std::vector<RateWindow> download_windows;
  std::optional<int> compression_level;    // of databases that say nothing of their own
  std::string pause_hook;                  // absolute path of a program that is asked before a scheduled backup; empty: none
  uint64_t spool_bytes = 256 << 20;        // of a backup that waits for the network; of all snapshots that wait for the controller
  std::chrono::milliseconds spool_age{0};  // snapshots wait for no longer; 0: as long as there is room
  io::DiskReserve disk_reserve;            // stays free beside databases and in the state directory
  int nice = 10;                           // of the whole agent, 0 to 19
  bool allow_network_file_system = false;
  std::string order_keys = "/etc/litefleet/order-keys";             // public keys of operators, for push_restore = "signed"
  std::chrono::milliseconds keep_previous{std::chrono::hours(24)};  // the state before a restore
  std::string hooks_directory = "/etc/litefleet/hooks";
  std::vector<DatabaseConfig> databases;  // and files; names are unique

  // Null where there is none.
  const DatabaseConfig* Find(std::string_view name) const;
};

// What a backup can be made by.
bool IsMethod(std::string_view method);

// Bytes a second that a limit may have, beside 0.
inline constexpr int64_t kMinRate = 1024;
inline constexpr int64_t kMinDownloadRate = 32 << 10;  // a message passes within half of what the controller waits for its reader
inline constexpr int64_t kMaxRate = int64_t{1} << 40;
inline constexpr std::chrono::milliseconds kLeastSync{100};
inline constexpr std::chrono::milliseconds kMostSync{3'600'000};
inline constexpr int64_t kLeastCheckpointSize = 1 << 20;
inline constexpr int64_t kMostCheckpointSize = 1 << 30;
inline constexpr int kMinCompression = 1;
inline constexpr int kMaxCompression = 19;

// Errors: kInvalidArgument CONFIG_INVALID; those of reading the file.
absl::StatusOr<AgentConfig> ReadConfig(const std::string& path);
// `name` stands for the file in errors.
absl::StatusOr<AgentConfig> ParseConfig(std::string_view text, const std::string& name);

}  // namespace litefleet::config

#endif  // LITEFLEET_AGENT_CONFIG_CONFIG_H_
