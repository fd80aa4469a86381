// Whether the machine's clock is kept right by the network or another source.
#ifndef LITEFLEET_CONTROLLER_RETENTION_CLOCK_SYNC_H_
#define LITEFLEET_CONTROLLER_RETENTION_CLOCK_SYNC_H_

namespace litefleet::retention {

// What the kernel says (adjtimex(2)); where that is not allowed, as under ProtectClock= of systemd, what systemd-timesyncd says. False
// where nobody says anything. Thread safety: any thread; does not block.
bool ClockIsSynchronized();

}  // namespace litefleet::retention

#endif  // LITEFLEET_CONTROLLER_RETENTION_CLOCK_SYNC_H_
