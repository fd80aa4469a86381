// Asks long work to stop. Set by anybody, seen by blocking code at least every 100 ms. Thread safety: any thread.
#ifndef LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_
#define LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_

#include <atomic>

namespace litefleet {

class CancelToken {
 public:
  CancelToken() = default;
  // For work that is behind its point of no return: hears of `of` that the program ends, and of no cancel. `of` outlives it.
  static CancelToken EndOf(const CancelToken& of) { return CancelToken(&of); }

  // For good: nothing of the work is to stay.
  void Cancel() { state_.store(State::kCancelled); }
  // The program ends: the work stops as at a cancel, but leaves what it has for its next start. A cancel before or after this counts more.
  void Interrupt() {
    ending_.store(true);
    State running = State::kRunning;
    state_.compare_exchange_strong(running, State::kInterrupted);
  }
  bool cancelled() const { return state_.load() != State::kRunning || (of_ != nullptr && of_->ending()); }
  bool interrupted() const { return state_.load() == State::kInterrupted || (of_ != nullptr && of_->ending()); }
  // The program ends, also where a cancel counts more.
  bool ending() const { return ending_.load() || (of_ != nullptr && of_->ending()); }

 private:
  explicit CancelToken(const CancelToken* of) : of_(of) {}

  enum class State { kRunning, kInterrupted, kCancelled };
  std::atomic<State> state_{State::kRunning};
  std::atomic<bool> ending_{false};
  const CancelToken* const of_ = nullptr;
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_
