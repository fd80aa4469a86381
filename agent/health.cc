#include "agent/health.h"

#include "agent/backup_source.h"

#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/utsname.h>

#include <cerrno>

#include "common/base/error_detail.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/io/real_path.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr uint32_t kProtocolVersion = 1;

google::protobuf::Duration Uptime(const Clock& clock) {
  return ToProtoDuration(std::chrono::duration_cast<std::chrono::milliseconds>(clock.SinceBoot()));
}

std::string Platform() {
  struct utsname name {};
  if (uname(&name) != 0) return "unknown";
  return fmt::format("{} {} {}", name.sysname, name.release, name.machine);
}

// Why the database that is there cannot be read; OK also where there is none. The reasons are those of a backup.
absl::Status Unreadable(const std::string& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return errno == ENOENT || errno == ENOTDIR ? absl::OkStatus() : ErrnoError(errno, "look at " + path);
  if (S_ISREG(st.st_mode)) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "NOT_REGULAR_FILE",
               fmt::format("{} is {}", path, S_ISDIR(st.st_mode) ? "a directory" : "no regular file"), "name the database file itself");
}

int64_t SizeOf(const std::string& path, bool* present = nullptr) {
  struct stat st {};
  const bool is_file = stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
  if (present != nullptr) *present = is_file;
  return is_file ? static_cast<int64_t>(st.st_size) : 0;
}

}  // namespace

v1::DatabaseHealth DeviceHealth::Look(const config::DatabaseConfig& database) const {
  v1::DatabaseHealth health;
  health.set_name(database.name);
  health.set_path(database.path);
  bool present = false;
  health.set_size_bytes(SizeOf(database.path, &present));
  if (struct stat root{}; database.files && stat(database.path.c_str(), &root) == 0) present = S_ISDIR(root.st_mode);
  health.set_present(present);
  bool wal = false;
  health.set_wal_bytes(SizeOf(io::RealPathOr(database.path) + "-wal", &wal));
  if (const auto free = io::FreeBytes(io::DirectoryOf(database.path)); free.ok()) health.set_free_bytes(static_cast<int64_t>(*free));
  health.set_method(database.method == "continuous" ? v1::METHOD_CONTINUOUS : MethodOf(database));
  health.set_schedule(database.schedule.text());
  if (const auto kept = state_.ReadDatabase(database.name); kept.ok()) {
    health.set_journal_mode(static_cast<v1::JournalMode>(kept->journal_mode()));
    if (kept->last_run_at_ms() != 0) *health.mutable_last_run_at() = MillisTimestamp(kept->last_run_at_ms());
    if (kept->last_success_at_ms() != 0) *health.mutable_last_success_at() = MillisTimestamp(kept->last_success_at_ms());
    health.set_last_snapshot_id(kept->last_snapshot_id());
    if (kept->unchanged_at_ms() != 0) *health.mutable_unchanged_at() = MillisTimestamp(kept->unchanged_at_ms());
    if (!kept->last_error().empty()) {
      v1::ErrorDetail error;
      if (error.ParseFromString(kept->last_error())) *health.mutable_last_error() = error;
    }
  }
  if (const absl::Status why = present ? absl::OkStatus() : Unreadable(database.path); !why.ok())
    *health.mutable_last_error() = ToErrorDetail(why);
  const spool::SnapshotSpool::Usage spooled = spool_.UsageOf(database.name);
  health.set_spooled_snapshots(spooled.snapshots);
  health.set_spooled_bytes(spooled.bytes);
  // A schedule that was taken away keeps nothing back.
  if (const auto waits = database.schedule.kind() == config::Schedule::Kind::kNever ? std::nullopt : waiting_(database.name);
      waits.has_value()) {
    health.set_waits_for(waits->phrase);
    *health.mutable_waits_since() = ToProtoTime(waits->since);
  }
  if (wal) health.set_journal_mode(v1::JOURNAL_MODE_WAL);
  if (const auto capture = capture_.StatusOf(database.name); capture.has_value()) {
    *health.mutable_capture() = capture->health;
    if (!capture->snapshot_id.empty()) {
      health.set_last_snapshot_id(capture->snapshot_id);
      *health.mutable_last_success_at() = capture->health.last_sync_at();
      *health.mutable_last_run_at() = capture->health.last_sync_at();
      // Whatever a run by the schedule left: this is newer.
      health.clear_last_error();
      if (capture->unchanged_at.has_value() && capture->health.state() == v1::CAPTURE_STATE_FOLLOWING)
        *health.mutable_unchanged_at() = ToProtoTime(*capture->unchanged_at);
    }
  }
  return health;
}

v1::Hello DeviceHealth::MakeHello() {
  const std::shared_ptr<const config::AgentConfig> config = policy_.Config();
  v1::Hello hello;
  hello.set_protocol_version(kProtocolVersion);
  for (const char* feature : {"online", "file", "dump", "restore-new", "restore-live", "restore-replace", "heal", "continuous", "files"})
    hello.add_features(feature);
  hello.set_agent_version(LITEFLEET_VERSION);
  hello.set_sqlite_version(sqlite3_libversion());
  hello.set_platform(Platform());
  *hello.mutable_device_time() = ToProtoTime(clock_.Now());
  *hello.mutable_uptime() = Uptime(clock_);
  hello.set_boot_id(boot_id_);
  hello.set_instance_id(instance_id_);
  for (const config::DatabaseConfig& database : config->databases) *hello.add_databases() = Look(database);
  for (const std::string& id : active_()) hello.add_active_operation_ids(id);
  hello.set_policy_version(policy_.version());
  for (const std::string& problem : policy_.problems()) hello.add_policy_problems(problem);
  return hello;
}

v1::Health DeviceHealth::MakeHealth() {
  const std::shared_ptr<const config::AgentConfig> config = policy_.Config();
  v1::Health health;
  *health.mutable_device_time() = ToProtoTime(clock_.Now());
  *health.mutable_uptime() = Uptime(clock_);
  if (const auto free = io::FreeBytes(state_.path()); free.ok()) health.set_free_bytes(static_cast<int64_t>(*free));
  health.set_policy_version(policy_.version());
  for (const std::string& problem : policy_.problems()) health.add_policy_problems(problem);
  for (const config::DatabaseConfig& database : config->databases) *health.add_databases() = Look(database);
  return health;
}

void DeviceHealth::SnapshotGone(const std::string& database, const std::string& snapshot_id) {
  if (policy_.Config()->Find(database) == nullptr) return;
  if (snapshot_id.empty()) return;
  auto kept = state_.ReadDatabase(database);
  const bool is_kept = kept.ok() && kept->last_snapshot_id() == snapshot_id;
  // Of a database that has been at rest since the start it is the kept one that counts.
  if (const auto capture = capture_.StatusOf(database);
      capture.has_value() && (capture->snapshot_id == snapshot_id || (capture->snapshot_id.empty() && is_kept))) {
    capture_.CompareAgain(database);
  }
  if (!is_kept) return;
  kept->clear_last_snapshot_id();
  kept->clear_unchanged_at_ms();
  // The ledger stands for it still, and spares a backup that can ask the controller most of its pages.
  kept->set_gone_snapshot_id(snapshot_id);
  const absl::Status written = state_.WriteDatabase(*kept);
  if (written.ok()) {
    spdlog::warn("{}: the controller cannot restore snapshot {} any more; the next backup makes a new one", database, snapshot_id);
  } else {
    spdlog::error("{}: that snapshot {} is gone could not be written: {}", database, snapshot_id, MessageOf(written));
  }
}

}  // namespace litefleet
