// The one connection of an agent, as everything in it that calls the controller finds it: whoever connects puts the channel in and
// takes it out, others wait for it.
//
// Thread safety: all members may be called from any thread.
#ifndef LITEFLEET_COMMON_RPC_CHANNEL_HUB_H_
#define LITEFLEET_COMMON_RPC_CHANNEL_HUB_H_

#include <memory>

#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace grpc {
class Channel;
}

namespace litefleet::rpc {

class ChannelHub {
 public:
  // The controller has answered on it. Calls that began on an older channel go on there.
  void Connected(std::shared_ptr<grpc::Channel> channel);
  void Disconnected();
  // Null while there is no connection.
  std::shared_ptr<grpc::Channel> Current() const;
  // Null at `deadline`, or at most 100 ms after the token was cancelled.
  std::shared_ptr<grpc::Channel> Wait(SteadyTime deadline, const CancelToken& cancel) const;

 private:
  mutable Mutex mu_;
  mutable CondVar connected_;
  std::shared_ptr<grpc::Channel> channel_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_CHANNEL_HUB_H_
