// Asks long work to stop. Set by anybody, seen by blocking code at least every 100 ms. Thread safety: any thread.
#ifndef LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_
#define LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_

#include <atomic>

namespace litefleet {

class CancelToken {
 public:
  void Cancel() { cancelled_.store(true); }
  bool cancelled() const { return cancelled_.load(); }

 private:
  std::atomic<bool> cancelled_{false};
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_CANCEL_TOKEN_H_
