// Carries a heal order out: reads the database, and sends what the store lost and the database still has.
//
// What is found goes into a file of the state directory while the database is read, and is sent when it has been let go: no lock waits for
// the network. Thread safety: RunHeal blocks one thread. Deadlines: `give_up_at` ends everything; a cancel is seen within 100 ms. Errors:
// those of the source; ORDER_INVALID, DISK_FULL, CONTROLLER_UNREACHABLE, what the controller refuses with, CANCELLED.
#ifndef LITEFLEET_AGENT_HEAL_HEALER_H_
#define LITEFLEET_AGENT_HEAL_HEALER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/page_source.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/rate_limit.h"
#include "common/io/disk_reserve.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::heal {

class WantedSender {
 public:
  virtual ~WantedSender() = default;
  // Blocks until the controller can be reached. kDeadlineExceeded CONTROLLER_UNREACHABLE, kCancelled.
  virtual absl::Status WaitConnected(SteadyTime deadline, const CancelToken& cancel) = 0;
  // Durable at the controller on return. May be repeated.
  virtual absl::StatusOr<v1::SendWantedResponse> Send(const v1::SendWantedRequest& request, const CancelToken& cancel) = 0;
};

struct HealJob {
  std::string operation_id;
  const v1::HealOrder& order;
  std::string spool_file;
  io::DiskReserve reserve;
  // Opens and pins the database; called once a pass.
  std::function<absl::StatusOr<std::unique_ptr<capture::PageSource>>()> open;
  SteadyTime give_up_at;
  // Told before and after it only waits, with nothing pinned; it may block in the latter, until its turn comes. May be empty.
  std::function<void(bool waits)> waits;
};

struct HealOutcome {
  absl::Status status;
  v1::Progress progress;
  uint32_t found = 0;  // of the wanted chunks
};

HealOutcome RunHeal(const HealJob& job, WantedSender& sender, RateLimit& rate, const CancelToken& cancel,
                    const std::function<void(const v1::Progress&)>& progress);

}  // namespace litefleet::heal

#endif  // LITEFLEET_AGENT_HEAL_HEALER_H_
