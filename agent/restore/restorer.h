// Puts a snapshot in the place of a database on this device: fetch, stage, verify, apply, report (design section 8).
//
// Not for several restores of one database at once: the caller serialises. Thread safety: Run and Plan block and are called from
// worker threads; Cancel of the token may come from any thread.
#ifndef LITEFLEET_AGENT_RESTORE_RESTORER_H_
#define LITEFLEET_AGENT_RESTORE_RESTORER_H_

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/cancel_token.h"
#include "common/files/rules.h"
#include "common/format/digest.h"
#include "common/io/disk_reserve.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::restore {

// How fast pages are copied into a live database, both reading and writing counted.
struct CopyRate {
  int64_t bytes_per_second = 0;  // 0: not known
};

// The target, from the device's own configuration (design law 8).
struct Target {
  std::string database;      // configured name
  std::string path;          // absolute
  std::string push_restore;  // never | local-confirm | signed | allow
  io::DiskReserve reserve;   // stays free beside it
  CopyRate rate;             // of the last live restore of it, if there was one
  // In rollback mode readers hold writers up: the read-back after a live restore ends after this long.
  std::chrono::milliseconds rollback_stall{2'000};
  // Plain files below `path`, and nothing else: what a restore may touch.
  std::optional<files::Rules> files = std::nullopt;
  // Paths of the device's databases, which no restore of files replaces.
  std::vector<std::string> databases = {};
};

using litefleet::CancelToken;

// One extent, its content proven to be what `name` says.
struct FetchedExtent {
  uint32_t extent = 0;
  format::ChunkName name;
  ByteView pages;          // valid during the call
  int64_t wire_bytes = 0;  // that crossed the wire for it
};

struct PageRange {
  uint32_t first_page = 0;  // from 1
  uint32_t page_count = 0;
};

// Pages of several extents, of which nothing is proven but that they came as they were sent.
struct FetchedPages {
  std::span<const PageRange> runs;  // ascending
  ByteView pages;                   // valid during the call
  int64_t wire_bytes = 0;
};

// Pages, and what this device has in their places.
struct WantedPages {
  static constexpr size_t kHaveBytes = 3;
  std::vector<PageRange> runs;  // ascending, apart from each other
  std::string have;             // the beginning of the digest of each, or nothing at all
};

// Where the pages of a snapshot come from; the gRPC stream in the agent, a file or a fake in tests.
class PageFetcher {
 public:
  virtual ~PageFetcher() = default;
  // One attempt: calls `sink` on the caller's thread with extents in ascending order, without holes, from `first_extent` to the last; an
  // error of the sink ends the fetch and is returned. Whoever calls tries again, from the extent after the last one it got, where the code
  // says that it may help (kUnavailable, kDeadlineExceeded, kAborted, kResourceExhausted). Anything that is not as the order says is
  // kDataLoss FETCH_INVALID or CHUNK_DAMAGED. kCancelled CANCELLED at most 200 ms after the token was set.
  virtual absl::Status Fetch(const std::string& operation_id, const v1::RestoreOrder& order, uint32_t first_extent,
                             const CancelToken& cancel, const std::function<absl::Status(const FetchedExtent&)>& sink) = 0;
  // The names of all extents, ascending: their root is for the caller to prove. kUnimplemented NAMES_UNSUPPORTED where the controller is an
  // older one.
  virtual absl::Status FetchNames(const std::string& operation_id, const v1::RestoreOrder& order, const CancelToken& cancel,
                                  const std::function<absl::Status(std::span<const format::ChunkName>)>& sink) = 0;
  // Those of the wanted pages that are not what is here, in ascending order. One attempt, as Fetch.
  virtual absl::Status FetchPages(const std::string& operation_id, const v1::RestoreOrder& order, const WantedPages& wanted,
                                  const CancelToken& cancel, const std::function<absl::Status(const FetchedPages&)>& sink) = 0;
};

struct Outcome {
  absl::Status status;             // kCancelled when the token was set in time
  std::vector<std::string> steps;  // for people, in order
  std::string undo;                // where the previous state is, empty: nowhere
  int64_t stall_ms = 0;
  int64_t stall_bytes = 0;  // read and written meanwhile: what the next plan goes by
  v1::RestoreMode mode = v1::RESTORE_MODE_UNSPECIFIED;
  std::vector<v1::HookRun> hooks;
  bool applied = false;  // the restored state is in place, and the database on its new timeline, whatever the status
};

class Restorer {
 public:
  virtual ~Restorer() = default;
  // Blocks until the restore has ended, well or not. After a crash it is called again with the same order and finishes or rolls back.
  virtual Outcome Run(const std::string& operation_id, const v1::RestoreOrder& order, const Target& target, const CancelToken& cancel,
                      const std::function<void(const v1::Progress&)>& progress) = 0;
  // Changes nothing.
  virtual absl::StatusOr<v1::RestorePlan> Plan(const v1::RestoreOrder& order, const Target& target) = 0;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_RESTORER_H_
