#include "controller/config/config.h"

#include "common/base/status.h"
#include "common/config/toml_reader.h"
#include "common/rpc/address.h"
#include "fmt/format.h"

namespace litefleet::config {
namespace {

absl::StatusOr<ControllerConfig> Read(TomlReader reader) {
  ControllerConfig config;
  TomlTable& root = reader.root();
  config.listen = root.String("listen", config.listen);
  if (const auto address = rpc::ParseListenAddress(config.listen); !address.ok() || address->is_unix()) {
    root.Reject("listen", address.ok() ? "it must be HOST:PORT" : MessageOf(address.status()), "write [::]:8742 or 192.0.2.1:8742");
  }
  config.allow_network_file_system = root.Bool("allow_network_file_system", config.allow_network_file_system);
  if (TomlTable* log = root.Table("log")) {
    config.log_level = log->Choice("level", {"trace", "debug", "info", "warn", "error", "off"}, config.log_level);
    config.log_format = log->Choice("format", {"text", "json"}, config.log_format);
  }
  if (TomlTable* limits = root.Table("limits")) {
    config.connection_memory = limits->Size("connection_memory", config.connection_memory, int64_t{32} << 20, int64_t{1} << 40);
    config.streams_per_connection = static_cast<int>(limits->Integer("streams_per_connection", config.streams_per_connection, 4, 10'000));
    config.workers = static_cast<int>(limits->Integer("workers", config.workers, 4, 256));
    config.uploads = static_cast<int>(limits->Integer("uploads", config.uploads, 1, 100'000));
    config.digest_cache = limits->Size("digest_cache", config.digest_cache, int64_t{1} << 20, int64_t{1} << 40);
    config.upload_rate = limits->Size("upload_rate", config.upload_rate, 0, int64_t{1} << 40);
    config.fetch_rate = limits->Size("fetch_rate", config.fetch_rate, 0, int64_t{1} << 40);
  }
  if (TomlTable* store = root.Table("store")) {
    config.store_reserve = store->Size("reserve", config.store_reserve, 0, int64_t{1} << 50);
    config.scrub_rate = store->Size("scrub_rate", config.scrub_rate, 0, int64_t{1} << 40);
    config.scrub_every = store->Duration("scrub_every", config.scrub_every, std::chrono::hours(1), std::chrono::hours(24 * 3660));
  }
  if (TomlTable* prune = root.Table("prune")) {
    using std::chrono::hours;
    using std::chrono::seconds;
    config.prune_grace = prune->Duration("grace", config.prune_grace, seconds(0), hours(24 * 366 * 10));
    config.prune_chunk_grace = prune->Duration("chunk_grace", config.prune_chunk_grace, seconds(0), hours(24 * 366 * 10));
    config.prune_every = prune->Duration("every", config.prune_every, seconds(1), hours(24 * 366));
    config.retention_every = prune->Duration("retention_every", config.retention_every, seconds(1), hours(24 * 366));
    config.prune_rewrite_percent = static_cast<int>(prune->Integer("rewrite_percent", config.prune_rewrite_percent, 1, 100));
  }
  if (TomlTable* quota = root.Table("quota")) {
    config.quota_device_bytes = quota->Size("device_bytes", config.quota_device_bytes, 0, int64_t{1} << 50);
    config.quota_device_snapshots = quota->Integer("device_snapshots", config.quota_device_snapshots, 0, 1'000'000);
  }
  if (TomlTable* catalog = root.Table("catalog")) {
    using std::chrono::hours;
    config.catalog_backup_every = catalog->Duration("backup_every", config.catalog_backup_every, std::chrono::seconds(1), hours(24 * 366));
    config.catalog_backup_keep = static_cast<int>(catalog->Integer("backup_keep", config.catalog_backup_keep, 1, 1000));
  }
  if (TomlTable* exports = root.Table("export")) {
    config.export_directory = exports->String("directory", "");
    if (exports->Has("directory") && !config.export_directory.starts_with('/'))
      exports->Reject("directory", fmt::format("\"{}\" is no absolute path", config.export_directory),
                      "for instance \"/srv/litefleet-exports\"");
  }
  if (TomlTable* drill = root.Table("drill")) {
    using std::chrono::hours;
    config.drill_every = drill->Duration("every", config.drill_every, hours(1), hours(24 * 3660));
    config.drill_older_every = drill->Duration("older_every", config.drill_older_every, hours(1), hours(24 * 3660));
  }
  if (TomlTable* metrics = root.Table("metrics")) {
    config.metrics_listen = metrics->String("listen", config.metrics_listen);
    if (!config.metrics_listen.empty()) {
      if (const auto address = rpc::ParseListenAddress(config.metrics_listen); !address.ok() || address->is_unix()) {
        metrics->Reject("listen", address.ok() ? "it must be HOST:PORT" : MessageOf(address.status()),
                        "write 127.0.0.1:9742, or \"\" for no metrics");
      }
    }
    config.metrics_databases = metrics->Integer("databases", config.metrics_databases, 0, 1'000'000);
  }
  LF_RETURN_IF_ERROR(reader.Finish());
  return config;
}

}  // namespace

std::vector<std::string> NeedRestart(const ControllerConfig& running, const ControllerConfig& wanted) {
  const std::pair<bool, std::string_view> kKeys[] = {
      {wanted.listen != running.listen, "listen"},
      {wanted.allow_network_file_system != running.allow_network_file_system, "allow_network_file_system"},
      {wanted.connection_memory != running.connection_memory, "limits.connection_memory"},
      {wanted.streams_per_connection != running.streams_per_connection, "limits.streams_per_connection"},
      {wanted.workers != running.workers, "limits.workers"},
      {wanted.uploads != running.uploads, "limits.uploads"},
      {wanted.digest_cache != running.digest_cache, "limits.digest_cache"},
      {wanted.upload_rate != running.upload_rate, "limits.upload_rate"},
      {wanted.fetch_rate != running.fetch_rate, "limits.fetch_rate"},
      {wanted.store_reserve != running.store_reserve, "store.reserve"},
      {wanted.scrub_rate != running.scrub_rate, "store.scrub_rate"},
      {wanted.scrub_every != running.scrub_every, "store.scrub_every"},
      {wanted.prune_grace != running.prune_grace, "prune.grace"},
      {wanted.prune_chunk_grace != running.prune_chunk_grace, "prune.chunk_grace"},
      {wanted.prune_every != running.prune_every, "prune.every"},
      {wanted.retention_every != running.retention_every, "prune.retention_every"},
      {wanted.prune_rewrite_percent != running.prune_rewrite_percent, "prune.rewrite_percent"},
      {wanted.quota_device_bytes != running.quota_device_bytes, "quota.device_bytes"},
      {wanted.quota_device_snapshots != running.quota_device_snapshots, "quota.device_snapshots"},
      {wanted.catalog_backup_every != running.catalog_backup_every, "catalog.backup_every"},
      {wanted.catalog_backup_keep != running.catalog_backup_keep, "catalog.backup_keep"},
      {wanted.export_directory != running.export_directory, "export.directory"},
      {wanted.drill_every != running.drill_every, "drill.every"},
      {wanted.drill_older_every != running.drill_older_every, "drill.older_every"},
      {wanted.metrics_listen != running.metrics_listen, "metrics.listen"},
      {wanted.metrics_databases != running.metrics_databases, "metrics.databases"}};
  std::vector<std::string> keys;
  for (const auto& [changed, key] : kKeys) {
    if (changed) keys.emplace_back(key);
  }
  return keys;
}

absl::StatusOr<ControllerConfig> ReadControllerConfig(const std::string& path) {
  LF_ASSIGN_OR_RETURN(TomlReader reader,
                      TomlReader::ReadFile(path,
                                           "leave --config out for the defaults, or name another: "
                                           "/usr/share/doc/litefleet/examples/controller.toml (deploy/etc of the sources) has every "
                                           "option"));
  return Read(std::move(reader));
}

absl::StatusOr<ControllerConfig> ParseControllerConfig(std::string_view text, const std::string& name) {
  LF_ASSIGN_OR_RETURN(TomlReader reader, TomlReader::Parse(text, name));
  return Read(std::move(reader));
}

}  // namespace litefleet::config
