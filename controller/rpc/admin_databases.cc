#include <algorithm>
#include <set>

#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/admin_requests.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr size_t kMaxOrders = 10'000;
constexpr std::chrono::seconds kMaxStale = std::chrono::hours(24 * 3660);

}  // namespace

absl::StatusOr<AdminHandlers::DatabaseReference> AdminHandlers::ResolveDatabaseReference(const std::string& reference,
                                                                                         std::string_view field) const {
  LF_ASSIGN_OR_RETURN(const auto parts, SplitDatabaseReference(reference, field));
  LF_ASSIGN_OR_RETURN(v1::Device device, deps_.identities->ResolveDevice(parts.first));
  return DatabaseReference{std::move(device), parts.second};
}

absl::StatusOr<v1::ListDatabasesResponse> AdminHandlers::ListDatabases(const v1::ListDatabasesRequest& request) const {
  LF_ASSIGN_OR_RETURN(const int page_size, CheckedPageSize(request.page_size()));
  DeviceId device;
  if (!request.device().empty()) {
    LF_ASSIGN_OR_RETURN(const v1::Device found, deps_.identities->ResolveDevice(request.device()));
    device = DeviceId(found.id());
  }
  std::optional<SystemTime> stale_before;
  if (request.has_stale_after()) {
    LF_ASSIGN_OR_RETURN(const std::chrono::seconds stale_after, CheckedDuration(true, request.stale_after(), std::chrono::seconds(0),
                                                                                kMaxStale, std::chrono::seconds(0), "stale_after"));
    stale_before = deps_.clock->Now() - stale_after;
  }
  LF_ASSIGN_OR_RETURN(catalog::Page<v1::Database> page,
                      deps_.snapshots->ListDatabases(device, stale_before, page_size, request.page_token()));
  v1::ListDatabasesResponse response;
  for (v1::Database& database : page.items) *response.add_databases() = std::move(database);
  response.set_next_page_token(page.next_token);
  return response;
}

absl::StatusOr<v1::GetDatabaseResponse> AdminHandlers::GetDatabase(const v1::GetDatabaseRequest& request) const {
  LF_ASSIGN_OR_RETURN(const DatabaseReference reference, ResolveDatabaseReference(request.database(), "database"));
  auto database = deps_.snapshots->GetDatabase(DeviceId(reference.device.id()), reference.database);
  if (!database.ok()) return ByName(database.status(), reference.device);
  v1::GetDatabaseResponse response;
  *response.mutable_database() = *std::move(database);
  return response;
}

absl::StatusOr<std::vector<fleet::Fleet::BackupOrder>> AdminHandlers::SelectDatabases(const std::string& selector) const {
  std::vector<fleet::Fleet::BackupOrder> orders;
  std::string device_token;
  do {
    LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Device> devices, deps_.identities->ListDevices(selector, 1000, device_token));
    device_token = devices.next_token;
    for (const v1::Device& device : devices.items) {
      if (device.state() != v1::DEVICE_STATE_ACTIVE) continue;
      std::string token;
      do {
        LF_ASSIGN_OR_RETURN(const catalog::Page<v1::Database> page,
                            deps_.snapshots->ListDatabases(DeviceId(device.id()), std::nullopt, 1000, token));
        for (const v1::Database& database : page.items) orders.push_back({DeviceId(device.id()), database.name()});
        token = page.next_token;
      } while (!token.empty());
    }
  } while (!device_token.empty() && orders.size() <= kMaxOrders);
  return orders;
}

absl::StatusOr<v1::StartBackupsResponse> AdminHandlers::StartBackups(const v1::StartBackupsRequest& request,
                                                                     const std::string& ordered_by) const {
  LF_RETURN_IF_ERROR(CheckRequestId(request.request_id()));
  LF_RETURN_IF_ERROR(CheckSelector(request.selector()));
  LF_ASSIGN_OR_RETURN(const std::chrono::seconds expire, CheckedDuration(request.has_expire(), request.expire(), std::chrono::seconds(1),
                                                                         kMaxExpire, kDefaultExpire, "expire"));
  if (request.databases().empty() == request.selector().empty()) {
    return Invalid("BACKUP_TARGET_INVALID", "give either databases or a selector", "for instance `litefleet backup kiosk-7/orders`");
  }
  if (request.method() != v1::METHOD_UNSPECIFIED && request.method() != v1::METHOD_ONLINE && request.method() != v1::METHOD_FILE &&
      request.method() != v1::METHOD_DUMP) {
    return Invalid("METHOD_NOT_SUPPORTED", fmt::format("method {} cannot be ordered", v1::Method_Name(request.method())),
                   "leave it out, or use online, file or dump");
  }
  if (request.has_dump() && request.method() != v1::METHOD_DUMP)
    return Invalid("DUMP_OPTIONS_INVALID", "options of a dump without the method dump", "use --method dump");
  if (request.dump().schema_only() && request.dump().data_only())
    return Invalid("DUMP_OPTIONS_INVALID", "a dump of neither schema nor data", "leave one of --schema-only and --data-only out");
  std::vector<fleet::Fleet::BackupOrder> orders;
  if (!request.selector().empty()) {
    LF_ASSIGN_OR_RETURN(orders, SelectDatabases(request.selector()));
    if (orders.empty()) {
      return Error(absl::StatusCode::kNotFound, "NOTHING_SELECTED",
                   fmt::format("no database of an active device matches '{}'", request.selector()),
                   fmt::format("see `litefleet device list --selector {}`", request.selector()));
    }
  }
  for (const std::string& name : request.databases()) {
    LF_ASSIGN_OR_RETURN(const DatabaseReference reference, ResolveDatabaseReference(name, "database"));
    if (reference.device.state() == v1::DEVICE_STATE_REVOKED) {
      return Error(absl::StatusCode::kFailedPrecondition, "DEVICE_REVOKED", fmt::format("device {} was revoked", reference.device.name()),
                   "enrol it anew with a token of `litefleet token create --for-device`");
    }
    const DeviceId device(reference.device.id());
    const auto known = deps_.snapshots->GetDatabase(device, reference.database);
    if (!known.ok()) return ByName(known.status(), reference.device);
    const bool twice = std::any_of(orders.begin(), orders.end(),
                                   [&](const auto& order) { return order.device == device && order.database == known->name(); });
    if (!twice) orders.push_back({device, known->name()});
  }
  if (orders.size() > kMaxOrders) {
    return Invalid("TOO_MANY_DATABASES", fmt::format("{} databases in one order, at most {} are allowed", orders.size(), kMaxOrders),
                   "select fewer devices at once");
  }
  for (auto& order : orders) {
    order.method = request.method();
    order.full = request.full();
    if (request.has_dump()) order.dump = request.dump();
  }
  LF_ASSIGN_OR_RETURN(std::vector<v1::Operation> operations, deps_.fleet->StartBackups(orders, expire, request.request_id(), ordered_by));
  v1::StartBackupsResponse response;
  for (v1::Operation& operation : operations) {
    Complete(operation);
    *response.add_operations() = std::move(operation);
  }
  return response;
}

}  // namespace litefleet::rpc
