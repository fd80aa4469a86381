// Operations in the catalog: what was ordered, how far it is, how it ended. Survives a restart of the controller.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns.
// References are ids or unique prefixes: kNotFound OPERATION_NOT_FOUND, kFailedPrecondition AMBIGUOUS.
#ifndef LITEFLEET_CONTROLLER_CATALOG_OPERATION_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_OPERATION_CATALOG_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/identity_catalog.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {

extern const std::string_view kOperationSchema1;

struct OperationRow {
  v1::Operation operation;   // device_name and device_connected are not stored
  v1::Order order;           // what the device gets; empty for local ones
  std::string request_id;    // unique together with ordered_by where not empty
};

class OperationCatalog {
 public:
  explicit OperationCatalog(CatalogDb& db) : db_(db) {}

  // All or none. Rows whose request_id exists already are answered with what exists.
  absl::StatusOr<std::vector<OperationRow>> Create(const std::vector<OperationRow>& rows);
  absl::StatusOr<OperationRow> Get(const OperationId& operation) const;
  absl::StatusOr<v1::Operation> Resolve(const std::string& reference) const;
  absl::StatusOr<Page<v1::Operation>> List(const DeviceId& device, bool active_only, int page_size, const std::string& page_token) const;
  // Not ended, of one device, oldest first.
  absl::StatusOr<std::vector<OperationRow>> ActiveOf(const DeviceId& device) const;
  // Reads, changes and writes in one transaction; kNotFound, or the change's error.
  absl::StatusOr<v1::Operation> Update(const OperationId& operation, absl::FunctionRef<absl::Status(v1::Operation&)> change);
  // Queued ones past their expiry become EXPIRED; ended ones beyond 90 days or 10,000 a device go. Returns those that expired.
  absl::StatusOr<std::vector<v1::Operation>> Expire(SystemTime now);

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_OPERATION_CATALOG_H_
