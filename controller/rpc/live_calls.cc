#include "controller/rpc/live_calls.h"

namespace litefleet::rpc {

class LiveCalls::Hold final : public CallHold {
 public:
  Hold(std::shared_ptr<LiveCalls> calls, std::string device, uint64_t number)
      : calls_(std::move(calls)), device_(std::move(device)), number_(number) {}
  ~Hold() override { Ended(); }
  void Ended() override { calls_->Remove(device_, number_); }
  void Cancel() override { calls_->Cancel(device_, number_); }

 private:
  const std::shared_ptr<LiveCalls> calls_;
  const std::string device_;
  const uint64_t number_;
};

std::shared_ptr<CallHold> LiveCalls::Add(const std::string& device, const grpc::ServerContextBase& context) {
  uint64_t number = 0;
  {
    const std::lock_guard lock(mu_);
    number = next_++;
    calls_[device][number] = Call{&context, false};
  }
  return std::make_shared<Hold>(shared_from_this(), device, number);
}

void LiveCalls::Remove(const std::string& device, uint64_t number) {
  const std::lock_guard lock(mu_);
  const auto of_device = calls_.find(device);
  if (of_device == calls_.end()) return;
  of_device->second.erase(number);
  if (of_device->second.empty()) calls_.erase(of_device);
}

void LiveCalls::Cancel(const std::string& device, uint64_t number) {
  const std::lock_guard lock(mu_);
  const auto of_device = calls_.find(device);
  if (of_device == calls_.end()) return;
  const auto call = of_device->second.find(number);
  if (call == of_device->second.end()) return;
  call->second.cancelled = true;
  call->second.context->TryCancel();
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
