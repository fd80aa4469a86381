// One line about a running operation: how much, how fast, how long it will take.
//
// Thread safety: none. The rate is that of the last ten seconds.
#ifndef LITEFLEET_CONTROLLER_CLI_PROGRESS_H_
#define LITEFLEET_CONTROLLER_CLI_PROGRESS_H_

#include <deque>
#include <string>
#include <utility>

#include "common/base/clock.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::cli {

class RateMeter {
 public:
  void Add(SteadyTime now, int64_t done);
  // Bytes a second; 0 while unknown.
  double Rate() const;

 private:
  std::deque<std::pair<SteadyTime, int64_t>> samples_;
};

// "backup of kiosk/orders: reading 45% 120 MiB of 256 MiB, 34 MiB/s, 4.1 s left".
std::string ProgressLine(const v1::Operation& operation, double rate);
// "downloading 45% ..." for bytes without an operation.
std::string ProgressLine(std::string_view what, int64_t done, int64_t total, double rate);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_PROGRESS_H_
