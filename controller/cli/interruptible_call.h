// A call that Ctrl-C ends. Thread safety: all members may be called from any thread.
#ifndef LITEFLEET_CONTROLLER_CLI_INTERRUPTIBLE_CALL_H_
#define LITEFLEET_CONTROLLER_CLI_INTERRUPTIBLE_CALL_H_

#include <atomic>

#include "common/base/mutex.h"
#include "controller/cli/admin_client.h"
#include "controller/cli/interrupt.h"

namespace litefleet::cli {

class InterruptibleCall {
 public:
  // `interrupts` outlives this.
  explicit InterruptibleCall(Interrupts& interrupts) : guard_(interrupts, [this] { Interrupted(); }) {}
  InterruptibleCall(const InterruptibleCall&) = delete;
  InterruptibleCall& operator=(const InterruptibleCall&) = delete;

  // What is to be cancelled from now on, at once if the interrupt came before; null: nothing any more.
  void Set(AdminClient::Cancellable* call) {
    MutexLock lock(mu_);
    running_ = call;
    if (call != nullptr && interrupted_) call->Cancel();
  }
  bool interrupted() const { return interrupted_; }

 private:
  void Interrupted() {
    interrupted_ = true;
    MutexLock lock(mu_);
    if (running_ != nullptr) running_->Cancel();
  }

  std::atomic<bool> interrupted_ = false;
  Mutex mu_;
  AdminClient::Cancellable* running_ ABSL_GUARDED_BY(mu_) = nullptr;
  Interrupts::Guard guard_;  // last: it calls this
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_INTERRUPTIBLE_CALL_H_
