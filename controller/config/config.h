// controller.toml: everything has a default that works, so the file may be missing.
//
//   listen = "[::]:8742"                 HOST:PORT; [::] is IPv4 too; port 0: a free one
//   allow_network_file_system = false    NFS, SMB and the like lose locks and data
//   [log]     level = "info" (trace debug info warn error off)   format = "text" (json)
//   [limits]  connection_memory = "512MiB"   streams_per_connection = 64   workers = 16   uploads = 256
//             digest_cache = "32MiB" of page digests, about 45 bytes a page: what lately came is compared without reading it again
//             upload_rate = "0B" a second of all uploads together (0: no limit), shared fairly among devices   fetch_rate = "0B" of
//             restores
//   [store]   reserve = "512MiB"         free space that uploads do not use
//             scrub_rate = "50MiB" a second (0: no limit)   scrub_every = "30d" each pack is read through again
//   [prune]   grace = "7d" of deleted snapshots   chunk_grace = "1d" of chunks that nothing needs   every = "1d"   retention_every = "1h"
//             rewrite_percent = 50: packs of which so much is dead are rewritten
//   [quota]   device_bytes = "0B"   device_snapshots = 0: what each device may hold in the store, where its policy has no [quota] (0: no
//   limit) [catalog] backup_every = "1d" the controller backs up its own catalog into the store   backup_keep = 7 [export]  directory =
//   DATA/exports: where policies with an [export] write files [drill]   every = "7d" the newest snapshot of each database is restored and
//   checked, where no check has   older_every = "90d" the others [metrics] listen = "" (off), else HOST:PORT for Prometheus   databases =
//   10000: at most so many are named
//
// Thread safety: a value. Errors: kInvalidArgument CONFIG_INVALID with file and line.
#ifndef LITEFLEET_CONTROLLER_CONFIG_CONFIG_H_
#define LITEFLEET_CONTROLLER_CONFIG_CONFIG_H_

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace litefleet::config {

struct ControllerConfig {
  std::string listen = "[::]:8742";
  bool allow_network_file_system = false;
  std::string log_level = "info";
  std::string log_format = "text";
  int64_t connection_memory = int64_t{512} << 20;
  int streams_per_connection = 64;
  int workers = 16;
  int uploads = 256;
  int64_t digest_cache = int64_t{32} << 20;  // bytes of page digests for all uploads together
  int64_t upload_rate = 0;                   // bytes a second of all together; 0: no limit
  int64_t fetch_rate = 0;
  int64_t store_reserve = int64_t{512} << 20;
  int64_t scrub_rate = int64_t{50} << 20;  // bytes a second; 0: no limit
  std::chrono::milliseconds scrub_every = std::chrono::hours(24 * 30);
  std::chrono::milliseconds prune_grace = std::chrono::hours(24 * 7);
  std::chrono::milliseconds prune_chunk_grace = std::chrono::hours(24);
  std::chrono::milliseconds prune_every = std::chrono::hours(24);
  std::chrono::milliseconds retention_every = std::chrono::hours(1);
  int prune_rewrite_percent = 50;
  std::chrono::milliseconds catalog_backup_every = std::chrono::hours(24);
  int catalog_backup_keep = 7;
  int64_t quota_device_bytes = 0;  // 0: no limit
  int64_t quota_device_snapshots = 0;
  std::string export_directory;  // of `[export]` in policies; empty: DATA/exports
  std::chrono::milliseconds drill_every = std::chrono::hours(24 * 7);
  std::chrono::milliseconds drill_older_every = std::chrono::hours(24 * 90);
  std::string metrics_listen;  // empty: off
  int64_t metrics_databases = 10'000;
};

// The keys of `wanted` that differ from `running` and take effect at a start only.
std::vector<std::string> NeedRestart(const ControllerConfig& running, const ControllerConfig& wanted);

absl::StatusOr<ControllerConfig> ReadControllerConfig(const std::string& path);
absl::StatusOr<ControllerConfig> ParseControllerConfig(std::string_view text, const std::string& name);

}  // namespace litefleet::config

#endif  // LITEFLEET_CONTROLLER_CONFIG_CONFIG_H_
