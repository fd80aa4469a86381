// The store's figures and policies as JSON.
#include "controller/cli/things.h"

#include "common/config/toml_reader.h"

namespace litefleet::cli {

Json QuotaJson(int64_t quota) { return quota > 0 ? Json(quota) : Json(); }

Json ToJson(const v1::ScrubReport& report) {
  Json result = Json::Object();
  result.Set("bytes_per_second", report.bytes_per_second())
      .Set("packs", report.packs())
      .Set("stored_bytes", report.stored_bytes())
      .Set("logical_bytes", report.logical_bytes())
      .Set("chunks_quarantined", report.chunks_quarantined())
      .Set("snapshots_damaged", report.snapshots_damaged())
      .Set("records_rewritten", report.records_rewritten())
      .Set("damaged_bytes", report.damaged_bytes());
  return result;
}

Json ToJson(const v1::PruneReport& report) {
  Json result = Json::Object();
  result.Set("dry_run", report.dry_run())
      .Set("snapshots_removed", report.snapshots_removed())
      .Set("snapshots_held", report.snapshots_held())
      .Set("manifests_read", report.manifests_read())
      .Set("chunks_marked", report.chunks_marked())
      .Set("chunks_trashed", report.chunks_trashed())
      .Set("bytes_trashed", report.bytes_trashed())
      .Set("chunks_rescued", report.chunks_rescued())
      .Set("chunks_swept", report.chunks_swept())
      .Set("bytes_swept", report.bytes_swept())
      .Set("packs_removed", report.packs_removed())
      .Set("packs_rewritten", report.packs_rewritten())
      .Set("packs_damaged", report.packs_damaged())
      .Set("bytes_removed", report.bytes_removed())
      .Set("bytes_copied", report.bytes_copied());
  return result;
}

Json ToJson(const v1::CatalogBackups& backups) {
  Json result = Json::Object();
  result.Set("count", backups.count())
      .Set("keep", backups.keep())
      .Set("bytes", backups.bytes())
      .Set("newest_at", TimeJson(backups.has_newest_at(), backups.newest_at()))
      .Set("every_ms", Millis(backups.every()).count())
      .Set("last_error", Json::OrNull(backups.last_error()));
  return result;
}

Json ToJson(const v1::GetStoreStatsResponse& stats) {
  Json devices = Json::Array();
  for (const v1::DeviceUsage& device : stats.devices()) {
    Json one = Json::Object();
    one.Set("device", device.device_name())
        .Set("device_id", device.device_id())
        .Set("snapshots", device.snapshots())
        .Set("logical_bytes", device.logical_bytes())
        .Set("stored_bytes", device.stored_bytes())
        .Set("growth_bytes_per_day", device.growth_bytes_per_day())
        .Set("held_bytes", device.held_bytes())
        .Set("quota_bytes", QuotaJson(device.quota_bytes()))
        .Set("quota_snapshots", QuotaJson(device.quota_snapshots()));
    devices.Add(std::move(one));
  }
  Json result = Json::Object();
  result.Set("snapshots", stats.snapshots())
      .Set("logical_bytes", stats.logical_bytes())
      .Set("store_bytes", stats.store_bytes())
      .Set("live_bytes", stats.live_bytes())
      .Set("dead_bytes", stats.dead_bytes())
      .Set("packs", stats.packs())
      .Set("chunks", stats.chunks())
      .Set("chunk_raw_bytes", stats.chunk_raw_bytes())
      .Set("chunk_stored_bytes", stats.chunk_stored_bytes())
      .Set("trash_snapshots", stats.trash_snapshots())
      .Set("trash_chunks", stats.trash_chunks())
      .Set("trash_bytes", stats.trash_bytes())
      .Set("growth_bytes_per_day", stats.growth_bytes_per_day())
      .Set("devices", std::move(devices))
      .Set("last_prune", stats.has_last_prune() ? ToJson(stats.last_prune()) : Json())
      .Set("last_prune_at", TimeJson(stats.has_last_prune_at(), stats.last_prune_at()))
      .Set("catalog_backups", ToJson(stats.catalog_backups()));
  return result;
}

namespace {

Json BackupJson(const v1::DatabasePolicy& policy) {
  Json result = Json::Object();
  result.Set("schedule", policy.has_schedule() ? Json(policy.schedule()) : Json())
      .Set("method", policy.method() == v1::METHOD_UNSPECIFIED ? Json() : Json(Word(policy.method())))
      .Set("compression_level", policy.has_compression_level() ? Json(policy.compression_level()) : Json());
  return result;
}

}  // namespace

// The controller carries it out, so that it is in the text alone, which it has read.
std::optional<ExportOfPolicy> ExportOf(const v1::Policy& policy) {
  absl::StatusOr<config::TomlReader> reader = config::TomlReader::Parse(policy.text(), "policy");
  if (!reader.ok()) return std::nullopt;
  config::TomlTable* const table = reader->root().Table("export");
  if (table == nullptr) return std::nullopt;
  ExportOfPolicy rule;
  rule.format = table->String("format", rule.format);
  rule.every = table->Duration("every", rule.every, std::chrono::milliseconds(0), std::chrono::milliseconds::max());
  rule.keep = table->Integer("keep", rule.keep, 0, INT64_MAX);
  rule.databases = table->Strings("databases");
  return rule;
}

Json ToJson(const v1::Policy& policy) {
  const v1::DevicePolicy& carried = policy.carried();
  Json databases = Json::Array();
  for (const v1::DatabasePolicy& database : carried.databases()) {
    Json one = BackupJson(database);
    one.Set("name", database.database());
    databases.Add(std::move(one));
  }
  Json backup = BackupJson(carried.defaults());
  backup.Set("databases", std::move(databases));
  Json limits = Json::Object();
  limits.Set("upload", carried.has_upload_bytes_per_second() ? Json(carried.upload_bytes_per_second()) : Json())
      .Set("download", carried.has_download_bytes_per_second() ? Json(carried.download_bytes_per_second()) : Json());
  Json tiers = Json::Array();
  for (const v1::RetentionTier& tier : policy.tiers()) {
    Json one = Json::Object();
    one.Set("every_ms", Millis(tier.every()).count()).Set("for_ms", Millis(tier.keep_for()).count());
    tiers.Add(std::move(one));
  }
  Json exports;
  if (const std::optional<ExportOfPolicy> rule = ExportOf(policy); rule.has_value()) {
    Json named = Json::Array();
    for (const std::string& name : rule->databases) named.Add(name);
    exports = Json::Object();
    exports.Set("format", rule->format).Set("every_ms", rule->every.count()).Set("keep", rule->keep).Set("databases", std::move(named));
  }
  Json result = Json::Object();
  result.Set("name", policy.name())
      .Set("selector", policy.selector())
      .Set("version", policy.version())
      .Set("applied_at", TimeJson(policy.has_applied_at(), policy.applied_at()))
      .Set("keep_last", policy.keep_last())
      .Set("tiers", std::move(tiers))
      .Set("floor", policy.floor())
      .Set("databases", policy.databases())
      .Set("devices", policy.devices())
      .Set("devices_acknowledged", policy.devices_acknowledged())
      .Set("backup", std::move(backup))
      .Set("limits", std::move(limits))
      .Set("export", std::move(exports))
      .Set("text", policy.text());
  return result;
}

}  // namespace litefleet::cli
