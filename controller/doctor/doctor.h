// The doctor of a controller: each look gives one finding, a look that cannot be taken is a finding too, and each finding that is not well
// says what to do. Not for the fleet: what devices and databases suffer from is told by the status.
//
// Looks at: configuration, store-space (-inodes, -file-system), catalog, catalog-backup, keys, certificate, name-resolution, tls, clock,
// socket. Thread safety: Examine may be called from any thread, as may what Parts names. Blocks: reads the whole catalog, asks the
// resolver, shakes hands with the server's own port.
#ifndef LITEFLEET_CONTROLLER_DOCTOR_DOCTOR_H_
#define LITEFLEET_CONTROLLER_DOCTOR_DOCTOR_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/rpc/address.h"
#include "controller/catalog/catalog_db.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::doctor {

// Appends to an answer.
class Findings {
 public:
  explicit Findings(v1::RunDoctorResponse& response) : response_(response) {}
  void Ok(std::string_view check, std::string_view message) { Add(v1::FINDING_LEVEL_OK, check, message, ""); }
  void Warn(std::string_view check, std::string_view message, std::string_view fix) { Add(v1::FINDING_LEVEL_WARN, check, message, fix); }
  void Fail(std::string_view check, std::string_view message, std::string_view fix) { Add(v1::FINDING_LEVEL_FAIL, check, message, fix); }

 private:
  void Add(v1::FindingLevel level, std::string_view check, std::string_view message, std::string_view fix);
  v1::RunDoctorResponse& response_;
};

// What it looks at; all of it is there.
struct Parts {
  const Clock* clock = nullptr;
  const catalog::CatalogDb* catalog = nullptr;
  // Of the catalog, in the store.
  std::function<absl::StatusOr<v1::CatalogBackups>()> catalog_backups;
  std::string data_directory;  // DATA: where store/, ca/, catalog.db and the socket are
  std::string config_file;     // empty: what has a default has it
  // Reads the configuration again: what has changed in it since the start and waits for a restart; else what is wrong with it.
  std::function<absl::StatusOr<std::vector<std::string>>()> configuration;
  // Bytes that uploads leave free.
  std::function<uint64_t()> store_reserve;
  // Names and addresses that the server's certificate is for.
  std::function<std::vector<std::string>()> hosts;
  // Where it listens, with the port that it took.
  std::function<rpc::Address()> listening;
  // When the newest snapshot came.
  std::function<std::optional<SystemTime>()> newest_snapshot_at;
  std::chrono::milliseconds handshake_timeout{5'000};
};

void Examine(const Parts& parts, Findings& findings);

}  // namespace litefleet::doctor

#endif  // LITEFLEET_CONTROLLER_DOCTOR_DOCTOR_H_
