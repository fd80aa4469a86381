// A total rate for streams of many devices, shared fairly (FairQueue), with the clock and a thread of its own.
//
//   rate.Charge(device, bytes, [stream] { stream->ReadNext(); });      backpressure: the next message is not asked for before
//
// Thread safety: all members may be called from any thread. `go` runs in Charge itself where nobody has to wait, else on the thread: it
// must not block, nor hold a lock that a caller of Charge holds. Ownership: what waits at the end (Stop) is dropped, not called.
#ifndef LITEFLEET_CONTROLLER_FLOW_FAIR_RATE_H_
#define LITEFLEET_CONTROLLER_FLOW_FAIR_RATE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "controller/flow/fair_queue.h"

namespace litefleet::flow {

class FairRate {
 public:
  // 0: no limit.
  FairRate(int64_t bytes_per_second, const Clock& clock);
  ~FairRate() { Stop(); }
  FairRate(const FairRate&) = delete;
  FairRate& operator=(const FairRate&) = delete;

  bool limited() const { return limited_; }
  // `bytes` were moved for the device; `go` is called once, when it may move more.
  void Charge(const std::string& device, int64_t bytes, FairQueue::Go go) ABSL_LOCKS_EXCLUDED(mu_);
  // What waits is dropped, and what comes later. Idempotent, by one thread.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);
  // Pieces of work that wait.
  size_t waiting() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();

  const bool limited_;
  const Clock& clock_;
  mutable Mutex mu_;
  CondVar changed_;
  std::unique_ptr<FairQueue> queue_ ABSL_GUARDED_BY(mu_);  // null: stopped
  std::thread thread_;
};

}  // namespace litefleet::flow

#endif  // LITEFLEET_CONTROLLER_FLOW_FAIR_RATE_H_
