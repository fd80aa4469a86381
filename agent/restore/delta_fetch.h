// Fills a staging file from the database that it is to replace and, for what differs, from the controller (design section 8).
//
//   names of all extents, proven by the root      -> log
//   extents of the present database               -> staging, where they have their names; else their pages as they are
//   of extents that do not have their names yet   -> 3 bytes of the digest of each page -> the pages that differ come back
//   an extent counts when what the staging file holds of it, read back, has its name
//
// So nothing that is on the device can reach the restored database unless its digest is the snapshot's, and it does not matter who writes
// meanwhile, or whether the file is damaged. After a crash everything that has its name still counts.
//
// Not for a target that does not exist: then everything is fetched in order (PageFetcher::Fetch). Thread safety: none. Memory: two bits an
// extent, 8 bytes where it shares blocks, 1 MiB of digests. Errors: those of the fetcher and the staging file; kDataLoss ROOT_MISMATCH,
// FETCH_INVALID.
#ifndef LITEFLEET_AGENT_RESTORE_DELTA_FETCH_H_
#define LITEFLEET_AGENT_RESTORE_DELTA_FETCH_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/restore/apply.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/restorer.h"
#include "agent/restore/staging_file.h"
#include "agent/restore/staging_log.h"

namespace litefleet::restore {

class DeltaFetch {
 public:
  // Makes an attempt as often as it may help; `gained` grows with what the attempts bring.
  using Persist = std::function<absl::Status(const std::function<absl::Status()>& attempt, const std::function<uint64_t()>& gained)>;
  struct Parts {
    const std::string& operation_id;
    const v1::RestoreOrder& order;
    const TargetPlace& place;
    const ApplyOptions& options;
    PageFetcher& fetcher;
    StagingFile& staging;
    StagingLog& log;
    const CancelToken& cancel;
    ProgressMeter& progress;
    const Persist& persist;
  };
  struct Result {
    bool supported = true;  // by the controller; else nothing was done
    uint64_t local_bytes = 0;
    uint64_t shared_bytes = 0;  // of the database's that were not copied: both files have the same blocks
    uint64_t fetched_bytes = 0;
    std::string note;  // why the present database could not be read to its end
  };

  explicit DeltaFetch(const Parts& parts);
  // Afterwards the staging file has all extents.
  absl::Status Run(const format::RootDigest& root, Result& result);

 private:
  absl::Status GetNames(const format::RootDigest& root);
  bool LogIsProven(const format::RootDigest& root) const;
  absl::StatusOr<format::ChunkName> NameOf(uint32_t extent) const;
  // What a former run left.
  absl::Status LookAtStaging();
  absl::Status TakeLocal(Result& result);
  // Asks for what is missing: with digests of what the staging file holds, where something of the device is there, or for all of it.
  absl::Status FetchMissing(bool with_digests, Result& result);
  absl::Status FetchBatch(const WantedPages& wanted, uint32_t begin, uint32_t end, Result& result);
  // The next batch of extents from `extent` on, which it moves.
  absl::StatusOr<WantedPages> Gather(bool with_digests, uint32_t& extent);
  // Looks whether extents up to `end` have their names by now.
  absl::Status Settle(uint32_t& from, uint32_t end);
  void Held(uint32_t extent);

  const Parts parts_;
  const uint32_t extents_;
  std::vector<bool> held_;     // has its name
  std::vector<bool> present_;  // holds something of the device
  uint64_t held_count_ = 0;
  Bytes buffer_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_DELTA_FETCH_H_
