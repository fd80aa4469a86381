// Healing: what scrub quarantined is asked of the devices whose snapshots need it, and what they still have is stored again.
//
// Each database has a wanted list in the catalog. An order (kind HEAL) names chunks and the pages of which they were made; the device reads
// its database, and sends those chunks of which every page is still what it was. The name proves the content, so a chunk that came back is
// what was lost, and scrub::Scrubber::Heal finds the snapshots that are whole again. What the device does not have as a whole is asked for
// page by page (PageRepair).
//
// Order (design law 1): content verified and appended -> pack synced -> the chunk's row points there and is good -> answered. Crash points:
// heal.after_chunk_write, heal.after_pack_sync, heal.after_good. Thread safety: all members may be called from any thread; they block.
// Ownership: borrows everything.
#ifndef LITEFLEET_CONTROLLER_HEAL_HEALER_H_
#define LITEFLEET_CONTROLLER_HEAL_HEALER_H_

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/turn.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/heal/page_repair.h"
#include "controller/store/store.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::heal {

struct HealerDeps {
  catalog::HealCatalog& catalog;
  const catalog::IngestCatalog& chunks;
  store::Store& store;
  const Clock& clock;
  // Makes the order durable. kAlreadyExists where one for this database has not ended.
  std::function<absl::Status(const DeviceId&, const v1::HealOrder&)> start;
  // The order of an operation of this device that has not ended; kNotFound ORDER_NOT_FOUND.
  std::function<absl::StatusOr<v1::HealOrder>(const DeviceId&, const OperationId&)> order_of;
  // Whether an order for this database has not ended.
  std::function<bool(const DeviceId&, const std::string& database)> is_asked;
  // Every chunk of the snapshot is there again.
  std::function<absl::Status(const SnapshotId&)> set_whole;
  // Chunks are good again, or it is known that they will not be.
  std::function<void()> changed;
};

struct HealerOptions {
  // A device that has not answered is asked again: it was offline, or the order failed.
  std::chrono::hours ask_again{24};
};

class Healer {
 public:
  Healer(HealerDeps deps, HealerOptions options)
      : deps_(std::move(deps)), options_(options), repair_(deps_.catalog, deps_.chunks, deps_.store, deps_.clock) {}

  // Settles orders that have ended without their last answer (a cancel, a failure): what had come is put in its place, and nothing is
  // claimed any more. Then orders what is wanted and was not asked for lately. How many orders; none where another thread does it just now.
  absl::StatusOr<int> OrderDue();
  // What a device sends. Idempotent. Errors: ORDER_NOT_FOUND, CHUNK_INVALID (kInvalidArgument), those of the store.
  absl::StatusOr<v1::SendWantedResponse> Accept(const DeviceId& device, const v1::SendWantedRequest& request);

 private:
  struct Arrived {
    const v1::WantedPages* wanted = nullptr;
    catalog::ArrivedChunk chunk;
    std::vector<format::PageDigest> digests;
    store::PackHold hold;  // until the catalog knows it
  };
  absl::Status SettleEnded();
  absl::StatusOr<bool> OrderFor(const catalog::HealCatalog::Database& database, SystemTime asked_before);
  // Verifies one content against its own name, and appends it.
  absl::StatusOr<store::Placed> Put(const v1::HealOrder& order, const v1::WantedContent& content, Arrived& arrived);
  // What is durable becomes part of the store; how many were wanted.
  absl::StatusOr<uint32_t> Take(const DeviceId& device, int64_t database, const v1::HealOrder& order, const std::vector<Arrived>& all);
  // Puts pages that came back into the damaged snapshots; one call at a time.
  absl::Status RepairAll(int64_t database);

  const HealerDeps deps_;
  const HealerOptions options_;
  PageRepair repair_;
  Turn repairs_;
  std::atomic<bool> ordering_{false};
  SteadyTime settle_at_{};  // not before; of whoever has ordering_
};

}  // namespace litefleet::heal

#endif  // LITEFLEET_CONTROLLER_HEAL_HEALER_H_
