// Times in which promised states of a database are missing, as its device told them (design law 11).
//
// A gap is a row and, before the device is answered, a record in the packs, so a rebuild brings it back. The same id of the same device is
// the same gap; what is told again changes it. Of a database the newest 1,000 are kept. They go with their device.
//
// Thread safety: all members may be called from any thread. Durability: what a changing call did is durable when it returns, in the packs
// too where records were set.
#ifndef LITEFLEET_CONTROLLER_CATALOG_GAP_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_GAP_CATALOG_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "litefleet/storage/v1/records.pb.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::catalog {

extern const std::string_view kGapSchema;

class GapCatalog {
 public:
  static constexpr int kMaxPerDatabase = 1000;

  explicit GapCatalog(CatalogDb& db) : db_(db) {}
  // Before the first call; outlives this. Without it changes stay due.
  void SetRecords(RecordWriter* records) { records_ = records; }

  // REQUIRES: IsUlid(gap.id()), gap.has_from(). Errors: kNotFound DATABASE_NOT_FOUND (of a device that never reported it, or was
  // forgotten), kFailedPrecondition NOT_YOUR_GAP.
  absl::Status Report(const DeviceId& device, const v1::CoverageGap& gap, SystemTime now);

  // `device` and `database` may be empty. Newest first, by the time at which they begin.
  absl::StatusOr<Page<v1::Gap>> List(const DeviceId& device, const std::string& database, bool open_only, int page_size,
                                     const std::string& page_token) const;
  // The gap that `at` lies in.
  absl::StatusOr<std::optional<v1::CoverageGap>> At(const DeviceId& device, const std::string& database, SystemTime at) const;

 private:
  CatalogDb& db_;
  RecordWriter* records_ = nullptr;
};

// What a record in the packs says of the gap `id` now; nothing where it is gone.
absl::StatusOr<std::optional<storage::v1::GapRecord>> GapRecordOf(sqlite3* db, const std::string& id, uint64_t revision, int64_t now_ms);

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_GAP_CATALOG_H_
