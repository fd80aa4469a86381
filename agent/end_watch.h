// Interrupts a token when the program is told to end (SIGTERM, SIGINT), while a thread that waits for signals itself is at work on
// something else. The signal stays pending: that thread finds it when it comes back to it.
//
//   const EndWatch end;
//   RecoverDatabases(end.token());
//
// REQUIRES: all threads block these signals. Seen within 100 ms. Thread safety: the token's.
#ifndef LITEFLEET_AGENT_END_WATCH_H_
#define LITEFLEET_AGENT_END_WATCH_H_

#include <signal.h>

#include <chrono>
#include <thread>

#include "common/base/cancel_token.h"
#include "common/base/mutex.h"

namespace litefleet {

class EndWatch {
 public:
  EndWatch() : thread_([this] { Look(); }) {}
  ~EndWatch() {
    {
      MutexLock lock(mu_);
      stop_ = true;
    }
    changed_.SignalAll();
    thread_.join();
  }
  EndWatch(const EndWatch&) = delete;
  EndWatch& operator=(const EndWatch&) = delete;

  const CancelToken& token() const { return token_; }

 private:
  static bool EndPending() {
    sigset_t pending;
    if (sigpending(&pending) != 0) return false;
    return sigismember(&pending, SIGTERM) == 1 || sigismember(&pending, SIGINT) == 1;
  }

  void Look() {
    MutexLock lock(mu_);
    while (!stop_ && !EndPending()) changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(100));
    if (!stop_) token_.Interrupt();
  }

  CancelToken token_;
  Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace litefleet

#endif  // LITEFLEET_AGENT_END_WATCH_H_
