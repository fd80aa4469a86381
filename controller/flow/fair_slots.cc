#include "controller/flow/fair_slots.h"

#include <utility>

namespace litefleet::flow {

FairSlots::FairSlots(const Limits& limits, const Clock& clock) : limits_(limits), clock_(clock) {
  if (limits_.own_thread) thread_ = std::thread([this] { Run(); });
}

void FairSlots::Stop() {
  std::map<uint64_t, Waiting> dropped;  // outside the lock
  {
    MutexLock lock(mu_);
    stop_ = true;
    dropped.swap(waiting_);
  }
  changed_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

void FairSlots::Leave(const std::string& name, const Device& device) {
  if (!device.waiting.empty()) turns_.erase({device.taken, *device.waiting.begin(), name});
}

void FairSlots::Enter(const std::string& name, const Device& device) {
  if (!device.waiting.empty()) {
    turns_.insert({device.taken, *device.waiting.begin(), name});
  } else if (device.taken == 0) {
    devices_.erase(name);
  }
}

void FairSlots::Take(const std::string& device, Go go) {
  bool granted = false;
  {
    MutexLock lock(mu_);
    if (stop_) return;
    granted = taken_ < limits_.slots;  // then nobody waits
    if (granted) {
      ++taken_;
      ++devices_[device].taken;
    } else if (waiting_.size() < limits_.max_waiting) {
      const uint64_t number = next_number_++;
      Device& entry = devices_[device];
      Leave(device, entry);
      entry.waiting.insert(number);
      Enter(device, entry);
      waiting_.emplace(number, Waiting{.device = device, .until = clock_.Steady() + limits_.patience, .go = std::move(go)});
      changed_.SignalAll();
      return;
    }
  }
  go(granted);
}

void FairSlots::GiveBack(const std::string& device) {
  Go next;
  {
    MutexLock lock(mu_);
    if (stop_) return;
    Device& entry = devices_[device];
    Leave(device, entry);
    --entry.taken;
    Enter(device, entry);
    if (turns_.empty()) {
      --taken_;
      return;
    }
    // The slot goes on as it is.
    const auto [taken, number, name] = *turns_.begin();
    Device& chosen = devices_[name];
    Leave(name, chosen);
    chosen.waiting.erase(number);
    ++chosen.taken;
    Enter(name, chosen);
    const auto it = waiting_.find(number);
    next = std::move(it->second.go);
    waiting_.erase(it);
  }
  next(true);
}

std::vector<FairSlots::Go> FairSlots::TakeOverdue() {
  std::vector<Go> overdue;
  const SteadyTime now = clock_.Steady();
  while (!waiting_.empty() && waiting_.begin()->second.until <= now) {
    Waiting& first = waiting_.begin()->second;
    Device& device = devices_[first.device];
    Leave(first.device, device);
    device.waiting.erase(waiting_.begin()->first);
    Enter(first.device, device);
    overdue.push_back(std::move(first.go));
    waiting_.erase(waiting_.begin());
  }
  return overdue;
}

void FairSlots::Tick() {
  std::vector<Go> overdue;
  {
    MutexLock lock(mu_);
    overdue = TakeOverdue();
  }
  for (Go& go : overdue) go(false);
}

void FairSlots::Run() {
  for (;;) {
    std::vector<Go> overdue;
    {
      MutexLock lock(mu_);
      if (stop_) return;
      overdue = TakeOverdue();
      if (overdue.empty()) {
        if (waiting_.empty()) {
          changed_.Wait(mu_);
        } else {
          changed_.WaitUntil(mu_, waiting_.begin()->second.until);
        }
      }
    }
    for (Go& go : overdue) go(false);
  }
}

size_t FairSlots::taken() const {
  MutexLock lock(mu_);
  return taken_;
}
size_t FairSlots::waiting() const {
  MutexLock lock(mu_);
  return waiting_.size();
}
size_t FairSlots::devices() const {
  MutexLock lock(mu_);
  return devices_.size();
}

}  // namespace litefleet::flow
