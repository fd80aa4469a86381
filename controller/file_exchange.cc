#include "controller/file_exchange.h"

#include <utility>

#include "common/base/status.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet {

absl::StatusOr<v1::Database> FileExchange::ImportTarget(const std::string& reference) const {
  LF_ASSIGN_OR_RETURN(const auto names, rpc::SplitDatabaseReference(reference, "database"));
  LF_ASSIGN_OR_RETURN(const v1::Device device, parts_.identities.ResolveDevice(names.first));
  if (device.state() == v1::DEVICE_STATE_REVOKED) {
    return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_REVOKED", fmt::format("{} is revoked", device.name()),
                 "import for an active device");
  }
  auto database = parts_.snapshots.GetDatabase(DeviceId(device.id()), names.second);
  if (!database.ok()) return rpc::ByName(database.status(), device);
  database->set_device_id(device.id());
  database->set_device_name(device.name());
  return database;
}

absl::StatusOr<std::unique_ptr<FileExchange>> FileExchange::Begin(const Parts& parts, const DataDirectory& data,
                                                                  const config::ControllerConfig& config) {
  std::unique_ptr<FileExchange> exchange(new FileExchange(parts));
  FileExchange* const self = exchange.get();
  imports::ImportOptions options;
  options.scratch = data.scratch();
  options.reserve_bytes = static_cast<uint64_t>(config.store_reserve);
  exchange->imports_ =
      std::make_unique<imports::Imports>(imports::ImportDeps{.fleet = parts.fleet,
                                                             .ingest = parts.ingest,
                                                             .clock = parts.clock,
                                                             .resolve = [self](const std::string& to) { return self->ImportTarget(to); },
                                                             .on_imported = parts.imported},
                                         std::move(options));
  LF_RETURN_IF_ERROR(exchange->imports_->Begin());
  return exchange;
}

void FileExchange::Stop() { imports_->Stop(); }

}  // namespace litefleet
