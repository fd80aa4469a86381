// The controller's figures for Prometheus, put together when they are asked for.
//
// Gauges come from the catalog, the fleet and the store as they are at that moment; counters count from the start of the process.
// Ages are measured by the controller's clock; a database without any (proven) snapshot has the age +Inf, so that an alert on old ones
// finds it too. Labels are bounded: databases by Options::max_databases (the rest is only counted), reasons by kMaxReasons.
//
// Thread safety: Collect may be called from any thread. Blocks for reads of the catalog. Ownership: borrows what Sources names.
// Source: https://prometheus.io/docs/practices/naming/
#ifndef LITEFLEET_CONTROLLER_METRICS_FLEET_METRICS_H_
#define LITEFLEET_CONTROLLER_METRICS_FLEET_METRICS_H_

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/metrics_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/fleet/fleet.h"
#include "controller/store/store.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace litefleet::metrics {

struct Sources {
  catalog::CatalogDb* db = nullptr;
  catalog::IdentityCatalog* identities = nullptr;
  catalog::SnapshotCatalog* snapshots = nullptr;
  fleet::Fleet* fleet = nullptr;
  store::Store* store = nullptr;
  const Clock* clock = nullptr;
  struct Damage {
    int64_t quarantined_chunks = 0;
    int64_t wanted_chunks = 0;
    int64_t damaged_snapshots = 0;
    int64_t holds = 0;
  };
  std::function<absl::StatusOr<Damage>()> damage = {};  // may be empty
};

class FleetMetrics final : public prometheus::Collectable {
 public:
  static constexpr size_t kMaxReasons = 100;  // further ones are counted as OTHER
  static constexpr std::array<double, 9> kSecondsBounds = {0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200};

  static absl::StatusOr<std::shared_ptr<FleetMetrics>> Create(const Sources& sources, int64_t max_databases);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  using Pair = std::pair<std::string, std::string>;
  struct Durations {
    std::array<uint64_t, kSecondsBounds.size()> cumulative{};
    uint64_t count = 0;
    double seconds = 0;
  };

  FleetMetrics(const Sources& sources, int64_t max_databases) : sources_(sources), max_databases_(max_databases), news_(*sources.db) {}

  absl::Status Count() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddCounters(std::vector<prometheus::MetricFamily>& out) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status AddDatabases(std::vector<prometheus::MetricFamily>& out) const;
  absl::Status AddDevices(std::vector<prometheus::MetricFamily>& out) const;
  absl::Status AddDamage(std::vector<prometheus::MetricFamily>& out) const;
  absl::Status AddStore(std::vector<prometheus::MetricFamily>& out) const;

  const Sources sources_;
  const int64_t max_databases_;

  // Collect is const by its interface; what it remembers is behind the lock, which is held for reads of the catalog: nobody else waits
  // for it but another scrape.
  mutable Mutex mu_;
  mutable catalog::MetricsCatalog news_ ABSL_GUARDED_BY(mu_);
  mutable std::map<Pair, uint64_t> ended_ ABSL_GUARDED_BY(mu_);     // kind, state
  mutable std::map<Pair, uint64_t> failures_ ABSL_GUARDED_BY(mu_);  // kind, reason
  mutable std::map<std::string, Durations> durations_ ABSL_GUARDED_BY(mu_);
  mutable std::map<std::string, catalog::SnapshotSums> snapshots_ ABSL_GUARDED_BY(mu_);
  mutable uint64_t errors_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace litefleet::metrics

#endif  // LITEFLEET_CONTROLLER_METRICS_FLEET_METRICS_H_
