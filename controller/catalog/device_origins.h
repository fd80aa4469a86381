// Which boots and agents a device's calls come from, to notice two with one identity: a copied disk, a cloned virtual machine, a second
// agent with a copy of the state directory.
//
// A machine has a new boot id and an agent a new instance id at every start. That others follow is how devices are restarted, moved and
// reinstalled; that one comes back which another had followed means that both run. What was noticed stays until the device is enrolled
// anew, which makes the copy's certificate void.
//
// Thread safety: as the connection. Memory and rows: at most kOriginsKept a device.
#ifndef LITEFLEET_CONTROLLER_CATALOG_DEVICE_ORIGINS_H_
#define LITEFLEET_CONTROLLER_CATALOG_DEVICE_ORIGINS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "controller/catalog/catalog_db.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::catalog {

extern const std::string_view kOriginSchema;
extern const std::string_view kOriginInstanceSchema;

inline constexpr int kOriginsKept = 16;

// Within a writing transaction, at each hello.
absl::Status NoteOrigin(sqlite3* db, std::string_view device, SystemTime now, const v1::Hello& hello);
// Nothing is known any more: the device has a new key. Within a writing transaction.
absl::Status ForgetOrigins(sqlite3* db, std::string_view device);

struct ClonedDevice {
  std::string name;
  SystemTime noticed_at;
  std::string facts;  // both sides, for people
};
// Active devices whose identity was seen in two places since `since`, by name; at most `most`.
absl::StatusOr<std::vector<ClonedDevice>> ListClones(const CatalogDb& db, SystemTime since, int most);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_DEVICE_ORIGINS_H_
