#include "common/rpc/channel_hub.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace litefleet::rpc {

void ChannelHub::Connected(std::shared_ptr<grpc::Channel> channel) {
  {
    MutexLock lock(mu_);
    // The older one goes outside of the lock.
    channel_.swap(channel);
  }
  connected_.SignalAll();
}

void ChannelHub::Disconnected() { Connected(nullptr); }

std::shared_ptr<grpc::Channel> ChannelHub::Current() const {
  MutexLock lock(mu_);
  return channel_;
}

std::shared_ptr<grpc::Channel> ChannelHub::Wait(SteadyTime deadline, const CancelToken& cancel) const {
  MutexLock lock(mu_);
  for (;;) {
    if (channel_ != nullptr || cancel.cancelled()) return channel_;
    const SteadyTime now = std::chrono::steady_clock::now();
    if (now >= deadline) return nullptr;
    connected_.WaitUntil(mu_, std::min(deadline, now + std::chrono::milliseconds(100)));
  }
}

}  // namespace litefleet::rpc
