#include "controller/cli/things.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <map>
#include <string_view>

#include "absl/status/status.h"
#include "common/base/bytes.h"
#include "common/base/proto_time.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/text.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

// "CHECK_STATE_CANNOT_TELL" without its prefix and in lower case; empty where it is unspecified, its number where it is newer than this.
template <class Enum>
std::string WordOf(Enum value, std::string_view prefix) {
  if (static_cast<int>(value) == 0) return {};
  const auto* descriptor = google::protobuf::GetEnumDescriptor<Enum>()->FindValueByNumber(static_cast<int>(value));
  if (descriptor == nullptr) return std::to_string(static_cast<int>(value));
  std::string word = descriptor->name().substr(prefix.size());
  for (char& c : word) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return word;
}

template <class Enum>
Json WordJson(Enum value) {
  return Json::OrNull(Word(value));
}

// A check that nobody looked at is unknown, whether it says so or is unset.
Json CheckJson(v1::CheckState state) { return state == v1::CHECK_STATE_UNSPECIFIED ? Json("unknown") : Json(Word(state)); }

}  // namespace

std::string Word(v1::Method value) { return WordOf(value, "METHOD_"); }
std::string Word(v1::JournalMode value) { return WordOf(value, "JOURNAL_MODE_"); }
std::string Word(v1::CheckState value) { return WordOf(value, "CHECK_STATE_"); }
std::string Word(v1::SnapshotState value) { return WordOf(value, "SNAPSHOT_STATE_"); }
std::string Word(v1::OperationKind value) { return WordOf(value, "OPERATION_KIND_"); }
std::string Word(v1::OperationState value) { return WordOf(value, "OPERATION_STATE_"); }
std::string Word(v1::DeviceState value) { return WordOf(value, "DEVICE_STATE_"); }
std::string Word(v1::RestoreMode value) { return WordOf(value, "RESTORE_MODE_"); }
std::string Word(v1::FindingLevel value) { return WordOf(value, "FINDING_LEVEL_"); }

Tone ToneOf(v1::CheckState state) {
  switch (state) {
    case v1::CHECK_STATE_OK:
      return Tone::kGood;
    case v1::CHECK_STATE_DAMAGED:
      return Tone::kBad;
    case v1::CHECK_STATE_FAILED:
    case v1::CHECK_STATE_CANNOT_TELL:
      return Tone::kDoubtful;
    default:
      return Tone::kFaint;
  }
}

Tone ToneOf(v1::OperationState state) {
  switch (state) {
    case v1::OPERATION_STATE_SUCCEEDED:
      return Tone::kGood;
    case v1::OPERATION_STATE_FAILED:
    case v1::OPERATION_STATE_EXPIRED:
      return Tone::kBad;
    case v1::OPERATION_STATE_PARTLY:
    case v1::OPERATION_STATE_CANCELLED:
      return Tone::kDoubtful;
    default:
      return Tone::kPlain;
  }
}

bool HasEnded(const v1::Operation& operation) {
  return operation.state() == v1::OPERATION_STATE_SUCCEEDED || operation.state() == v1::OPERATION_STATE_PARTLY ||
         operation.state() == v1::OPERATION_STATE_FAILED || operation.state() == v1::OPERATION_STATE_CANCELLED ||
         operation.state() == v1::OPERATION_STATE_EXPIRED;
}

bool RunsOnDevice(v1::OperationKind kind) {
  return kind == v1::OPERATION_KIND_BACKUP || kind == v1::OPERATION_KIND_RESTORE || kind == v1::OPERATION_KIND_HEAL ||
         kind == v1::OPERATION_KIND_UNDO || kind == v1::OPERATION_KIND_DROP_UNDO;
}

std::string WaitsForDevice(const v1::Operation& operation) {
  if (operation.state() != v1::OPERATION_STATE_CANCELLING || operation.device_connected() || !operation.has_cancel_ends_at()) return {};
  return fmt::format(
      "{} is offline, and may have changed the database before it heard of the cancel: it stays cancelling until the device says what "
      "became "
      "of it, at most until {}, when it ends as cancelled",
      operation.device_name(), LocalTimeText(FromProtoTime(operation.cancel_ends_at())));
}

std::string SubjectOf(const v1::Operation& operation) {
  const std::string database = DatabaseName(operation);
  std::string kind = Word(operation.kind());
  std::replace(kind.begin(), kind.end(), '_', ' ');
  return kind + " of " + (database.empty() ? "the store" : database);
}

std::string DatabaseName(const v1::Operation& operation) {
  return operation.database().empty() ? operation.device_name() : operation.device_name() + "/" + operation.database();
}
std::string DatabaseName(const v1::Snapshot& snapshot) { return snapshot.device_name() + "/" + snapshot.database(); }
std::string DatabaseName(const v1::Database& database) { return database.device_name() + "/" + database.name(); }
std::string DatabaseName(const v1::Gap& gap) { return gap.device_name() + "/" + gap.gap().database(); }

std::string PinText(const v1::Snapshot& snapshot) {
  return snapshot.has_pinned_until() ? "until " + LocalTimeText(FromProtoTime(snapshot.pinned_until())) : "until it is unpinned";
}

std::chrono::milliseconds Millis(const google::protobuf::Duration& duration) {
  return std::chrono::milliseconds(duration.seconds() * 1000 + duration.nanos() / 1'000'000);
}

google::protobuf::Duration Seconds(std::chrono::seconds duration) {
  google::protobuf::Duration result;
  result.set_seconds(duration.count());
  return result;
}

Json TimeJson(bool set, const google::protobuf::Timestamp& time) { return set ? Json(Rfc3339Text(FromProtoTime(time))) : Json(); }

Json LabelsJson(const google::protobuf::Map<std::string, std::string>& labels) {
  Json result = Json::Object();
  for (const auto& [key, value] : std::map<std::string, std::string>(labels.begin(), labels.end())) result.Set(key, value);
  return result;
}

std::string LabelsText(const google::protobuf::Map<std::string, std::string>& labels) {
  std::string result;
  for (const auto& [key, value] : std::map<std::string, std::string>(labels.begin(), labels.end()))
    result += (result.empty() ? "" : ",") + key + "=" + value;
  return result;
}

Json ToJson(const v1::ErrorDetail& error) {
  Json result = Json::Object();
  result.Set("code", CodeName(static_cast<absl::StatusCode>(error.code())))
      .Set("reason", Json::OrNull(error.info().reason()))
      .Set("message", error.message())
      .Set("hint", Json::OrNull(error.info().hint()));
  return result;
}

Json ToJson(const v1::Token& token) {
  Json result = Json::Object();
  result.Set("id", token.id())
      .Set("created_at", TimeJson(token.has_created_at(), token.created_at()))
      .Set("expires_at", TimeJson(token.has_expires_at(), token.expires_at()))
      .Set("uses_left", token.uses_left())
      .Set("uses_total", token.uses_total())
      .Set("revoked", token.revoked())
      .Set("labels", LabelsJson(token.labels()))
      .Set("for_device", Json::OrNull(token.for_device_id()));
  return result;
}

Json ToJson(const v1::Device& device) {
  Json result = Json::Object();
  result.Set("id", device.id())
      .Set("name", device.name())
      .Set("labels", LabelsJson(device.labels()))
      .Set("state", WordJson(device.state()))
      .Set("connected", device.connected())
      .Set("last_seen_at", TimeJson(device.has_last_seen_at(), device.last_seen_at()))
      .Set("version", Json::OrNull(device.version()))
      .Set("clock_offset_ms", device.has_last_seen_at() ? Json(device.clock_offset_ms()) : Json())
      .Set("certificate_expires_at", TimeJson(device.has_certificate_expires_at(), device.certificate_expires_at()))
      .Set("enrolled_at", TimeJson(device.has_enrolled_at(), device.enrolled_at()))
      .Set("sqlite_version", Json::OrNull(device.sqlite_version()))
      .Set("platform", Json::OrNull(device.platform()))
      .Set("uptime_ms", device.has_uptime() ? Json(Millis(device.uptime()).count()) : Json())
      .Set("free_bytes", device.has_last_seen_at() && device.free_bytes() >= 0 ? Json(device.free_bytes()) : Json());
  if (device.has_usage()) {
    const v1::DeviceUsage& usage = device.usage();
    result.Set("held_bytes", usage.held_bytes())
        .Set("snapshots", usage.snapshots())
        .Set("quota_bytes", QuotaJson(usage.quota_bytes()))
        .Set("quota_snapshots", QuotaJson(usage.quota_snapshots()));
  }
  return result;
}

Json ToJson(const v1::DatabaseHealth& health) {
  Json result = Json::Object();
  result.Set("path", Json::OrNull(health.path()))
      .Set("present", health.present())
      .Set("size_bytes", health.size_bytes())
      .Set("wal_bytes", health.wal_bytes())
      .Set("free_bytes", health.free_bytes())
      .Set("spooled_snapshots", int64_t{health.spooled_snapshots()})
      .Set("spooled_bytes", health.spooled_bytes())
      .Set("journal_mode", WordJson(health.journal_mode()))
      .Set("method", WordJson(health.method()))
      .Set("schedule", Json::OrNull(health.schedule()))
      .Set("last_run_at", TimeJson(health.has_last_run_at(), health.last_run_at()))
      .Set("last_success_at", TimeJson(health.has_last_success_at(), health.last_success_at()))
      .Set("unchanged_at", TimeJson(health.has_unchanged_at(), health.unchanged_at()))
      .Set("waits_for", Json::OrNull(health.waits_for()))
      .Set("waits_since", TimeJson(health.has_waits_since(), health.waits_since()))
      .Set("last_error", health.has_last_error() ? ToJson(health.last_error()) : Json());
  return result;
}

Json ToJson(const v1::Database& database) {
  Json result = Json::Object();
  result.Set("device", database.device_name())
      .Set("device_id", database.device_id())
      .Set("name", database.name())
      .Set("timeline", database.timeline())
      .Set("snapshots", database.snapshots())
      .Set("newest_snapshot", database.has_newest_snapshot() ? ToJson(database.newest_snapshot()) : Json())
      .Set("newest_proven_at", TimeJson(database.has_newest_proven_at(), database.newest_proven_at()))
      .Set("reported_at", TimeJson(database.has_reported_at(), database.reported_at()))
      .Set("health", database.has_health() ? ToJson(database.health()) : Json());
  return result;
}

Json ToJson(const v1::Snapshot& snapshot) {
  Json result = Json::Object();
  result.Set("id", snapshot.id())
      .Set("device", snapshot.device_name())
      .Set("database", snapshot.database())
      .Set("method", WordJson(snapshot.method()))
      .Set("state", WordJson(snapshot.state()))
      .Set("timeline", snapshot.timeline())
      .Set("taken_at", TimeJson(snapshot.has_taken_at(), snapshot.taken_at()))
      .Set("received_at", TimeJson(snapshot.has_received_at(), snapshot.received_at()))
      .Set("page_size", snapshot.page_size())
      .Set("page_count", snapshot.page_count())
      .Set("size_bytes", snapshot.size_bytes())
      .Set("root_digest", Json::OrNull(ToHex(AsBytes(snapshot.root_digest()))))
      .Set("pages_sent", snapshot.pages_sent())
      .Set("wire_bytes", snapshot.wire_bytes())
      .Set("stored_bytes", snapshot.stored_bytes())
      .Set("duration_ms", snapshot.has_duration() ? Json(Millis(snapshot.duration()).count()) : Json())
      .Set("source_check", CheckJson(snapshot.source_check()))
      .Set("check", CheckJson(snapshot.check()))
      .Set("drilled_at", TimeJson(snapshot.has_drilled_at(), snapshot.drilled_at()))
      .Set("parent", Json::OrNull(snapshot.parent_id()))
      .Set("pages_changed", snapshot.has_pages_changed() ? Json(int64_t{snapshot.pages_changed()}) : Json())
      .Set("device_id", snapshot.device_id())
      .Set("sequence", snapshot.sequence())
      .Set("effective_at", TimeJson(snapshot.has_effective_at(), snapshot.effective_at()))
      .Set("source_check_message", Json::OrNull(snapshot.source_check_message()))
      .Set("check_message", Json::OrNull(snapshot.check_message()))
      .Set("checked_at", TimeJson(snapshot.has_checked_at(), snapshot.checked_at()))
      .Set("journal_mode", WordJson(snapshot.journal_mode()))
      .Set("pinned_ms", snapshot.has_pinned() ? Json(Millis(snapshot.pinned()).count()) : Json())
      .Set("read_bytes", snapshot.read_bytes())
      .Set("operation", Json::OrNull(snapshot.operation_id()))
      .Set("pinned", snapshot.pinned_by_operator())
      .Set("pinned_until", TimeJson(snapshot.has_pinned_until(), snapshot.pinned_until()))
      .Set("restore_ms", snapshot.has_restore_duration() ? Json(Millis(snapshot.restore_duration()).count()) : Json())
      .Set("content", Json::OrNull(WordOf(snapshot.content(), "SNAPSHOT_CONTENT_")))
      .Set("content_bytes", snapshot.content() > v1::SNAPSHOT_CONTENT_DATABASE ? Json(snapshot.content_bytes()) : Json())
      .Set("provenance", Json::OrNull(snapshot.provenance()))
      .Set("imported", !snapshot.provenance().empty())
      .Set("part", Json::OrNull(snapshot.part()))
      .Set("compatible", snapshot.compatible())
      .Set("commits", snapshot.commits() > 0 ? Json(int64_t{snapshot.commits()}) : Json());
  return result;
}

Json ToJson(const v1::Operation& operation) {
  Json progress = Json::Object();
  progress.Set("done_bytes", operation.progress().done_bytes())
      .Set("total_bytes", operation.progress().total_bytes())
      .Set("phase", Json::OrNull(operation.progress().phase()));
  Json steps = Json::Array();
  for (const std::string& step : operation.steps()) steps.Add(step);
  Json hooks = Json::Array();
  for (const v1::HookRun& run : operation.hooks()) {
    Json item = Json::Object();
    item.Set("hook", run.hook())
        .Set("exit_code", run.exit_code())
        .Set("timed_out", run.timed_out())
        .Set("duration_ms", Millis(run.duration()).count())
        .Set("output", run.output());
    hooks.Add(std::move(item));
  }
  Json result = Json::Object();
  result.Set("id", operation.id())
      .Set("kind", WordJson(operation.kind()))
      .Set("state", WordJson(operation.state()))
      .Set("device", Json::OrNull(operation.device_name()))
      .Set("database", Json::OrNull(operation.database()))
      .Set("snapshot", Json::OrNull(operation.snapshot_id()))
      .Set("progress", std::move(progress))
      .Set("wire_bytes", operation.progress().wire_bytes())
      .Set("started_at", TimeJson(operation.has_started_at(), operation.started_at()))
      .Set("ended_at", TimeJson(operation.has_ended_at(), operation.ended_at()))
      .Set("error", operation.has_error() ? ToJson(operation.error()) : Json())
      .Set("device_id", Json::OrNull(operation.device_id()))
      .Set("device_connected", operation.device_connected())
      .Set("created_at", TimeJson(operation.has_created_at(), operation.created_at()))
      .Set("expires_at", TimeJson(operation.has_expires_at(), operation.expires_at()))
      .Set("cancel_ends_at", TimeJson(operation.has_cancel_ends_at(), operation.cancel_ends_at()))
      .Set("ordered_by", Json::OrNull(operation.ordered_by()))
      .Set("restore_mode", WordJson(operation.restore_mode()))
      .Set("undo", Json::OrNull(operation.undo()))
      .Set("stall_ms", operation.has_stall() ? Json(Millis(operation.stall()).count()) : Json())
      .Set("steps", std::move(steps))
      .Set("hooks", std::move(hooks));
  if (operation.has_prune()) result.Set("prune", ToJson(operation.prune()));
  if (operation.has_scrub()) result.Set("scrub", ToJson(operation.scrub()));
  return result;
}

Json ToJson(const v1::RestorePlan& plan) {
  Json steps = Json::Array();
  for (const std::string& step : plan.steps()) steps.Add(step);
  Json obstacles = Json::Array();
  for (const v1::ErrorDetail& obstacle : plan.obstacles()) obstacles.Add(ToJson(obstacle));
  Json hooks = Json::Array();
  for (const std::string& hook : plan.hooks()) hooks.Add(hook);
  Json result = Json::Object();
  result.Set("mode", WordJson(plan.mode()))
      .Set("snapshot", Json::OrNull(plan.snapshot_id()))
      .Set("size_bytes", plan.size_bytes())
      .Set("fetch_bytes", plan.fetch_bytes())
      .Set("staging_bytes", plan.staging_bytes())
      .Set("undo_bytes", plan.undo_bytes())
      .Set("journal_bytes", plan.journal_bytes())
      .Set("reserve_bytes", plan.reserve_bytes())
      .Set("free_bytes", plan.free_bytes())
      .Set("expected_stall_ms", plan.has_expected_stall() ? Json(Millis(plan.expected_stall()).count()) : Json())
      .Set("in_use", plan.from_device() ? Json(plan.in_use()) : Json())
      .Set("journal_mode", WordJson(plan.journal_mode()))
      .Set("from_device", plan.from_device())
      .Set("made_at", TimeJson(plan.has_made_at(), plan.made_at()))
      .Set("steps", std::move(steps))
      .Set("hooks", std::move(hooks))
      .Set("obstacles", std::move(obstacles));
  return result;
}

Json ToJson(const v1::Finding& finding) {
  Json result = Json::Object();
  result.Set("level", WordJson(finding.level()))
      .Set("check", finding.check())
      .Set("message", finding.message())
      .Set("fix", Json::OrNull(finding.fix()));
  return result;
}

Json ToJson(const v1::Alarm& alarm) {
  Json item = Json::Object();
  item.Set("reason", alarm.reason()).Set("subject", Json::OrNull(alarm.subject())).Set("message", alarm.message());
  return item;
}

Json ToJson(const v1::Gap& gap) {
  Json item = Json::Object();
  item.Set("id", gap.gap().id())
      .Set("device", gap.device_name())
      .Set("database", gap.gap().database())
      .Set("from", TimeJson(gap.gap().has_from(), gap.gap().from()))
      .Set("until", TimeJson(gap.gap().has_until(), gap.gap().until()))
      .Set("reason", gap.gap().reason())
      .Set("message", Json::OrNull(gap.gap().message()))
      .Set("snapshots_dropped", int64_t{gap.gap().snapshots()})
      .Set("device_id", gap.device_id());
  return item;
}

Json GapAroundJson(bool set, const v1::GapAround& gap) {
  if (!set) return Json();
  Json item = Json::Object();
  item.Set("from", TimeJson(gap.gap().has_from(), gap.gap().from()))
      .Set("until", TimeJson(gap.gap().has_until(), gap.gap().until()))
      .Set("reason", gap.gap().reason())
      .Set("message", Json::OrNull(gap.gap().message()))
      .Set("before", gap.has_before() ? ToJson(gap.before()) : Json())
      .Set("after", gap.has_after() ? ToJson(gap.after()) : Json());
  return item;
}

Json ToJson(const v1::GetStatusResponse& status) {
  Json alarms = Json::Array();
  for (const v1::Alarm& alarm : status.alarms()) alarms.Add(ToJson(alarm));
  Json result = Json::Object();
  // The first number is the one that counts: how old is the last state that is proven to be restorable.
  result.Set("oldest_proven_at", TimeJson(status.has_oldest_proven_at(), status.oldest_proven_at()))
      .Set("oldest_proven_database", Json::OrNull(status.oldest_proven_database()))
      .Set("databases_unproven", status.databases_unproven())
      .Set("devices", status.devices())
      .Set("devices_connected", status.devices_connected())
      .Set("databases", status.databases())
      .Set("databases_without_snapshot", status.databases_without_snapshot())
      .Set("snapshots", status.snapshots())
      .Set("oldest_newest_snapshot_at", TimeJson(status.has_oldest_newest_snapshot_at(), status.oldest_newest_snapshot_at()))
      .Set("oldest_newest_snapshot_database", Json::OrNull(status.oldest_newest_snapshot_database()))
      .Set("store_bytes", status.store_bytes())
      .Set("logical_bytes", status.logical_bytes())
      .Set("store_free_bytes", status.store_free_bytes())
      .Set("active_operations", status.active_operations())
      .Set("quarantined_chunks", status.quarantined_chunks())
      .Set("wanted_chunks", status.wanted_chunks())
      .Set("damaged_snapshots", status.damaged_snapshots())
      .Set("holds", status.holds())
      .Set("catalog_backup_at", TimeJson(status.has_catalog_backup_at(), status.catalog_backup_at()))
      .Set("alarms", std::move(alarms));
  return result;
}

}  // namespace litefleet::cli
