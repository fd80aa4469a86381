// Sees that a write of a stream does not take for ever: a peer that is connected and does not read would keep what the stream holds.
//
// One alarm a stream, set anew while a write is in flight, not one a write. For streams with one write in flight; where a message needs
// another limit than the stream this is not the place.
// Thread safety: all members may be called from any thread; `on_stall` is called on gRPC's threads, under no lock.
// Ownership: a shared_ptr of the stream's; the alarm holds it weakly, so `on_stall` is not called when it has gone.
#ifndef LITEFLEET_COMMON_RPC_WRITE_WATCH_H_
#define LITEFLEET_COMMON_RPC_WRITE_WATCH_H_

#include <grpcpp/alarm.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "common/base/mutex.h"

namespace litefleet::rpc {

class WriteWatch : public std::enable_shared_from_this<WriteWatch> {
 public:
  WriteWatch(std::chrono::milliseconds limit, std::function<void()> on_stall) : limit_(limit), on_stall_(std::move(on_stall)) {}

  // A write begins; it has begun before gRPC is asked for it.
  void Begin();
  // It has completed. `on_stall` may be on its way already: it asks its stream whether a write is in flight.
  void End();

 private:
  void Set(std::chrono::milliseconds after);
  void Look();

  const std::chrono::milliseconds limit_;
  const std::function<void()> on_stall_;
  Mutex mu_;
  std::optional<std::chrono::steady_clock::time_point> begun_ ABSL_GUARDED_BY(mu_);
  bool set_ ABSL_GUARDED_BY(mu_) = false;  // the alarm is set, or about to be
  std::unique_ptr<grpc::Alarm> alarm_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_WRITE_WATCH_H_
