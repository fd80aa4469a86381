// How long somebody who waits bears with a device or a controller that is not there, all in all: what comes back for a moment does not
// begin the time anew.
//
// Thread safety: none. Memory: constant.
#ifndef LITEFLEET_CONTROLLER_CLI_PATIENCE_H_
#define LITEFLEET_CONTROLLER_CLI_PATIENCE_H_

#include <chrono>

#include "common/base/clock.h"

namespace litefleet::cli {

class Patience {
 public:
  Patience(std::chrono::nanoseconds total, SteadyTime now) : left_(total), looked_(now) {}

  // Whether it was there since the last look; false: what passed since counts.
  void Look(SteadyTime now, bool there) {
    if (!there) left_ -= now - looked_;
    looked_ = now;
  }
  bool ended() const { return left_ <= std::chrono::nanoseconds(0); }

 private:
  std::chrono::nanoseconds left_;
  SteadyTime looked_;
};

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_PATIENCE_H_
