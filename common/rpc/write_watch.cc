#include "common/rpc/write_watch.h"

#include <utility>

namespace litefleet::rpc {

using std::chrono::milliseconds;

void WriteWatch::Begin() {
  {
    MutexLock lock(mu_);
    begun_ = std::chrono::steady_clock::now();
    if (std::exchange(set_, true)) return;
  }
  Set(limit_);
}

void WriteWatch::End() {
  MutexLock lock(mu_);
  begun_.reset();
}

void WriteWatch::Set(milliseconds after) {
  auto alarm = std::make_unique<grpc::Alarm>();
  grpc::Alarm* const ours = alarm.get();
  {
    MutexLock lock(mu_);
    alarm_.swap(alarm);  // the former has rung; whoever set set_ is alone here
  }
  ours->Set(std::chrono::system_clock::now() + after, [weak = weak_from_this()](bool rang) {
    const auto self = weak.lock();
    if (rang && self != nullptr) self->Look();
  });
}

void WriteWatch::Look() {
  milliseconds rest{0};
  {
    MutexLock lock(mu_);
    set_ = false;
    if (!begun_.has_value()) return;
    rest = std::chrono::ceil<milliseconds>(limit_ - (std::chrono::steady_clock::now() - *begun_));
    set_ = rest.count() > 0;
  }
  if (rest.count() > 0) return Set(rest);
  on_stall_();
}

}  // namespace litefleet::rpc
