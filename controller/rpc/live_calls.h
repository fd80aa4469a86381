// Calls of devices that are going on, so that revoking a device ends them.
//
// Thread safety: all members may be called from any thread. Ownership: a hold belongs to the reactor of its call, which tells it in OnDone,
// or lets it go before the call's context does.
#ifndef LITEFLEET_CONTROLLER_RPC_LIVE_CALLS_H_
#define LITEFLEET_CONTROLLER_RPC_LIVE_CALLS_H_

#include <grpcpp/server_context.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "common/rpc/call_hold.h"

namespace litefleet::rpc {

class LiveCalls : public std::enable_shared_from_this<LiveCalls> {
 public:
  std::shared_ptr<CallHold> Add(const std::string& device, const grpc::ServerContextBase& context);
  void CancelAllOf(const std::string& device);

 private:
  class Hold;
  struct Call {
    const grpc::ServerContextBase* context = nullptr;
    bool cancelled = false;
  };
  void Remove(const std::string& device, uint64_t number);
  void Cancel(const std::string& device, uint64_t number);

  // Recursive, and held while gRPC is told to cancel: the call's context must not go in between, and gRPC may end the call, and so
  // remove it here, before it returns. Nothing else is locked under it.
  std::recursive_mutex mu_;
  std::map<std::string, std::map<uint64_t, Call>> calls_;  // guarded by mu_
  uint64_t next_ = 1;                                      // guarded by mu_
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_LIVE_CALLS_H_
