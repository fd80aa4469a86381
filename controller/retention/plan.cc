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
constexpr int64_t kLeastChange = 64 << 10;
constexpr size_t kLeastMany = 100;  // in a day
constexpr size_t kTimesMany = 10;
constexpr size_t kMostParts = 16;
constexpr std::chrono::minutes kForgotten{1};  // far more than a power cut takes of what a device knows
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
    if (snapshot.PinnedAt(now))
      keep(i, snapshot.pinned_until.has_value() ? "pinned until " + FormatRfc3339(*snapshot.pinned_until) : "pinned");
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
  for (size_t i = snapshots.size(); i-- > 0 && whole && snapshots.back().continuous;) {
    if (snapshots[i].effective_at + kForgotten < snapshots.back().effective_at) break;
    if (!verdicts[i].keep && snapshots[i].good && snapshots[i].continuous) keep(i, "the device may build on it");
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

struct Rate {
  size_t snapshots = 0;
  size_t a_day = 0;
};

// Of the two weeks before `day`. How many were made say the numbers: tiers have thinned them. Where none is missing between two and more
// than a day lies there, the device made none, and days without any are not usual ones. Numbers that were left out (a rebuild does, where
// records were lost) are told from snapshots that were made by their being far more than between others.
std::optional<Rate> UsualRate(std::span<const Snapshot> snapshots, SystemTime day) {
  const SystemTime weeks = day - hours(24 * 14);
  struct Step {
    int64_t numbers;
    std::chrono::duration<double> time;
  };
  std::vector<Step> steps;
  const Snapshot* first = nullptr;
  const Snapshot* last = nullptr;
  const Snapshot* next = nullptr;  // after the last
  for (const Snapshot& snapshot : snapshots) {
    if (snapshot.effective_at > day) {
      if (next == nullptr) next = &snapshot;
      continue;
    }
    if (snapshot.effective_at <= weeks) continue;
    if (last != nullptr) steps.push_back({snapshot.sequence - last->sequence, snapshot.effective_at - last->effective_at});
    if (first == nullptr) first = &snapshot;
    last = &snapshot;
    next = nullptr;
  }
  if (first == nullptr || day - first->effective_at < hours(24)) return std::nullopt;
  std::vector<double> rates;
  for (const Step& step : steps)
    if (step.time.count() > 0) rates.push_back(static_cast<double>(step.numbers) / step.time.count());
  double usual = 0;
  if (!rates.empty()) {
    const auto middle = rates.begin() + static_cast<std::ptrdiff_t>(rates.size() / 2);
    std::nth_element(rates.begin(), middle, rates.end());
    usual = *middle;
  }
  constexpr std::chrono::duration<double> kDay = hours(24);
  std::chrono::duration<double> made = day - first->effective_at;
  double count = 1;
  for (const Step& step : steps) {
    const double most = static_cast<double>(kTimesMany) * usual * step.time.count();
    count += std::min(static_cast<double>(step.numbers), std::max(most, 1.0));
    if (step.numbers == 1 && step.time > kDay) made -= step.time - kDay;
  }
  const std::chrono::duration<double> since = day - last->effective_at;
  if (next != nullptr && next->sequence == last->sequence + 1 && since > kDay) made -= since - kDay;
  return Rate{.snapshots = static_cast<size_t>(count), .a_day = static_cast<size_t>(count / std::max(made / kDay, 1.0))};
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

std::optional<Anomaly> FindAnomaly(std::span<const Snapshot> snapshots, int64_t seen, int keep_last) {
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
  size_t recent = 0;
  for (const Snapshot& snapshot : snapshots) recent += snapshot.effective_at > day && snapshot.sequence > seen ? 1 : 0;
  const std::optional<Rate> rate = UsualRate(snapshots, day);
  // With less than a day nobody knows what is usual.
  if (!rate.has_value()) return std::nullopt;
  const auto [before, usual] = *rate;
  // Fewer are enough where they are all that keep_last leaves.
  const size_t least = keep_last > 0 ? std::min(kLeastMany, static_cast<size_t>(keep_last)) : kLeastMany;
  if (before >= kLeastBaseline && recent >= least && recent > kTimesMany * std::max<size_t>(usual, 1)) {
    return Anomaly{"SUDDENLY_MANY", fmt::format("{} snapshots in a day, where {} were usual", recent, usual)};
  }
  return std::nullopt;
}

}  // namespace litefleet::retention
