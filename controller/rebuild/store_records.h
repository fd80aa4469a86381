// Writes what is due of catalog/record_catalog into the store: devices, certificates, operators, timelines.
//
// Thread safety: all members may be called from any thread; one call writes, those that come meanwhile wait and mostly find nothing left.
// Ownership: borrows everything. Errors: those of store and catalog; what could not be written stays due.
#ifndef LITEFLEET_CONTROLLER_REBUILD_STORE_RECORDS_H_
#define LITEFLEET_CONTROLLER_REBUILD_STORE_RECORDS_H_

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/turn.h"
#include "controller/catalog/record_catalog.h"
#include "controller/store/store.h"

namespace litefleet::rebuild {

class StoreRecords final : public catalog::RecordWriter {
 public:
  StoreRecords(catalog::RecordCatalog& catalog, store::Store& store, const Clock& clock)
      : catalog_(catalog), store_(store), clock_(clock) {}

  absl::Status WriteDue() override;

 private:
  absl::Status WriteAll();

  catalog::RecordCatalog& catalog_;
  store::Store& store_;
  const Clock& clock_;
  Turn turn_;
};

}  // namespace litefleet::rebuild

#endif  // LITEFLEET_CONTROLLER_REBUILD_STORE_RECORDS_H_
