// Fills a new catalog from what stands in the packs: the rows, for controller/rebuild, which reads and proves.
//
// Two phases: everything that a scan finds is put down as it comes (Add*), then Index sorts it, then snapshots are proven one by one and
// Keep makes them rows. The file is written without a journal: it is worth nothing until Close has returned, and nobody else may have it
// open. Beside it stands PATH-found, which Close removes. Memory: SQLite's page cache and sorter, constant.
//
// Thread safety: none. Errors: those of SQLite and the file system.
#ifndef LITEFLEET_CONTROLLER_CATALOG_REBUILD_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_REBUILD_CATALOG_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/format/digest.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/ingest_catalog.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::catalog {

class RebuildCatalog {
 public:
  // Removes what a former run left at `path`.
  static absl::StatusOr<std::unique_ptr<RebuildCatalog>> Create(const std::string& path);
  ~RebuildCatalog();

  // ---- while packs are scanned; the newest of several wins, as FORMAT.md says
  absl::Status AddChunk(const ArrivedChunk& chunk);  // with a place
  absl::Status AddManifestPart(const std::string& snapshot, uint32_t part, ManifestPlace place);
  absl::Status AddSnapshot(const storage::v1::SnapshotRecord& record, PackPlace place);
  // Its number is not given again, whatever becomes of it.
  absl::Status AddNumber(const storage::v1::SnapshotRecord& record);
  absl::Status AddMark(const storage::v1::SnapshotMark& mark);
  absl::Status AddDevice(const storage::v1::DeviceRecord& record);
  absl::Status AddDatabase(const storage::v1::DatabaseRecord& record);
  absl::Status AddOperator(const storage::v1::OperatorRecord& record);
  absl::Status AddPolicy(const storage::v1::PolicyRecord& record);
  absl::Status AddHold(const storage::v1::RetentionHoldRecord& record);
  void AddGeneration(uint64_t generation);
  absl::Status AddGap(const storage::v1::GapRecord& record);

  // ---- once, after the last Add. `newest_pack`: of the store
  absl::Status Index(uint64_t newest_pack);

  // ---- then
  struct Found {
    storage::v1::SnapshotRecord record;
    PackPlace place;
  };
  // In the order in which they were received. `visit` may call what stands below.
  absl::Status ForEachSnapshot(absl::FunctionRef<absl::Status(const Found&)> visit);
  // Other records of the same snapshot, to be tried in this order where what `found` names is not there: a heal that was cut off leaves
  // one.
  absl::StatusOr<std::vector<Found>> Others(const Found& found);
  // Ascending parts from `first` on, at most `limit`; a gap ends them.
  absl::StatusOr<std::vector<ManifestPlace>> Parts(const std::string& snapshot, uint32_t first, uint32_t limit);
  struct FoundChunk {
    int64_t id = 0;
    uint32_t page_size = 0;
    uint32_t page_count = 0;
    uint32_t stored_bytes = 0;
  };
  absl::StatusOr<std::optional<FoundChunk>> FindChunk(const format::ChunkName& name);
  // The device may refer to it.
  absl::Status AddRight(const std::string& device, const FoundChunk& chunk);
  // Its row; the places of its manifest follow.
  absl::Status Keep(const Found& snapshot);
  absl::Status KeepParts(const std::string& snapshot, uint32_t first, const std::vector<ManifestPlace>& parts);

  struct Things {
    int64_t devices = 0, operators = 0, policies = 0, databases = 0, snapshots = 0, chunks = 0;
    std::vector<std::string> notes;              // what is strange, for people
    std::vector<std::string> must_enroll_again;  // names of active devices without a valid certificate
  };
  // Devices, operators, databases, policies, holds and gaps. `keep_certificates`: the CA is the one that issued them; else none is valid.
  // `lost_records`: snapshots whose records may have stood in what could not be read; each database counts on behind as many.
  absl::StatusOr<Things> AddThings(bool keep_certificates, SystemTime now, int64_t lost_records);
  // Durable. Nothing may be called afterwards.
  absl::Status Close();

 private:
  RebuildCatalog() = default;
  // What was deleted, and what belonged to devices that were forgotten.
  absl::Status DropDeleted(uint64_t newest_pack);
  // What the rights that were added hold is counted for each owner at once, in the place of the table's triggers.
  absl::Status FlushHeld();
  absl::StatusOr<int64_t> DatabaseRow(const std::string& device, const std::string& name);
  absl::Status AddState(int64_t kind, const std::string& subject, uint64_t revision, const std::string& record);
  absl::StatusOr<sqlite::Statement*> Cached(std::string_view sql);
  absl::Status AddDeviceRow(const storage::v1::DeviceRecord& record, bool keep_certificates, Things& things);
  absl::Status AddCertificate(const storage::v1::CertificateRecord& record, const std::string& device, const std::string& operator_name,
                              const std::string& role);
  absl::Status AddUnknownDevices(SystemTime now, Things& things);
  absl::Status AddPolicyRows(const std::set<std::string>& forgotten_devices, Things& things);
  absl::Status AddGapRows();
  absl::Status SetNumbers(int64_t lost_records);
  absl::Status AddGoneNumbers(const storage::v1::DatabaseRecord& record, int64_t database);

  std::string path_;
  sqlite::DatabaseHandle db_;
  std::vector<std::pair<std::string_view, std::unique_ptr<sqlite::Statement>>> cached_;              // of literals
  std::unique_ptr<sqlite::StatementCache> statements_ = std::make_unique<sqlite::StatementCache>();  // of other slices; goes before db_
  std::string owner_device_;
  int64_t owner_ = 0;
  int64_t held_ = 0;     // bytes, not yet counted for owner_
  std::string trigger_;  // on rights, made again by Close
  uint64_t generation_ = 0;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_REBUILD_CATALOG_H_
