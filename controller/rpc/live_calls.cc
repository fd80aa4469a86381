#include "controller/rpc/live_calls.h"

namespace litefleet::rpc {

struct LiveCalls::Hold {
  std::shared_ptr<LiveCalls> calls;
  std::string device;
  uint64_t number;
  ~Hold() { calls->Remove(device, number); }
};

std::shared_ptr<void> LiveCalls::Add(const std::string& device, const grpc::ServerContextBase& context) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mu_);
    number = next_++;
    calls_[device][number] = Call{&context, false};
  }
  return std::shared_ptr<Hold>(new Hold{shared_from_this(), device, number});
}

void LiveCalls::Remove(const std::string& device, uint64_t number) {
  const std::lock_guard lock(mu_);
  const auto of_device = calls_.find(device);
  if (of_device == calls_.end()) return;
  of_device->second.erase(number);
  if (of_device->second.empty()) calls_.erase(of_device);
}

void LiveCalls::CancelAllOf(const std::string& device) {
  const std::lock_guard lock(mu_);
  for (;;) {
    // Looked up anew after each: cancelling may have removed calls.
    const grpc::ServerContextBase* next = nullptr;
    if (const auto of_device = calls_.find(device); of_device != calls_.end()) {
      for (auto& [number, call] : of_device->second) {
        if (call.cancelled) continue;
        call.cancelled = true;
        next = call.context;
        break;
      }
    }
    if (next == nullptr) return;
    next->TryCancel();
  }
}

}  // namespace litefleet::rpc
