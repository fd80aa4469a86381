// What somebody has to know of a call that is going on, for instance to cancel it: told when it ends.
#ifndef LITEFLEET_COMMON_RPC_CALL_HOLD_H_
#define LITEFLEET_COMMON_RPC_CALL_HOLD_H_

namespace litefleet::rpc {

class CallHold {
 public:
  virtual ~CallHold() = default;
  // In OnDone, while the call's context is still there: it is not touched any more when this has returned. May be called again.
  virtual void Ended() = 0;
  // Cancels the call, if it has not ended: also where the one who asks cannot know whether its context is still there.
  virtual void Cancel() {}
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_CALL_HOLD_H_
