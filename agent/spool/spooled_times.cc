// The part of SnapshotSpool that says how old a snapshot is, and when it was taken, also where the machine has been started since then.
#include <algorithm>

#include "agent/spool/snapshot_spool.h"

namespace litefleet::spool {
namespace {

// No clock that says less was set.
constexpr SystemTime kNoClockBefore{std::chrono::seconds(1'704'067'200)};  // 2024
constexpr std::chrono::seconds kClockWasSet{30};                           // less is how clocks are kept in step

}  // namespace

absl::Status SnapshotSpool::KeepRunTime() {
  if (Total().snapshots == 0 && AsideBytes() == 0) return absl::OkStatus();
  return run_time_.Keep();
}

std::chrono::milliseconds SnapshotSpool::AgeOf(const SpooledSnapshot& snapshot) const {
  const std::chrono::nanoseconds since_boot = clock_.SinceBoot();
  if (const auto then = snapshot.taken_since_boot(boot_id_); then.has_value())
    return std::chrono::duration_cast<std::chrono::milliseconds>(since_boot - *then);
  // Of an agent that did not know how long the machine had run: since this boot at least.
  if (snapshot.header.taken_run_ms() == 0) return std::chrono::duration_cast<std::chrono::milliseconds>(since_boot);
  return run_time_.Now() - std::chrono::milliseconds(snapshot.header.taken_run_ms());
}

SystemTime SnapshotSpool::TakenAt(const SpooledSnapshot& snapshot, SystemTime earliest) const {
  if (KnowsAge(snapshot)) return snapshot.taken_at();
  const SystemTime now = clock_.Now();
  const std::chrono::nanoseconds since_boot = clock_.SinceBoot();
  const std::chrono::milliseconds run = run_time_.Now();
  // One that is not over yet was noted by a clock that has been set back.
  const SystemTime believed_from = std::max(earliest > now ? SystemTime() : earliest - kClockWasSet, kNoClockBefore);
  MutexLock lock(mu_);
  const auto chain = table_.find(snapshot.header.database());
  if (chain == table_.end()) return snapshot.taken_at();
  const storage::v1::SpooledHeader* next = nullptr;  // what is behind the one that is looked at
  SystemTime at = now;                               // and when that was
  for (auto entry = chain->second.rbegin(); entry != chain->second.rend() && entry->first >= snapshot.number; ++entry) {
    const storage::v1::SpooledHeader& header = entry->second.header;
    if (const auto then = entry->second.taken_since_boot(boot_id_); then.has_value()) {
      at = now - std::chrono::duration_cast<SystemTime::duration>(since_boot - *then);
    } else {
      std::chrono::nanoseconds passed(0);  // between the two, at least
      if (next != nullptr && !header.boot_id().empty() && header.boot_id() == next->boot_id()) {
        passed = std::chrono::nanoseconds(next->taken_since_boot_ns() - header.taken_since_boot_ns());
      } else if (header.taken_run_ms() != 0 && (next == nullptr || next->taken_run_ms() != 0)) {
        passed =
            (next == nullptr ? run : std::chrono::milliseconds(next->taken_run_ms())) - std::chrono::milliseconds(header.taken_run_ms());
      } else if (next == nullptr || next->boot_id() == boot_id_) {
        passed = next == nullptr ? since_boot : std::chrono::nanoseconds(next->taken_since_boot_ns());
      }
      const SystemTime latest = at - std::chrono::duration_cast<SystemTime::duration>(std::max(passed, std::chrono::nanoseconds(0)));
      const SystemTime said = entry->second.taken_at();
      at = said >= believed_from ? std::min(said, latest) : latest;
    }
    next = &header;
  }
  return at;
}

}  // namespace litefleet::spool
