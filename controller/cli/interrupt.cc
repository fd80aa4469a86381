#include "controller/cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>
#include <utility>

#include "controller/cli/exit_code.h"

namespace litefleet::cli {

void Interrupts::Install() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  // The terminal is closed; not for nohup(1), whose programs go on.
  struct sigaction hangup {};
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  // Blocked here and so in every thread that is made later; one thread waits for them, so that handlers may do anything.
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::thread([this, signals] {
    for (;;) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      if (raised()) _exit(kInterrupted);
      Raise();
    }
  }).detach();
}

bool Interrupts::raised() const {
  MutexLock lock(mu_);
  return raised_;
}

void Interrupts::Raise() {
  MutexLock lock(mu_);
  raised_ = true;
  if (!handler_) _exit(kInterrupted);
  // Called under the lock: a guard that goes waits for it, so what the handler touches stays. Handlers only set flags and cancel calls.
  handler_();
  handler_ = [] {};
}

Interrupts::Guard::Guard(Interrupts& interrupts, std::function<void()> on_interrupt) : interrupts_(interrupts) {
  MutexLock lock(interrupts_.mu_);
  before_ = std::move(interrupts_.handler_);
  if (interrupts_.raised_) {
    on_interrupt();
    interrupts_.handler_ = [] {};
  } else {
    interrupts_.handler_ = std::move(on_interrupt);
  }
}

Interrupts::Guard::~Guard() {
  MutexLock lock(interrupts_.mu_);
  interrupts_.handler_ = std::move(before_);
  if (!interrupts_.raised_ || !interrupts_.handler_) return;
  interrupts_.handler_();
  interrupts_.handler_ = [] {};
}

}  // namespace litefleet::cli
