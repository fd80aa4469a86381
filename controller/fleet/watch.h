// One watcher of one operation: gets its states in order, one call at a time, the newest where several came meanwhile.
//
// Thread safety: all members may be called from any thread. Memory: one pending operation. The callback runs on the thread of whoever
// notified first, without a lock.
#ifndef LITEFLEET_CONTROLLER_FLEET_WATCH_H_
#define LITEFLEET_CONTROLLER_FLEET_WATCH_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include "common/base/mutex.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::fleet {

class Watch {
 public:
  explicit Watch(std::function<void(const v1::Operation&)> callback) : callback_(std::move(callback)) {}

  // `version` grows with each change; what is not newer than what was given before is dropped.
  void Notify(const v1::Operation& operation, uint64_t version) {
    mu_.Lock();
    if (closed_ || version <= newest_) {
      mu_.Unlock();
      return;
    }
    newest_ = version;
    pending_ = operation;
    if (calling_.has_value()) {  // that thread goes on with this one
      mu_.Unlock();
      return;
    }
    calling_ = std::this_thread::get_id();
    while (pending_.has_value() && !closed_) {
      const v1::Operation next = *std::exchange(pending_, std::nullopt);
      mu_.Unlock();
      callback_(next);
      mu_.Lock();
    }
    calling_.reset();
    mu_.Unlock();
    idle_.SignalAll();
  }

  // No call begins after this, and none is under way, but for the one that this may be called from.
  void Close() {
    MutexLock lock(mu_);
    closed_ = true;
    pending_.reset();
    while (calling_.has_value() && *calling_ != std::this_thread::get_id()) idle_.Wait(mu_);
  }

 private:
  const std::function<void(const v1::Operation&)> callback_;
  Mutex mu_;
  CondVar idle_;
  std::optional<v1::Operation> pending_ ABSL_GUARDED_BY(mu_);
  std::optional<std::thread::id> calling_ ABSL_GUARDED_BY(mu_);
  uint64_t newest_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_WATCH_H_
