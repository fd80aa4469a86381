// What goes into the controller as a file of people: imports. A part of the composition root.
//
// Thread safety, ownership: as Imports.
#ifndef LITEFLEET_CONTROLLER_FILE_EXCHANGE_H_
#define LITEFLEET_CONTROLLER_FILE_EXCHANGE_H_

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/config/config.h"
#include "controller/data_directory.h"
#include "controller/imports/imports.h"

namespace litefleet {

class FileExchange {
 public:
  struct Parts {
    fleet::Fleet& fleet;
    ingest::Ingest& ingest;
    const catalog::IdentityCatalog& identities;
    const catalog::SnapshotCatalog& snapshots;
    const Clock& clock;
    // After an import.
    std::function<void(const SnapshotId&)> imported;
  };
  static absl::StatusOr<std::unique_ptr<FileExchange>> Begin(const Parts& parts, const DataDirectory& data,
                                                             const config::ControllerConfig& config);
  // Idempotent. REQUIRES: no import's stream begins any more.
  void Stop();

  imports::Imports& imports() { return *imports_; }

 private:
  explicit FileExchange(const Parts& parts) : parts_(parts) {}
  absl::StatusOr<v1::Database> ImportTarget(const std::string& reference) const;

  const Parts parts_;
  std::unique_ptr<imports::Imports> imports_;
};

}  // namespace litefleet

#endif  // LITEFLEET_CONTROLLER_FILE_EXCHANGE_H_
