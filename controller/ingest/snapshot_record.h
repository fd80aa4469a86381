// What is written about a snapshot, put together from what the device said and what the controller knows. Pure functions.
#ifndef LITEFLEET_CONTROLLER_INGEST_SNAPSHOT_RECORD_H_
#define LITEFLEET_CONTROLLER_INGEST_SNAPSHOT_RECORD_H_

#include <chrono>
#include <cstdint>
#include <optional>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "controller/catalog/ingest_catalog.h"
#include "litefleet/storage/v1/records.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::ingest {

struct RecordFacts {
  SnapshotId snapshot;
  DeviceId device;
  uint64_t sequence = 0;
  catalog::NewManifest manifest;
  uint32_t pages_changed = 0;
  SystemTime received_at;
  std::optional<SystemTime> system_time;  // where the controller's own time is on hold: what the system clock says
  int64_t clock_offset_ms = 0;            // controller time minus device time
  std::chrono::milliseconds streamed{0};  // since the stream began that brought the commit
  std::optional<SystemTime> not_before;   // effective time is not before this: the previous contact, the previous snapshot
  int64_t wire_bytes = 0;
  int64_t stored_bytes = 0;
  std::string provenance;  // of an import
};

// taken_at: device time plus offset; where that and the age are further apart than a slow link explains, receipt less the age; where there
// is no age, and the device's clock was not set (before 2024), the effective time. effective_at: receipt less the age by the boot clock
// (without an age: taken_at), clamped between not_before and receipt (design section 7, "Time").
storage::v1::SnapshotRecord MakeSnapshotRecord(const v1::UploadBegin& begin, const v1::UploadCommit& commit, const RecordFacts& facts);

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_SNAPSHOT_RECORD_H_
