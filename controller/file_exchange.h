// What goes into the controller and out of it as files of people: imports, and the exports of policies. A part of the composition root.
//
// Thread safety, ownership: as Imports and Exports.
#ifndef LITEFLEET_CONTROLLER_FILE_EXCHANGE_H_
#define LITEFLEET_CONTROLLER_FILE_EXCHANGE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/config/config.h"
#include "controller/data_directory.h"
#include "controller/exports/exports.h"
#include "controller/imports/imports.h"
#include "controller/retention/export_rule.h"
#include "controller/retention/retention.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet {

class FileExchange {
 public:
  struct Parts {
    fleet::Fleet& fleet;
    ingest::Ingest& ingest;
    restore::SnapshotReaderFactory& readers;
    const catalog::IdentityCatalog& identities;
    const catalog::SnapshotCatalog& snapshots;
    const catalog::PolicyCatalog& policies;
    const retention::Retention& retention;
    const Clock& clock;
    // After an import.
    std::function<void(const SnapshotId&)> imported;
  };
  static absl::StatusOr<std::unique_ptr<FileExchange>> Begin(const Parts& parts, const DataDirectory& data,
                                                             const config::ControllerConfig& config);
  // Idempotent. REQUIRES: no import's stream begins any more.
  void Stop();

  imports::Imports& imports() { return *imports_; }
  // EXPORT_FAILED, for the status of the fleet.
  std::vector<v1::Alarm> Alarms() const;
  // A backup was committed.
  void Committed(const DeviceId& device, const std::string& database) {
    // Where no policy exports, a commit costs nothing here.
    if (nothing_exported_at_ != parts_.policies.changes()) exports_->Committed(device, database);
  }

 private:
  explicit FileExchange(const Parts& parts) : parts_(parts) {}
  absl::StatusOr<v1::Database> ImportTarget(const std::string& reference) const;
  // What policies there are, and those that export.
  struct Rules {
    std::vector<retention::Policy> policies;
    std::map<std::string, retention::ExportRule> exports;  // by the policy's name
  };
  absl::StatusOr<Rules> ReadRules() const;
  // The policy that rules the device, where it exports; null: it does not.
  static const std::pair<const std::string, retention::ExportRule>* RuleOf(const Rules& rules, const v1::Device& device);
  absl::StatusOr<std::optional<exports::Candidate>> ExportOf(const DeviceId& device, const std::string& database) const;
  absl::Status ForEachExport(const std::function<absl::Status(const exports::Candidate&)>& visit) const;

  const Parts parts_;
  mutable std::atomic<uint64_t> nothing_exported_at_{0};  // PolicyCatalog::changes() when no policy did; it counts from 1
  std::unique_ptr<imports::Imports> imports_;
  std::unique_ptr<exports::Exports> exports_;
};

}  // namespace litefleet

#endif  // LITEFLEET_CONTROLLER_FILE_EXCHANGE_H_
