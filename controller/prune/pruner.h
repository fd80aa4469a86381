// Frees what nothing needs: removes snapshots whose time in the trash is over, marks, trashes, sweeps, rewrites packs.
//
// controller/README.md, "How data goes", has the order of the steps, what makes each safe, and what a crash leaves. Recover clears that up.
// Not thread-safe: one thread calls, one run at a time; everything else goes on beside it. Memory: a bitmap of at most
// `bitmap_bytes`, a number for each pack, one part of a manifest, the records of one pack that are moved (about 100 bytes each).
#ifndef LITEFLEET_CONTROLLER_PRUNE_PRUNER_H_
#define LITEFLEET_CONTROLLER_PRUNE_PRUNER_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/prune_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "controller/prune/mark_writer.h"
#include "controller/store/store.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::prune {

struct PruneOptions {
  std::chrono::milliseconds snapshot_grace = std::chrono::hours(24 * 7);  // in the trash
  std::chrono::milliseconds chunk_grace = std::chrono::hours(24);         // unreferenced
  int64_t sweeps = 1;                                                     // later marks that must find a chunk unreferenced too
  int rewrite_percent = 50;                                               // packs of which at least so much is dead
  bool dry_run = false;
};

struct PrunerDeps {
  catalog::PruneCatalog& catalog;
  catalog::DeletionCatalog& deletions;
  MarkWriter& marks;
  store::Store& store;
  // Somebody reads this snapshot; called inside a transaction.
  std::function<bool(const SnapshotId&)> held;
  size_t bitmap_bytes = 64u << 20;
  const catalog::RecordCatalog* records = nullptr;  // which records are superseded; null: nobody knows
  // The catalog counts on, durably in the packs too (rebuild/catalog_generation): before the first pack of a run is rewritten. May be
  // empty.
  std::function<absl::StatusOr<uint64_t>()> count_generation = nullptr;
};

// Where a run is, for people; OK, or the error that ends it.
using PruneProgress = std::function<absl::Status(std::string_view phase, double share)>;

class Pruner {
 public:
  explicit Pruner(PrunerDeps deps) : deps_(std::move(deps)) {}

  // What a crash left: once, at start.
  absl::Status Recover();
  // `now` is the controller's monotone time. What had been done when an error came stays done.
  absl::StatusOr<v1::PruneReport> Run(const PruneOptions& options, SystemTime now, const PruneProgress& progress);

 private:
  struct Window {
    int64_t first = 0;
    int64_t count = 0;
    std::vector<uint64_t> bits;
    bool Has(int64_t id) const;
    void Set(int64_t id);
  };

  // Of packs that are empty for the catalog: those that a crash, or an error of the disk, has left.
  absl::Status FinishRemovals();
  absl::Status RemoveSnapshots(const PruneOptions& options, SystemTime now, const PruneProgress& progress, v1::PruneReport& report);
  absl::Status MarkAndSweep(const PruneOptions& options, SystemTime now, const PruneProgress& progress, v1::PruneReport& report);
  absl::Status MarkWindow(Window& window, std::optional<SystemTime> gone_before, bool count, const PruneProgress& progress,
                          v1::PruneReport& report);
  absl::Status TrashWindow(const Window& window, int64_t newest, const PruneOptions& options, SystemTime now, int64_t run,
                           const PruneProgress& progress, v1::PruneReport& report);
  absl::Status SweepWindow(const Window& window, const PruneOptions& options, SystemTime now, int64_t run, const PruneProgress& progress,
                           v1::PruneReport& report);
  // Of a dry run: what nothing needs, and would go to the trash, or with `from_trash` be swept out of it.
  absl::Status CountUnneeded(std::span<const catalog::PruneCatalog::Chunk> chunks, bool from_trash, const PruneOptions& options,
                             v1::PruneReport& report);
  absl::Status DropRights();
  absl::Status RewritePacks(const PruneOptions& options, const PruneProgress& progress, v1::PruneReport& report);
  // pack_rewriter.cc
  // What a rewrite keeps of a record.
  struct Kept {
    catalog::PruneCatalog::Moved moved;
    std::optional<std::string> payload;  // in the place of the record's
    bool apart = false;                  // what stands twice keeps so much room between
    ByteView PayloadOf(const format::ScannedRecord& record) const { return payload.has_value() ? AsBytes(*payload) : record.payload; }
  };
  // Nothing: it is dead. `oldest`: the oldest pack that there will be afterwards.
  absl::StatusOr<std::optional<Kept>> KeptOf(const store::Location& at, const format::ScannedRecord& record, uint64_t oldest) const;
  absl::StatusOr<bool> IsSuperseded(const format::ScannedRecord& record) const;
  // Bytes that a rewrite of the pack would keep beside chunks and parts of manifests. Looked at anew when an older pack went, and after
  // some runs.
  absl::StatusOr<int64_t> KeptRecords(uint64_t pack, uint64_t oldest, const std::function<absl::Status()>& go_on);
  // An error of `go_on`, which is asked at each record, leaves the pack as it is; what was copied until then is dead.
  absl::Status RewritePack(const store::PackInfo& pack, uint64_t oldest, const std::function<absl::Status()>& go_on,
                           v1::PruneReport& report);
  absl::Status RemovePack(uint64_t pack);

  struct Gone {
    int64_t chunks = 0;
    int64_t bytes = 0;
  };
  struct KeptBytes {
    uint64_t oldest = 0;
    int64_t bytes = 0;
    int asked = 0;
  };
  static constexpr int kAskedAgain = 16;  // times a number is good for

  const PrunerDeps deps_;
  std::map<uint64_t, int64_t> record_bytes_;  // of the run
  std::map<uint64_t, Gone> would_go_;         // of a dry run: chunks that the packs would have no more
  std::map<uint64_t, KeptBytes> kept_bytes_;  // of packs that seem to be mostly dead
  std::set<uint64_t> stuck_;                  // damaged packs with something that cannot be read and that a snapshot names
  bool swept_ = true;                         // since the open pack was looked at; what another process swept last nobody knows
  bool must_count_ = false;                   // the catalog, before a pack goes
  uint64_t generation_ = 0;                   // that the run wrote; counts below it are not needed any more
};

}  // namespace litefleet::prune

#endif  // LITEFLEET_CONTROLLER_PRUNE_PRUNER_H_
