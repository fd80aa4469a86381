// One watcher of one operation: gets its states in order, one call at a time, the newest where several came meanwhile.
//
// Thread safety: all members may be called from any thread. Memory: one pending operation. The callback runs on the thread of whoever
// notified first, without a lock.
#ifndef LITEFLEET_CONTROLLER_FLEET_WATCH_H_
#define LITEFLEET_CONTROLLER_FLEET_WATCH_H_

#include <cstdint>
#include <functional>
#include <optional>
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
    if (calling_) {  // that thread goes on with this one
      mu_.Unlock();
      return;
    }
    calling_ = true;
    while (pending_.has_value() && !closed_) {
      const v1::Operation next = *std::exchange(pending_, std::nullopt);
      mu_.Unlock();
      callback_(next);
      mu_.Lock();
    }
    calling_ = false;
    mu_.Unlock();
  }

  // No call begins after this; one may be under way. Does not wait, so it may come from a reaction.
  void Close() {
    MutexLock lock(mu_);
    closed_ = true;
    pending_.reset();
  }

 private:
  const std::function<void(const v1::Operation&)> callback_;
  Mutex mu_;
  std::optional<v1::Operation> pending_ ABSL_GUARDED_BY(mu_);
  bool calling_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t newest_ ABSL_GUARDED_BY(mu_) = 0;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_WATCH_H_
