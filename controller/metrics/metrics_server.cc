#include "controller/metrics/metrics_server.h"

#include <exception>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "fmt/format.h"
#include "prometheus/exposer.h"

namespace litefleet::metrics {

struct MetricsServer::Parts {
  std::shared_ptr<FleetMetrics> metrics;
  std::unique_ptr<prometheus::Exposer> exposer;
};

MetricsServer::MetricsServer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
MetricsServer::~MetricsServer() = default;

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& listen, std::shared_ptr<FleetMetrics> metrics) {
  auto parts = std::make_unique<Parts>();
  parts->metrics = std::move(metrics);
  try {  // it has no other way to say so
    parts->exposer = std::make_unique<prometheus::Exposer>(
        std::vector<std::string>{"listening_ports", listen, "num_threads", "2", "request_timeout_ms", "10000"});
    parts->exposer->RegisterCollectable(parts->metrics);
  } catch (const std::exception& error) {
    return Error(absl::StatusCode::kFailedPrecondition, "METRICS_NOT_SERVED",
                 fmt::format("metrics cannot be served on {}: {}", listen, error.what()),
                 "another program may listen there: change [metrics] listen in controller.toml");
  }
  return std::unique_ptr<MetricsServer>(new MetricsServer(std::move(parts)));
}

int MetricsServer::port() const {
  const std::vector<int> ports = parts_->exposer->GetListeningPorts();
  return ports.empty() ? 0 : ports.front();
}

}  // namespace litefleet::metrics
