// Asks long work to stop. Set by anybody, seen by blocking code at least every 100 ms. Thread safety: any thread.
#ifndef LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_
#define LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_

#include <atomic>

namespace litefleet {

class CancelToken {
 public:
  // For good: nothing of the work is to stay.
  void Cancel() { state_.store(State::kCancelled); }
  // The program ends: the work stops as at a cancel, but leaves what it has for its next start. A cancel before or after this counts more.
  void Interrupt() {
    State running = State::kRunning;
    state_.compare_exchange_strong(running, State::kInterrupted);
  }
  bool cancelled() const { return state_.load() != State::kRunning; }
  bool interrupted() const { return state_.load() == State::kInterrupted; }

 private:
  enum class State { kRunning, kInterrupted, kCancelled };
  std::atomic<State> state_{State::kRunning};
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_
