#include "controller/flow/fair_queue.h"

#include <algorithm>
#include <chrono>
#include <cmath>

namespace litefleet::flow {

using std::chrono::duration;

void FairQueue::Add(const std::string& device, int64_t bytes, Go go) {
  Device& entry = devices_[device];
  entry.work.push_back({.bytes = static_cast<double>(std::max<int64_t>(bytes, 1)), .go = std::move(go)});
  ++waiting_;
  if (entry.work.size() > 1) return;
  rested_.erase({entry.start, device});
  entry.start = std::max(entry.start, now_);
  InsertTurn(device, entry);
}

std::vector<FairQueue::Go> FairQueue::Due(SteadyTime now) {
  if (filled_at_.has_value()) {
    const double passed = duration<double>(now - *filled_at_).count();
    tokens_ = std::min(tokens_ + rate_ * std::max(passed, 0.0), rate_ / 4);
  }
  filled_at_ = now;
  std::vector<Go> due;
  while (tokens_ > 0 && !turns_.empty()) {
    const auto [start, bytes, name] = *turns_.begin();
    turns_.erase(turns_.begin());
    Device& device = devices_[name];
    now_ = start;
    Work work = std::move(device.work.front());
    device.work.pop_front();
    --waiting_;
    tokens_ -= bytes;
    device.start += bytes;
    if (device.work.empty()) {
      rested_.insert({device.start, name});
    } else {
      InsertTurn(name, device);
    }
    due.push_back(std::move(work.go));
  }
  while (!rested_.empty() && (rested_.begin()->first <= now_ || turns_.empty())) {
    // Where nobody waits, whoever comes next has the next turn in any case.
    devices_.erase(rested_.begin()->second);
    rested_.erase(rested_.begin());
  }
  return due;
}

std::optional<SteadyTime> FairQueue::NextAt(SteadyTime now) const {
  if (turns_.empty()) return std::nullopt;
  if (tokens_ > 0) return now;
  // Until there is more than nothing.
  return now + std::chrono::nanoseconds(static_cast<int64_t>(std::ceil(-tokens_ / rate_ * 1e9)) + 1000);
}

}  // namespace litefleet::flow
