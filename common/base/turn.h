// One at a time, for work that takes long: who comes while somebody has the turn waits for it. Not a lock of data: those are held for
// moments and never across input and output; a turn is held across both, and what it orders is the work itself.
//
// Thread safety: any thread; not re-entrant. No fairness is promised.
#ifndef LITEFLEET_COMMON_BASE_TURN_H_
#define LITEFLEET_COMMON_BASE_TURN_H_

#include "common/base/mutex.h"

namespace litefleet {

class Turn {
 public:
  Turn() = default;
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // Has the turn from its construction to its end.
  class Holder {
   public:
    explicit Holder(Turn& turn) : turn_(turn) {
      MutexLock lock(turn_.mu_);
      while (turn_.taken_) turn_.free_.Wait(turn_.mu_);
      turn_.taken_ = true;
    }
    ~Holder() {
      {
        MutexLock lock(turn_.mu_);
        turn_.taken_ = false;
      }
      turn_.free_.Signal();
    }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;

   private:
    Turn& turn_;
  };

 private:
  Mutex mu_;
  CondVar free_;
  bool taken_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_TURN_H_
