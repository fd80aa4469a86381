// How long the machine has run, over its boots: by what the age of spooled files is counted, and of states of a former boot nothing else
// is known to be true. The device's clock may stand in 1970 until somebody sets it; the boot clock begins anew with each boot.
//
//   now = what was known when this boot began + the boot clock
//
// It never says more than what has passed: time in which the machine was off does not count, and of a boot that has ended what came after
// the last write (Keep, or a spooled snapshot) is lost. It never goes back, but where its file and all snapshots are lost.
//
// Thread safety: all members may be called from any thread. The file is written under mu_, under which nothing is called. Memory: a name
// for each file that was moved aside. FORMAT.md has the file.
#ifndef LITEFLEET_AGENT_SPOOL_RUN_TIME_H_
#define LITEFLEET_AGENT_SPOOL_RUN_TIME_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"

namespace litefleet::spool {

class RunTime {
 public:
  // What a crash loses of it at most.
  static constexpr std::chrono::milliseconds kStep = std::chrono::minutes(10);

  // One that cannot be read begins anew. `clock` outlives this. Empty `boot_id`: nobody knows; then a boot clock that is lower than the
  // last time tells of another boot.
  RunTime(std::string file, const Clock& clock, std::string boot_id);

  std::chrono::milliseconds Now() const;
  // What it was at a moment of this boot.
  std::chrono::milliseconds At(std::chrono::nanoseconds since_boot) const;
  // Of a former boot: it was so long then.
  void AtLeast(std::chrono::milliseconds run);
  // Of this boot.
  void AtLeast(std::chrono::milliseconds run, std::chrono::nanoseconds since_boot);

  // Writes where the last write was in another boot or kStep ago, or other files lie aside since. What failed is tried again after kStep.
  absl::Status Keep();

  // The files that lie aside now: new ones are noted, others forgotten.
  void SetAside(const std::set<std::string>& names);
  // Since when one lies there; nothing where it was never noted.
  std::optional<std::chrono::milliseconds> AsideFor(const std::string& name) const;

 private:
  int64_t RunMs(std::chrono::nanoseconds since_boot) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string file_;
  const Clock& clock_;
  const std::string boot_id_;

  mutable Mutex mu_;
  int64_t base_ms_ ABSL_GUARDED_BY(mu_) = 0;                                         // when this boot began
  std::optional<std::chrono::nanoseconds> written_since_boot_ ABSL_GUARDED_BY(mu_);  // or tried; nothing: not in this boot
  std::map<std::string, int64_t> aside_ ABSL_GUARDED_BY(mu_);                        // when they were seen first
  bool aside_changed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_RUN_TIME_H_
