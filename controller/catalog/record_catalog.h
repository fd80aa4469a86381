// What the packs must know beside snapshots: devices, certificates, operators, timelines, policies, holds, gaps (`rebuild` reads them
// back).
//
// Triggers on the tables note every change in record_due, in the transaction that makes it: no caller can forget one. A RecordWriter
// turns what is due into records, makes them durable, and only then the note goes. A crash leaves notes, which the next start writes.
//
// Thread safety: all members may be called from any thread.
#ifndef LITEFLEET_CONTROLLER_CATALOG_RECORD_CATALOG_H_
#define LITEFLEET_CONTROLLER_CATALOG_RECORD_CATALOG_H_

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "controller/catalog/catalog_db.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::catalog {

extern const std::string_view kRecordSchema;
extern const std::string_view kPolicyRecordSchema;
extern const std::string_view kNumberRecordSchema;
// Notes the databases that have counted further than any snapshot says which they have.
extern const std::string_view kNumbersDue;

// Makes durable in the packs whatever is due. Implemented by controller/rebuild.
class RecordWriter {
 public:
  virtual ~RecordWriter() = default;
  // Returns when everything that was due at the call is durable. Errors: those of the store; it stays due.
  virtual absl::Status WriteDue() = 0;
};

// One thing as it is now.
struct DueRecord {
  using Record = std::variant<storage::v1::DeviceRecord, storage::v1::DatabaseRecord, storage::v1::OperatorRecord,
                              storage::v1::PolicyRecord, storage::v1::RetentionHoldRecord, storage::v1::GapRecord>;
  uint64_t revision = 0;
  Record record;
};

class RecordCatalog {
 public:
  using Record = DueRecord::Record;
  explicit RecordCatalog(CatalogDb& db) : db_(db) {}

  // Oldest first, at most `limit`.
  absl::StatusOr<std::vector<DueRecord>> Due(SystemTime now, int limit) const;
  // They are durable in the packs. What changed again meanwhile has a new revision and stays due.
  absl::Status Written(std::span<const DueRecord> records);
  // A newer one of the same thing is durable in the packs.
  absl::StatusOr<bool> IsSuperseded(const Record& record) const;

 private:
  struct Subject {
    int64_t kind = 0;
    std::string name;
  };
  static Subject SubjectOf(const Record& record);

  CatalogDb& db_;
};

}  // namespace litefleet::catalog

#endif  // LITEFLEET_CONTROLLER_CATALOG_RECORD_CATALOG_H_
