#include <sys/statvfs.h>

#include <algorithm>
#include <array>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/io/file.h"
#include "controller/catalog/chain_catalog.h"
#include "controller/catalog/device_origins.h"
#include "controller/catalog/gap_catalog.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/rpc/admin_handlers.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

using std::chrono::hours;
using std::chrono::minutes;

constexpr uint32_t kProtocolVersion = 1;
constexpr int kMaxHolds = 10'000;
constexpr size_t kMaxAlarms = 200;             // a screen, not a report; the gravest are kept
constexpr minutes kUnseenAfter{15};            // not connected and silent for longer
constexpr int64_t kClockOffMs = 60'000;        // more than this and times of snapshots mislead people
constexpr hours kCertificateWarning{24 * 14};  // renewal happens long before
constexpr hours kUnprovenAfter{24 * 7};
constexpr hours kChainAlarm{24 * 7};  // after the difference was noted
constexpr hours kRunWaits{24};        // a run that is due and waits for longer
constexpr hours kCloneAlarm{24};      // after it was noticed last; two that run are noticed at every call
constexpr int64_t kLowDiskBytes = int64_t{1} << 30;

// In the order of their gravity.
constexpr std::array<std::string_view, 19> kGravity = {"DEVICE_CLONED",  "STORE_DAMAGED",       "CHAIN_DIFFERS",   "DISK_LOW",
                                                       "QUOTA_EXCEEDED", "SNAPSHOT_DAMAGED",    "BACKUP_FAILED",   "NEVER_BACKED_UP",
                                                       "COVERAGE_GAP",   "SOURCE_DAMAGED",      "DEVICE_NOT_SEEN", "RUN_WAITS",
                                                       "UNPROVEN",       "CHAIN_UNCHECKED",     "EXPORT_FAILED",   "CATALOG_BACKUP",
                                                       "RETENTION_HELD", "CERTIFICATE_EXPIRES", "CLOCK_OFF"};

std::string Age(std::chrono::seconds age) {
  if (age >= hours(48)) return fmt::format("{} days", age / hours(24));
  if (age >= hours(2)) return fmt::format("{} hours", age / hours(1));
  if (age >= minutes(2)) return fmt::format("{} minutes", age / minutes(1));
  return fmt::format("{} s", age.count());
}

std::chrono::seconds Since(const google::protobuf::Timestamp& then, SystemTime now) {
  return std::chrono::duration_cast<std::chrono::seconds>(now - FromProtoTime(then));
}

class AlarmList {
 public:
  void Add(std::string_view reason, std::string_view subject, std::string_view message) {
    v1::Alarm alarm;
    alarm.set_reason(std::string(reason));
    alarm.set_subject(std::string(subject));
    alarm.set_message(std::string(message));
    alarms_.push_back(std::move(alarm));
  }
  void MoveTo(v1::GetStatusResponse& response) {
    const auto rank = [](const v1::Alarm& alarm) { return std::find(kGravity.begin(), kGravity.end(), alarm.reason()) - kGravity.begin(); };
    std::stable_sort(alarms_.begin(), alarms_.end(), [&](const v1::Alarm& a, const v1::Alarm& b) { return rank(a) < rank(b); });
    const size_t left_out = alarms_.size() > kMaxAlarms ? alarms_.size() - kMaxAlarms : 0;
    alarms_.resize(alarms_.size() - left_out);
    for (v1::Alarm& alarm : alarms_) *response.add_alarms() = std::move(alarm);
    if (left_out != 0) {
      v1::Alarm* more = response.add_alarms();
      more->set_reason("MORE_ALARMS");
      more->set_message(fmt::format("and {} more of lesser weight", left_out));
    }
  }

 private:
  std::vector<v1::Alarm> alarms_;
};

void LookAtDevice(const v1::Device& device, SystemTime now, AlarmList& alarms) {
  if (device.state() != v1::DEVICE_STATE_ACTIVE) return;
  if (!device.connected()) {
    const bool seen = device.has_last_seen_at();
    const std::chrono::seconds silent = Since(seen ? device.last_seen_at() : device.enrolled_at(), now);
    if (silent > kUnseenAfter) {
      alarms.Add("DEVICE_NOT_SEEN", device.name(),
                 seen ? fmt::format("not seen for {}", Age(silent)) : fmt::format("enrolled {} ago and never connected", Age(silent)));
    }
  }
  if (device.connected() && std::abs(device.clock_offset_ms()) > kClockOffMs) {
    alarms.Add("CLOCK_OFF", device.name(),
               fmt::format("its clock is {} {}", Age(std::chrono::seconds(std::abs(device.clock_offset_ms()) / 1000)),
                           device.clock_offset_ms() > 0 ? "behind" : "ahead"));
  }
  if (device.has_certificate_expires_at()) {
    const std::chrono::seconds left = -Since(device.certificate_expires_at(), now);
    if (left < std::chrono::seconds(0)) {
      alarms.Add("CERTIFICATE_EXPIRES", device.name(),
                 fmt::format("its certificate expired {} ago; it renews itself when it connects", Age(-left)));
    } else if (left < kCertificateWarning) {
      alarms.Add("CERTIFICATE_EXPIRES", device.name(), fmt::format("its certificate expires in {} and was not renewed", Age(left)));
    }
  }
}

// SQLite has up to twenty findings, of which an alarm needs the first; `snapshot show` has them all.
std::string Beginning(std::string_view words) {
  constexpr size_t kMost = 200;
  if (words.size() <= kMost) return std::string(words);
  const size_t end = words.rfind("; ", kMost);
  return CleanUtf8(words, end == std::string_view::npos ? kMost : end) + "; ...";
}

void LookAtDatabase(const v1::Database& database, SystemTime now, AlarmList& alarms) {
  const std::string subject = fmt::format("{}/{}", database.device_name(), database.name());
  const v1::DatabaseHealth& health = database.health();
  if (health.has_last_error()) {
    alarms.Add("BACKUP_FAILED", subject,
               fmt::format("{}: {} ({})", health.present() || health.has_last_run_at() ? "the last run failed" : "it cannot be read",
                           health.last_error().message(), health.last_error().info().reason()));
  }
  const std::chrono::seconds waits = health.has_waits_since() ? Since(health.waits_since(), now) : std::chrono::seconds(0);
  if (!database.has_newest_snapshot()) {
    if (!health.has_last_error()) {
      alarms.Add(
          "NEVER_BACKED_UP", subject,
          database.snapshots() > 0    ? "there is no snapshot of all of it that a device made: what there is holds a part, or was imported"
          : health.schedule().empty() ? "there is no snapshot, and it has no schedule"
          : !health.waits_for().empty() ? fmt::format("there is no snapshot yet, and the run that is due waits: {}", health.waits_for())
                                        : "there is no snapshot yet");
    }
    return;
  }
  if (waits > kRunWaits)
    alarms.Add("RUN_WAITS", subject, fmt::format("the run that is due waits since {}: {}", Age(waits), health.waits_for()));
  if (health.capture().has_chain_overdue_since()) {
    alarms.Add("CHAIN_UNCHECKED", subject,
               fmt::format("what was captured could not be compared with all of the database since it was due, {} ago",
                           Age(Since(health.capture().chain_overdue_since(), now))));
  }
  const v1::Snapshot& newest = database.newest_snapshot();
  if (newest.state() == v1::SNAPSHOT_STATE_DAMAGED) {
    alarms.Add("SNAPSHOT_DAMAGED", subject, fmt::format("the store lost parts of its newest snapshot {}", newest.id()));
  }
  if (newest.source_check() == v1::CHECK_STATE_DAMAGED || newest.check() == v1::CHECK_STATE_DAMAGED) {
    const std::string& words = newest.source_check_message().empty() ? newest.check_message() : newest.source_check_message();
    alarms.Add("SOURCE_DAMAGED", subject, fmt::format("its newest snapshot {} has damage: {}", newest.id(), Beginning(words)));
  }
  if (!database.has_newest_proven_at()) {
    const std::chrono::seconds age = Since(newest.received_at(), now);
    if (newest.check() != v1::CHECK_STATE_PENDING || age > hours(1)) alarms.Add("UNPROVEN", subject, "no snapshot of it was ever proven");
  } else if (const std::chrono::seconds age = Since(database.newest_proven_at(), now); age > kUnprovenAfter) {
    alarms.Add("UNPROVEN", subject, fmt::format("its newest proven snapshot is {} old", Age(age)));
  }
}

// Two schedules late, and some: one that takes its time is no alarm.
void LookAtCatalogBackups(const v1::CatalogBackups& backups, SystemTime now, AlarmList& alarms) {
  const auto every = std::chrono::seconds(backups.every().seconds());
  if (!backups.last_error().empty()) {
    alarms.Add("CATALOG_BACKUP", "", fmt::format("the catalog could not be backed up: {}", backups.last_error()));
  } else if (backups.has_newest_at() && Since(backups.newest_at(), now) > 2 * every + hours(1)) {
    alarms.Add("CATALOG_BACKUP", "", fmt::format("the newest backup of the catalog is {} old", Age(Since(backups.newest_at(), now))));
  }
}

}  // namespace

absl::StatusOr<v1::GetVersionResponse> AdminHandlers::GetVersion(const v1::GetVersionRequest&) const {
  v1::GetVersionResponse response;
  response.set_version(LITEFLEET_VERSION);
  response.set_sqlite_version(catalog::CatalogDb::SqliteVersion());
  response.set_protocol_version(kProtocolVersion);
  return response;
}

absl::StatusOr<Damage> AdminHandlers::GetDamage() const {
  Damage damage;
  LF_ASSIGN_OR_RETURN(const catalog::ScrubCatalog::Figures scrub, catalog::ScrubCatalog(*deps_.catalog).GetFigures());
  LF_ASSIGN_OR_RETURN(const catalog::HealCatalog::Figures heal, catalog::HealCatalog(*deps_.catalog).GetFigures());
  damage.quarantined_chunks = scrub.quarantined_chunks;
  damage.damaged_snapshots = scrub.damaged_snapshots;
  damage.wanted_chunks = heal.wanted;
  if (deps_.policies == nullptr || deps_.time == nullptr) return damage;
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::HoldRow> holds, deps_.policies->Holds(kMaxHolds, 0));
  LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading time, deps_.time->Tick());
  damage.holds = static_cast<int32_t>(holds.size()) + (time.hold.empty() ? 0 : 1);
  return damage;
}

absl::StatusOr<v1::GetStatusResponse> AdminHandlers::GetStatus(const v1::GetStatusRequest&) const {
  v1::GetStatusResponse response;
  const SystemTime now = deps_.clock->Now();
  LF_ASSIGN_OR_RETURN(const catalog::SnapshotCatalog::Totals totals, deps_.snapshots->GetTotals());
  response.set_databases(static_cast<int32_t>(totals.databases));
  response.set_databases_without_snapshot(static_cast<int32_t>(totals.databases_without_snapshot));
  response.set_databases_unproven(static_cast<int32_t>(totals.databases_unproven));
  response.set_snapshots(totals.snapshots);
  response.set_store_bytes(totals.store_bytes);
  response.set_logical_bytes(totals.logical_bytes);
  if (totals.oldest_newest_at.has_value()) *response.mutable_oldest_newest_snapshot_at() = ToProtoTime(*totals.oldest_newest_at);
  response.set_oldest_newest_snapshot_database(totals.oldest_newest_database);
  if (totals.oldest_proven_at.has_value()) *response.mutable_oldest_proven_at() = ToProtoTime(*totals.oldest_proven_at);
  response.set_oldest_proven_database(totals.oldest_proven_database);

  AlarmList alarms;
  LF_ASSIGN_OR_RETURN(const Damage damage, GetDamage());
  response.set_quarantined_chunks(damage.quarantined_chunks);
  response.set_wanted_chunks(damage.wanted_chunks);
  response.set_damaged_snapshots(damage.damaged_snapshots);
  response.set_holds(damage.holds);
  if (damage.wanted_chunks > 0 || damage.damaged_snapshots > 0) {
    alarms.Add("STORE_DAMAGED", "",
               fmt::format("{} chunks of the store are damaged, {} snapshots need one of them; devices are asked for {} of the chunks, the "
                           "others no device has any more",
                           damage.quarantined_chunks, damage.damaged_snapshots, damage.wanted_chunks));
  }
  if (damage.holds > 0) {
    alarms.Add("RETENTION_HELD", "", fmt::format("retention waits for an operator in {} places: litefleet store hold list", damage.holds));
  }
  if (deps_.backups != nullptr) {
    if (const auto backups = GetCatalogBackups(); backups.ok()) {
      if (backups->has_newest_at()) *response.mutable_catalog_backup_at() = backups->newest_at();
      LookAtCatalogBackups(*backups, now, alarms);
    } else {
      alarms.Add("CATALOG_BACKUP", "", fmt::format("the backups of the catalog cannot be read: {}", MessageOf(backups.status())));
    }
  }
  if (deps_.alarms) {
    for (const v1::Alarm& alarm : deps_.alarms()) alarms.Add(alarm.reason(), alarm.subject(), alarm.message());
  }
  struct statvfs space = {};
  if (statvfs(deps_.data_directory.c_str(), &space) == 0) {
    const auto unit = static_cast<int64_t>(space.f_frsize);
    const int64_t free = static_cast<int64_t>(space.f_bavail) * unit;
    response.set_store_free_bytes(free);
    if (free < kLowDiskBytes || free < static_cast<int64_t>(space.f_blocks) * unit / 20) {
      alarms.Add("DISK_LOW", "", fmt::format("{} MiB are free where the store is", free >> 20));
    }
  }
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::ClonedDevice> clones,
                      catalog::ListClones(*deps_.catalog, now - kCloneAlarm, static_cast<int>(kMaxAlarms)));
  for (const catalog::ClonedDevice& clone : clones) {
    alarms.Add("DEVICE_CLONED", clone.name,
               fmt::format("two agents use its identity by turns, {}: take the copy off, then enrol the device anew with a token of "
                           "`litefleet token create --for-device {}`",
                           clone.facts, clone.name));
  }
  LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Gap> gaps,
                      catalog::GapCatalog(*deps_.catalog).List(DeviceId(), "", true, static_cast<int>(kMaxAlarms), ""));
  for (const v1::Gap& gap : gaps.items) {
    alarms.Add("COVERAGE_GAP", fmt::format("{}/{}", gap.device_name(), gap.gap().database()),
               fmt::format("no states since {} ago: {} ({})", Age(Since(gap.gap().from(), now)), gap.gap().message(), gap.gap().reason()));
  }
  catalog::GapCatalog all_gaps(*deps_.catalog);
  LF_ASSIGN_OR_RETURN(const std::vector<v1::Gap> questioned,
                      catalog::ChainCatalog(*deps_.catalog, all_gaps).InQuestion(now - kChainAlarm, static_cast<int>(kMaxAlarms)));
  for (const v1::Gap& gap : questioned) {
    alarms.Add("CHAIN_DIFFERS", fmt::format("{}/{}", gap.device_name(), gap.gap().database()),
               fmt::format("its snapshots between {} and {} ago are in question: {}", Age(Since(gap.gap().from(), now)),
                           Age(Since(gap.gap().until(), now)), gap.gap().message()));
  }
  std::string token;
  int32_t devices = 0;
  int32_t connected = 0;
  do {
    LF_ASSIGN_OR_RETURN(catalog::Page<v1::Device> page, deps_.identities->ListDevices("", 1000, token));
    for (v1::Device& device : page.items) {
      Complete(device);
      if (device.state() == v1::DEVICE_STATE_ACTIVE) ++devices;
      if (device.connected()) ++connected;
      LookAtDevice(device, now, alarms);
      if (deps_.quotas == nullptr || device.state() != v1::DEVICE_STATE_ACTIVE) continue;
      if (const absl::Status room = deps_.quotas->Check(DeviceId(device.id()), /*goes_on=*/false); ReasonOf(room) == "QUOTA_EXCEEDED")
        alarms.Add("QUOTA_EXCEEDED", device.name(), fmt::format("uploads are refused: {}", MessageOf(room)));
    }
    token = page.next_token;
  } while (!token.empty());
  response.set_devices(devices);
  response.set_devices_connected(connected);
  do {
    LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Database> page, deps_.snapshots->ListDatabases(DeviceId(), std::nullopt, 1000, token));
    for (const v1::Database& database : page.items) LookAtDatabase(database, now, alarms);
    token = page.next_token;
  } while (!token.empty());
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::OperationRow> active, deps_.operations->ActiveOf(DeviceId()));
  response.set_active_operations(static_cast<int32_t>(active.size()));
  alarms.MoveTo(response);
  return response;
}

}  // namespace litefleet::rpc
