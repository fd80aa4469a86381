// Ctrl-C, SIGTERM and SIGHUP: a command that has something to clean up or to say installs a handler; without one the process ends at once.
//
// One per process, made in main before other threads. Thread safety: all members may be called from any thread.
#ifndef LITEFLEET_CONTROLLER_CLI_INTERRUPT_H_
#define LITEFLEET_CONTROLLER_CLI_INTERRUPT_H_

#include <functional>

#include "common/base/mutex.h"

namespace litefleet::cli {

class Interrupts {
 public:
  Interrupts() = default;
  // Takes SIGINT, SIGTERM and, unless it is ignored, SIGHUP over for the rest of the process. A second signal ends it at once.
  void Install();
  // A signal came.
  bool raised() const;
  // As a signal would.
  void Raise();

  // While it lives, `on_interrupt` is called once, on another thread, instead of the end of the process; at once if a signal came before.
  // Within another one: that is called when this has gone.
  class Guard {
   public:
    Guard(Interrupts& interrupts, std::function<void()> on_interrupt);
    ~Guard();
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    Interrupts& interrupts_;
    std::function<void()> before_;
  };

 private:
  mutable Mutex mu_;
  std::function<void()> handler_ ABSL_GUARDED_BY(mu_);
  bool raised_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_INTERRUPT_H_
