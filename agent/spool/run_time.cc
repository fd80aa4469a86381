#include "agent/spool/run_time.h"

#include <algorithm>
#include <utility>

#include "common/io/file.h"
#include "litefleet/storage/v1/spool.pb.h"

namespace litefleet::spool {
namespace {

using std::chrono::milliseconds;

constexpr uint32_t kFormat = 1;
constexpr uint64_t kMaxFile = 16 << 20;

int64_t Millis(std::chrono::nanoseconds time) { return std::chrono::duration_cast<milliseconds>(time).count(); }

}  // namespace

RunTime::RunTime(std::string file, const Clock& clock, std::string boot_id)
    : file_(std::move(file)), clock_(clock), boot_id_(std::move(boot_id)) {
  storage::v1::SpoolRunTime kept;
  const auto content = io::ReadFile(file_, kMaxFile);
  // Lost or of another version: what is spooled is as old as its snapshots say.
  if (!content.ok() || !kept.ParseFromString(*content) || kept.format() != kFormat) return;
  MutexLock lock(mu_);
  const int64_t since_boot_ms = Millis(clock_.SinceBoot());
  const bool same_boot = kept.boot_id() == boot_id_ && kept.since_boot_ms() <= since_boot_ms;
  base_ms_ = std::max<int64_t>(0, same_boot ? kept.run_ms() - kept.since_boot_ms() : kept.run_ms());
  if (same_boot) written_since_boot_ = milliseconds(kept.since_boot_ms());
  for (const storage::v1::SpoolAside& each : kept.aside()) aside_[each.name()] = each.seen_run_ms();
}

int64_t RunTime::RunMs(std::chrono::nanoseconds since_boot) const { return base_ms_ + std::max<int64_t>(0, Millis(since_boot)); }

milliseconds RunTime::Now() const { return At(clock_.SinceBoot()); }

milliseconds RunTime::At(std::chrono::nanoseconds since_boot) const {
  MutexLock lock(mu_);
  return milliseconds(RunMs(since_boot));
}

void RunTime::AtLeast(milliseconds run) { AtLeast(run, std::chrono::nanoseconds(0)); }

void RunTime::AtLeast(milliseconds run, std::chrono::nanoseconds since_boot) {
  MutexLock lock(mu_);
  base_ms_ = std::max<int64_t>(base_ms_, run.count() - Millis(since_boot));
}

absl::Status RunTime::Keep() {
  MutexLock lock(mu_);
  const std::chrono::nanoseconds since_boot = clock_.SinceBoot();
  if (!aside_changed_ && written_since_boot_.has_value() && since_boot - *written_since_boot_ < kStep) return absl::OkStatus();
  written_since_boot_ = since_boot;
  aside_changed_ = false;
  storage::v1::SpoolRunTime kept;
  kept.set_format(kFormat);
  kept.set_boot_id(boot_id_);
  kept.set_since_boot_ms(Millis(since_boot));
  kept.set_run_ms(RunMs(since_boot));
  for (const auto& [name, seen] : aside_) {
    storage::v1::SpoolAside& file = *kept.add_aside();
    file.set_name(name);
    file.set_seen_run_ms(seen);
  }
  return io::WriteFileAtomic(file_, kept.SerializeAsString());
}

void RunTime::SetAside(const std::set<std::string>& names) {
  MutexLock lock(mu_);
  aside_changed_ |= std::erase_if(aside_, [&](const auto& file) { return !names.contains(file.first); }) > 0;
  const int64_t now_ms = RunMs(clock_.SinceBoot());
  for (const std::string& name : names) aside_changed_ |= aside_.emplace(name, now_ms).second;
}

std::optional<milliseconds> RunTime::AsideFor(const std::string& name) const {
  MutexLock lock(mu_);
  const auto at = aside_.find(name);
  if (at == aside_.end()) return std::nullopt;
  return milliseconds(std::max<int64_t>(0, RunMs(clock_.SinceBoot()) - at->second));
}

}  // namespace litefleet::spool
