#include "controller/retention/plan.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <string_view>

#include "fmt/format.h"

namespace litefleet::retention {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

constexpr size_t kBaseline = 20;      // snapshots that a new one is compared with
constexpr size_t kLeastBaseline = 5;  // with fewer nobody knows what is usual
constexpr int64_t kTimes = 8;         // so much larger or smaller is strange
constexpr int64_t kLeastChange = 1 << 20;
constexpr size_t kLeastMany = 100;  // in a day
constexpr size_t kTimesMany = 10;
constexpr size_t kMostParts = 16;
constexpr std::string_view kOtherParts = "others";

milliseconds SinceEpoch(SystemTime time) { return milliseconds(ToUnixMillis(time)); }

// Of snapshots that hold the same. Of those that hold a part nothing is kept for being the last resort.
std::vector<Verdict> PlanAlike(std::span<const Snapshot> snapshots, const Policy& policy, SystemTime now, bool whole) {
  std::vector<Verdict> verdicts(snapshots.size());
  const auto keep = [&](size_t i, std::string reason) {
    verdicts[i].keep = true;
    verdicts[i].reasons.push_back(std::move(reason));
  };
  int newest = 0;
  bool checked = false;
  std::vector<std::set<int64_t>> taken(policy.tiers.size());
  for (size_t i = snapshots.size(); i-- > 0;) {
    const Snapshot& snapshot = snapshots[i];
    if (whole && i + 1 == snapshots.size()) keep(i, "newest");
    if (snapshot.pinned) keep(i, "pinned");
    if (snapshot.ordered) keep(i, "ordered");
    if (snapshot.good) {
      if (++newest == 1 && whole && i + 1 != snapshots.size()) keep(i, "newest complete");
      if (newest <= policy.keep_last) keep(i, "keep_last");
      if (whole && snapshot.checked && !checked) {
        checked = true;
        keep(i, "newest checked");
      }
    }
  }
  // By effective time: the newest of each interval. Of two of the same time the later sequence.
  std::vector<size_t> by_time(snapshots.size());
  for (size_t i = 0; i < by_time.size(); ++i) by_time[i] = i;
  std::stable_sort(by_time.begin(), by_time.end(),
                   [&](size_t a, size_t b) { return snapshots[a].effective_at < snapshots[b].effective_at; });
  std::reverse(by_time.begin(), by_time.end());
  for (const size_t i : by_time) {
    for (size_t t = 0; t < policy.tiers.size(); ++t) {
      const Tier& tier = policy.tiers[t];
      if (snapshots[i].effective_at + tier.keep_for < now) continue;
      if (!snapshots[i].good) {
        keep(i, "damaged, may be healed");
        break;
      }
      const bool first = tier.every.count() == 0 || taken[t].insert(SinceEpoch(snapshots[i].effective_at) / tier.every).second;
      if (first) keep(i, tier.text);
    }
  }
  int kept = 0;
  for (size_t i = 0; i < snapshots.size(); ++i) kept += verdicts[i].keep && snapshots[i].good ? 1 : 0;
  for (size_t i = snapshots.size(); i-- > 0 && whole && kept < policy.floor;) {
    if (verdicts[i].keep || !snapshots[i].good) continue;
    keep(i, "floor");
    ++kept;
  }
  for (size_t i = 0; i < snapshots.size(); ++i) {
    if (verdicts[i].keep) continue;
    const bool outside = std::all_of(policy.tiers.begin(), policy.tiers.end(),
                                     [&](const Tier& tier) { return snapshots[i].effective_at + tier.keep_for < now; });
    verdicts[i].reasons.emplace_back(policy.tiers.empty() ? "not among the newest"
                                     : outside            ? "older than every tier"
                                                          : "another one stands for its interval");
  }
  return verdicts;
}

}  // namespace

std::vector<Verdict> Plan(std::span<const Snapshot> snapshots, const Policy& policy, SystemTime now, const std::string& hold) {
  if (!hold.empty()) return std::vector<Verdict>(snapshots.size(), Verdict{.keep = true, .reasons = {"hold: " + hold}});
  // A device may name as many parts as it likes, and drop one at any time: only the newest kinds have a turn of their own.
  std::set<std::string_view> own{""};
  for (size_t i = snapshots.size(); i-- > 0 && own.size() <= kMostParts;) own.insert(snapshots[i].part);
  std::map<std::string_view, std::vector<size_t>> kinds;
  for (size_t i = 0; i < snapshots.size(); ++i)
    kinds[own.contains(snapshots[i].part) ? std::string_view(snapshots[i].part) : kOtherParts].push_back(i);
  std::vector<Verdict> verdicts(snapshots.size());
  std::vector<Snapshot> alike;
  for (const auto& [part, places] : kinds) {
    alike.clear();
    for (const size_t i : places) alike.push_back(snapshots[i]);
    std::vector<Verdict> of_these = PlanAlike(alike, policy, now, part.empty());
    for (size_t k = 0; k < places.size(); ++k) verdicts[places[k]] = std::move(of_these[k]);
  }
  return verdicts;
}

std::optional<Anomaly> FindAnomaly(std::span<const Snapshot> snapshots, int64_t seen) {
  std::vector<int64_t> sizes;
  std::deque<int64_t> before_it;  // of whole snapshots: a part is smaller, and that is no wonder
  for (const Snapshot& snapshot : snapshots) {
    if (!snapshot.part.empty()) continue;
    sizes.assign(before_it.begin(), before_it.end());
    before_it.push_back(snapshot.size_bytes);
    if (before_it.size() > kBaseline) before_it.pop_front();
    if (sizes.size() < kLeastBaseline || snapshot.sequence <= seen) continue;
    std::nth_element(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(sizes.size() / 2), sizes.end());
    const int64_t usual = sizes[sizes.size() / 2];
    if (std::abs(snapshot.size_bytes - usual) >= kLeastChange) {
      const auto message = [&](std::string_view word) {
        return fmt::format("snapshot {} has {} bytes, {} than the {} that were usual before it", snapshot.id.value(), snapshot.size_bytes,
                           word, usual);
      };
      if (snapshot.size_bytes > usual * kTimes) return Anomaly{"SUDDENLY_LARGER", message("far more")};
      if (snapshot.size_bytes * kTimes < usual) return Anomaly{"SUDDENLY_SMALLER", message("far fewer")};
    }
  }
  if (snapshots.empty() || snapshots.back().sequence <= seen) return std::nullopt;
  // The day before the newest against the two weeks before that day.
  const SystemTime day = snapshots.back().effective_at - hours(24);
  const SystemTime weeks = day - hours(24 * 14);
  size_t recent = 0;
  size_t before = 0;
  SystemTime oldest = day;
  for (const Snapshot& snapshot : snapshots) {
    if (snapshot.effective_at > day) {
      recent += snapshot.sequence > seen ? 1 : 0;
    } else if (snapshot.effective_at > weeks) {
      ++before;
      oldest = std::min(oldest, snapshot.effective_at);
    }
  }
  const auto days = std::max<int64_t>(1, std::chrono::duration_cast<hours>(day - oldest).count() / 24 + 1);
  const size_t usual = before / static_cast<size_t>(days);
  if (before >= kLeastBaseline && recent >= kLeastMany && recent > kTimesMany * std::max<size_t>(usual, 1)) {
    return Anomaly{"SUDDENLY_MANY", fmt::format("{} snapshots in a day, where {} were usual", recent, usual)};
  }
  return std::nullopt;
}

}  // namespace litefleet::retention
