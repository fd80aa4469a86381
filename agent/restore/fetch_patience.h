// A fetch that is made again as long as that may help.
//
// Thread safety: none; blocks. Errors: those of the attempt that cannot be helped; kUnavailable FETCH_STALLED; kCancelled CANCELLED.
#ifndef LITEFLEET_AGENT_RESTORE_FETCH_PATIENCE_H_
#define LITEFLEET_AGENT_RESTORE_FETCH_PATIENCE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "agent/restore/progress_meter.h"
#include "agent/restore/restorer.h"

namespace litefleet::restore {

struct FetchPatience {
  const std::string& operation_id;
  std::chrono::seconds patience;  // without any gain
  const CancelToken& cancel;
  ProgressMeter& progress;
};

// `gained` grows with what attempts bring.
absl::Status PersistFetch(const FetchPatience& fetch, const std::function<absl::Status()>& attempt,
                          const std::function<uint64_t()>& gained);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_FETCH_PATIENCE_H_
