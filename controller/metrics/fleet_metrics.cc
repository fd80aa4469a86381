#include "controller/metrics/fleet_metrics.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "common/base/proto_time.h"
#include "common/base/status.h"

namespace litefleet::metrics {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

constexpr int kPage = 1000;
constexpr double kMillis = 1000.0;

std::string Lower(std::string_view name, std::string_view prefix) {
  if (name.substr(0, prefix.size()) == prefix) name.remove_prefix(prefix.size());
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  return lower;
}
std::string Word(v1::OperationKind kind) { return Lower(v1::OperationKind_Name(kind), "OPERATION_KIND_"); }
std::string Word(v1::OperationState state) { return Lower(v1::OperationState_Name(state), "OPERATION_STATE_"); }
std::string Word(v1::Method method) { return Lower(v1::Method_Name(method), "METHOD_"); }

MetricFamily Family(std::string name, MetricType type, std::string help) {
  MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  return family;
}

void Add(MetricFamily& family, Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

MetricFamily One(std::string name, std::string help, double value, MetricType type = MetricType::Gauge) {
  MetricFamily family = Family(std::move(name), type, std::move(help));
  Add(family, {}, value);
  return family;
}

double AgeSeconds(const google::protobuf::Timestamp& then, SystemTime now) {
  return std::chrono::duration<double>(now - FromProtoTime(then)).count();
}

}  // namespace

absl::StatusOr<std::shared_ptr<FleetMetrics>> FleetMetrics::Create(const Sources& sources, int64_t max_databases) {
  std::shared_ptr<FleetMetrics> made(new FleetMetrics(sources, max_databases));
  const MutexLock lock(made->mu_);
  LF_RETURN_IF_ERROR(made->news_.Begin());
  return made;
}

absl::Status FleetMetrics::Count() const {
  LF_ASSIGN_OR_RETURN(const std::vector<v1::Operation> operations, news_.NewlyEnded());
  for (const v1::Operation& operation : operations) {
    const std::string kind = Word(operation.kind());
    ++ended_[{kind, Word(operation.state())}];
    if (const std::string& reason = operation.error().info().reason(); !reason.empty()) {
      const bool room = failures_.size() < kMaxReasons || failures_.count({kind, reason}) != 0;
      ++failures_[{kind, room ? reason : "OTHER"}];
    }
    if (!operation.has_started_at() || !operation.has_ended_at()) continue;
    const double seconds =
        std::max(0.0, std::chrono::duration<double>(FromProtoTime(operation.ended_at()) - FromProtoTime(operation.started_at())).count());
    Durations& durations = durations_[kind];
    for (size_t i = 0; i < kSecondsBounds.size(); ++i) durations.cumulative[i] += seconds <= kSecondsBounds[i] ? 1 : 0;
    ++durations.count;
    durations.seconds += seconds;
  }
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::SnapshotSums> sums, news_.NewSnapshots());
  for (const catalog::SnapshotSums& one : sums) {
    catalog::SnapshotSums& all = snapshots_[Word(one.method)];
    all.snapshots += one.snapshots;
    all.read_bytes += one.read_bytes;
    all.wire_bytes += one.wire_bytes;
    all.stored_bytes += one.stored_bytes;
    all.duration_ms += one.duration_ms;
  }
  return absl::OkStatus();
}

void FleetMetrics::AddCounters(std::vector<MetricFamily>& out) const {
  MetricFamily ended = Family("litefleet_operations_total", MetricType::Counter, "Operations that ended, by kind and state.");
  for (const auto& [key, count] : ended_) Add(ended, {{"kind", key.first}, {"state", key.second}}, static_cast<double>(count));
  MetricFamily failures =
      Family("litefleet_operation_failures_total", MetricType::Counter, "Operations that ended with an error, by kind and reason.");
  for (const auto& [key, count] : failures_) Add(failures, {{"kind", key.first}, {"reason", key.second}}, static_cast<double>(count));
  MetricFamily durations =
      Family("litefleet_operation_duration_seconds", MetricType::Histogram, "From start to end of an operation, by kind.");
  for (const auto& [kind, of_kind] : durations_) {
    ClientMetric metric;
    metric.label = {{"kind", kind}};
    metric.histogram.sample_count = of_kind.count;
    metric.histogram.sample_sum = of_kind.seconds;
    for (size_t i = 0; i < kSecondsBounds.size(); ++i) metric.histogram.bucket.push_back({of_kind.cumulative[i], kSecondsBounds[i]});
    metric.histogram.bucket.push_back({of_kind.count, std::numeric_limits<double>::infinity()});
    durations.metric.push_back(std::move(metric));
  }
  MetricFamily snapshots = Family("litefleet_snapshots_committed_total", MetricType::Counter, "Snapshots committed, by method.");
  MetricFamily read =
      Family("litefleet_snapshot_read_bytes_total", MetricType::Counter, "Read from databases by devices for committed snapshots.");
  MetricFamily sent = Family("litefleet_snapshot_sent_bytes_total", MetricType::Counter, "Sent by devices for committed snapshots.");
  MetricFamily stored =
      Family("litefleet_snapshot_stored_bytes_total", MetricType::Counter, "What the store grew by for committed snapshots.");
  MetricFamily seconds = Family("litefleet_snapshot_duration_seconds_total", MetricType::Counter, "Time that committed snapshots took.");
  for (const auto& [method, sums] : snapshots_) {
    const Labels labels = {{"method", method}};
    Add(snapshots, labels, static_cast<double>(sums.snapshots));
    Add(read, labels, static_cast<double>(sums.read_bytes));
    Add(sent, labels, static_cast<double>(sums.wire_bytes));
    Add(stored, labels, static_cast<double>(sums.stored_bytes));
    Add(seconds, labels, static_cast<double>(sums.duration_ms) / kMillis);
  }
  for (MetricFamily* family : {&ended, &failures, &durations, &snapshots, &read, &sent, &stored, &seconds})
    out.push_back(std::move(*family));
}

absl::Status FleetMetrics::AddDatabases(std::vector<MetricFamily>& out) const {
  constexpr double kNever = std::numeric_limits<double>::infinity();
  const SystemTime now = sources_.clock->Now();
  MetricFamily newest =
      Family("litefleet_database_newest_snapshot_age_seconds", MetricType::Gauge, "Age of the newest committed snapshot; +Inf: none.");
  MetricFamily proven =
      Family("litefleet_database_newest_proven_age_seconds", MetricType::Gauge, "Age of the newest proven snapshot; +Inf: none.");
  int64_t databases = 0;
  std::string token;
  do {
    LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Database> page, sources_.snapshots->ListDatabases(DeviceId(), std::nullopt, kPage, token));
    for (const v1::Database& database : page.items) {
      if (++databases > max_databases_) continue;
      const Labels labels = {{"device", database.device_name()}, {"database", database.name()}};
      Add(newest, labels, database.has_newest_snapshot() ? AgeSeconds(database.newest_snapshot().taken_at(), now) : kNever);
      Add(proven, labels, database.has_newest_proven_at() ? AgeSeconds(database.newest_proven_at(), now) : kNever);
    }
    token = page.next_token;
  } while (!token.empty());
  out.push_back(std::move(newest));
  out.push_back(std::move(proven));
  out.push_back(One("litefleet_databases", "Databases that are known.", static_cast<double>(databases)));
  out.push_back(One("litefleet_databases_left_out", "Databases beyond [metrics] databases: their ages are not exported.",
                    static_cast<double>(std::max<int64_t>(0, databases - max_databases_))));
  return absl::OkStatus();
}

absl::Status FleetMetrics::AddDevices(std::vector<MetricFamily>& out) const {
  int64_t active = 0;
  int64_t revoked = 0;
  std::string token;
  do {
    LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Device> page, sources_.identities->ListDevices("", kPage, token));
    for (const v1::Device& device : page.items) ++(device.state() == v1::DEVICE_STATE_ACTIVE ? active : revoked);
    token = page.next_token;
  } while (!token.empty());
  MetricFamily devices = Family("litefleet_devices", MetricType::Gauge, "Devices that are enrolled, by state.");
  Add(devices, {{"state", "active"}}, static_cast<double>(active));
  Add(devices, {{"state", "revoked"}}, static_cast<double>(revoked));
  out.push_back(std::move(devices));
  out.push_back(One("litefleet_devices_connected", "Agents that are connected now.", sources_.fleet->ConnectedCount()));
  return absl::OkStatus();
}

absl::Status FleetMetrics::AddStore(std::vector<MetricFamily>& out) const {
  LF_ASSIGN_OR_RETURN(const store::StoreStats stats, sources_.store->Stats());
  out.push_back(One("litefleet_store_bytes", "Size of all packs.", static_cast<double>(stats.stored_bytes)));
  out.push_back(One("litefleet_store_packs", "Number of packs.", static_cast<double>(stats.packs)));
  out.push_back(One("litefleet_store_free_bytes", "Free space where the store is.", static_cast<double>(stats.free_bytes)));
  out.push_back(
      One("litefleet_store_reserve_bytes", "Free space below which uploads are refused.", static_cast<double>(stats.reserve_bytes)));
  out.push_back(One("litefleet_store_problems", "Packs left alone, and failures of the store since the start.",
                    static_cast<double>(stats.problems.size())));
  return absl::OkStatus();
}

absl::Status FleetMetrics::AddDamage(std::vector<MetricFamily>& out) const {
  LF_ASSIGN_OR_RETURN(const catalog::SnapshotCatalog::Totals totals, sources_.snapshots->GetTotals());
  const double never = totals.databases > 0 ? std::numeric_limits<double>::infinity() : 0;
  const bool all = totals.databases_unproven == 0 && totals.oldest_proven_at.has_value();
  const std::chrono::duration<double> age = sources_.clock->Now() - totals.oldest_proven_at.value_or(sources_.clock->Now());
  out.push_back(One("litefleet_oldest_proven_age_seconds",
                    "Age of the last snapshot proven to be restorable, of the database where it is oldest; +Inf: some database has none.",
                    all ? age.count() : never));
  out.push_back(One("litefleet_databases_unproven", "Databases without any snapshot that is proven to be restorable.",
                    static_cast<double>(totals.databases_unproven)));
  if (!sources_.damage) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const Sources::Damage damage, sources_.damage());
  out.push_back(One("litefleet_store_quarantined_chunks", "Chunks of the store that are not what they were.",
                    static_cast<double>(damage.quarantined_chunks)));
  out.push_back(One("litefleet_store_wanted_chunks", "Of the quarantined chunks those that devices are asked for.",
                    static_cast<double>(damage.wanted_chunks)));
  out.push_back(
      One("litefleet_snapshots_damaged", "Snapshots that need a quarantined chunk.", static_cast<double>(damage.damaged_snapshots)));
  out.push_back(One("litefleet_retention_holds", "Places in which retention waits for an operator.", static_cast<double>(damage.holds)));
  return absl::OkStatus();
}

std::vector<MetricFamily> FleetMetrics::Collect() const {
  std::vector<MetricFamily> out;
  MetricFamily build = Family("litefleet_build_info", MetricType::Gauge, "Always 1; the version is a label.");
  Add(build, {{"version", LITEFLEET_VERSION}}, 1);
  out.push_back(std::move(build));
  // What cannot be read is missing, counted, and alerted on; the rest is shown all the same.
  uint64_t failed = 0;
  for (const absl::Status& status : {AddDatabases(out), AddDevices(out), AddStore(out), AddDamage(out)}) failed += status.ok() ? 0 : 1;
  const MutexLock lock(mu_);
  failed += Count().ok() ? 0 : 1;
  AddCounters(out);
  errors_ += failed;
  out.push_back(One("litefleet_metrics_errors_total", "Parts of these figures that could not be read.", static_cast<double>(errors_),
                    MetricType::Counter));
  return out;
}

}  // namespace litefleet::metrics
