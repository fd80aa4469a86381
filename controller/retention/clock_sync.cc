#include "controller/retention/clock_sync.h"

#include <sys/timex.h>
#include <unistd.h>

namespace litefleet::retention {

bool ClockIsSynchronized() {
  timex state{};
  const int rc = adjtimex(&state);
  if (rc >= 0) return rc != TIME_ERROR && (state.status & STA_UNSYNC) == 0;
  return access("/run/systemd/timesync/synchronized", F_OK) == 0;
}

}  // namespace litefleet::retention
