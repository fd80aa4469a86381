// Operations in the catalog: what was ordered, how far it is, how it ended. Survives a restart of the controller.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns.
// References are ids or unique prefixes: kNotFound OPERATION_NOT_FOUND, kFailedPrecondition AMBIGUOUS.
#ifndef LITEFLEET_CONTROLLER_CATALOG_OPERATION_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_OPERATION_CATALOG_H_

#include <chrono>
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

// Who began an operation, and so who carries it on after a restart of the controller. Stored: do not change these values.
enum class Origin : int {
  kOrdered = 0,  // by an operator; the order is sent to the device until it has ended
  kDevice = 1,   // by the device itself (a schedule)
  kLocal = 2,    // by the controller, which carries it out
};

struct OperationRow {
  v1::Operation operation;  // device_name and device_connected are not stored
  v1::Order order;          // what the device gets; empty unless ordered
  Origin origin = Origin::kOrdered;
  std::string request_id;  // unique together with ordered_by where not empty
};

// Not in one of the ends.
bool IsActive(v1::OperationState state);
// The error of an operation whose order was not fetched in time.
absl::Status OrderExpired();

class OperationCatalog {
 public:
  static constexpr std::chrono::hours kMaxAge{90 * 24};
  static constexpr int kMaxEndedPerDevice = 10'000;

  explicit OperationCatalog(CatalogDb& db) : db_(db) {}

  // All or none. REQUIRES: the rows have the same request_id. Where it exists already, nothing is made, and the answer is what exists;
  // kAlreadyExists REQUEST_ID_USED when that is of another kind.
  absl::StatusOr<std::vector<OperationRow>> Create(const std::vector<OperationRow>& rows);
  absl::StatusOr<OperationRow> Get(const OperationId& operation) const;
  absl::StatusOr<v1::Operation> Resolve(const std::string& reference) const;
  // Newest first. `device` may be empty: all.
  absl::StatusOr<Page<v1::Operation>> List(const DeviceId& device, bool active_only, int page_size, const std::string& page_token) const;
  // Not ended, of one device (empty: of all), oldest first.
  absl::StatusOr<std::vector<OperationRow>> ActiveOf(const DeviceId& device) const;
  // Reads, changes and writes in one transaction; kNotFound, or the change's error. What a change calls CANCELLED and has been committed
  // is SUCCEEDED, with its snapshot; with a cancel that came before the commit nothing of it is committed any more.
  absl::StatusOr<v1::Operation> Update(const OperationId& operation, absl::FunctionRef<absl::Status(v1::Operation&)> change);
  // Queued ones past their expiry become EXPIRED; ended ones beyond kMaxAge or kMaxEndedPerDevice go. Returns those that expired.
  absl::StatusOr<std::vector<v1::Operation>> Expire(SystemTime now);

 private:
  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_OPERATION_CATALOG_H_
