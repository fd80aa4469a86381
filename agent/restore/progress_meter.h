// One number for fetching, checking and applying: it never falls, and ends at the size of the database.
//
// Thread safety: none. The callback is called at most five times a second, at the beginning of each phase, and once at the end.
#ifndef LITEFLEET_AGENT_RESTORE_PROGRESS_METER_H_
#define LITEFLEET_AGENT_RESTORE_PROGRESS_METER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "litefleet/v1/types.pb.h"

namespace litefleet::restore {

class ProgressMeter {
 public:
  using Report = std::function<void(const v1::Progress&)>;
  using Time = std::function<std::chrono::steady_clock::time_point()>;
  ProgressMeter(const Report& report, int64_t total_bytes, Time now) : report_(report), now_(std::move(now)) {
    progress_.set_total_bytes(total_bytes);
  }

  // The part of the whole, in percent, that this phase is.
  void Begin(std::string phase, int from, int to) {
    from_ = from, to_ = to;
    progress_.set_phase(std::move(phase));
    next_ = {};  // a new phase is said at once
    At(0, 1);
  }
  // `done` of `all` of this phase; more than all counts as all.
  void At(int64_t done, int64_t all) {
    const double part = all <= 0 ? 1.0 : std::clamp(static_cast<double>(done) / static_cast<double>(all), 0.0, 1.0);
    const auto bytes = static_cast<int64_t>(static_cast<double>(progress_.total_bytes()) * (from_ + part * (to_ - from_)) / 100.0);
    progress_.set_done_bytes(std::max(progress_.done_bytes(), bytes));
    const auto now = now_();
    if (now < next_) return;
    next_ = now + std::chrono::milliseconds(200);
    if (report_) report_(progress_);
  }
  // For waits: what was said last, again.
  void Tick() { At(0, 1); }
  void AddWireBytes(int64_t bytes) { progress_.set_wire_bytes(progress_.wire_bytes() + bytes); }
  void AddReadBytes(int64_t bytes) { progress_.set_read_bytes(progress_.read_bytes() + bytes); }
  void AddChangedBytes(int64_t bytes) { progress_.set_changed_bytes(progress_.changed_bytes() + bytes); }
  void Finish() {
    progress_.set_done_bytes(progress_.total_bytes());
    progress_.set_phase("done");
    if (report_) report_(progress_);
  }

 private:
  const Report& report_;
  const Time now_;
  v1::Progress progress_;
  int from_ = 0;
  int to_ = 0;
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_PROGRESS_METER_H_
