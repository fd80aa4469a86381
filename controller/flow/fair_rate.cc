#include "controller/flow/fair_rate.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace litefleet::flow {

FairRate::FairRate(int64_t bytes_per_second, const Clock& clock)
    : limited_(bytes_per_second > 0), clock_(clock), queue_(std::make_unique<FairQueue>(std::max<int64_t>(bytes_per_second, 1))) {
  if (limited_) thread_ = std::thread([this] { Run(); });
}

void FairRate::Stop() {
  std::unique_ptr<FairQueue> dropped;  // outside the lock
  {
    MutexLock lock(mu_);
    dropped.swap(queue_);
  }
  changed_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

void FairRate::Charge(const std::string& device, int64_t bytes, FairQueue::Go go) {
  if (!limited_) return go();
  std::vector<FairQueue::Go> due;
  {
    MutexLock lock(mu_);
    if (queue_ == nullptr) return;
    queue_->Add(device, bytes, std::move(go));
    due = queue_->Due(clock_.Steady());
    if (queue_->waiting() > 0) changed_.SignalAll();
  }
  for (FairQueue::Go& each : due) each();
}

size_t FairRate::waiting() const {
  MutexLock lock(mu_);
  return queue_ != nullptr ? queue_->waiting() : 0;
}

void FairRate::Run() {
  for (;;) {
    std::vector<FairQueue::Go> due;
    {
      MutexLock lock(mu_);
      if (queue_ == nullptr) return;
      const SteadyTime now = clock_.Steady();
      due = queue_->Due(now);
      if (due.empty()) {
        if (const auto next = queue_->NextAt(now); next.has_value()) {
          changed_.WaitUntil(mu_, *next);
        } else {
          changed_.Wait(mu_);
        }
      }
    }
    for (FairQueue::Go& each : due) each();
  }
}

}  // namespace litefleet::flow
