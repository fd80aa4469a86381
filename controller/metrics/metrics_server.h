// Answers GET /metrics over HTTP for Prometheus, without authentication: listen on the loopback address, or behind a proxy.
//
// Threads: two of its own. Thread safety: one thread starts and ends it. Ownership: shares the metrics with requests that are going on;
// they have ended when the destructor returns. Errors: kFailedPrecondition METRICS_NOT_SERVED.
// Source: Debian's prometheus-cpp, which has civetweb in it.
#ifndef LITEFLEET_CONTROLLER_METRICS_METRICS_SERVER_H_
#define LITEFLEET_CONTROLLER_METRICS_METRICS_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "controller/metrics/fleet_metrics.h"

namespace litefleet::metrics {

class MetricsServer {
 public:
  // `listen` is HOST:PORT with an address of this machine; port 0 takes a free one.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& listen, std::shared_ptr<FleetMetrics> metrics);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;
  MetricsServer& operator=(const MetricsServer&) = delete;

  int port() const;

 private:
  struct Parts;
  explicit MetricsServer(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace litefleet::metrics

#endif  // LITEFLEET_CONTROLLER_METRICS_METRICS_SERVER_H_
