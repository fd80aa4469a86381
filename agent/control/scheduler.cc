#include "agent/control/scheduler.h"

#include <algorithm>
#include <cstdint>

namespace litefleet::control {

using config::Schedule;
using std::chrono::milliseconds;

void Scheduler::Forecast(Entry& entry) {
  entry.next.reset();
  if (entry.plan.schedule.kind() == Schedule::Kind::kCron && entry.last_run.at)
    entry.next = entry.plan.schedule.NextAfter(*entry.last_run.at);
}

void Scheduler::Set(const std::string& database, Plan plan, const LastRun& last_run) {
  const bool known = entries_.contains(database);
  Entry& entry = entries_[database];
  entry.plan = std::move(plan);
  if (!known) entry.last_run = last_run;
  Forecast(entry);
}

void Scheduler::Keep(const std::vector<std::string>& databases) {
  std::erase_if(entries_, [&](const auto& entry) { return std::find(databases.begin(), databases.end(), entry.first) == databases.end(); });
}

std::optional<milliseconds> Scheduler::UntilNamed(const Entry& entry) const {
  const SystemTime now = clock_.Now();
  const Plan& plan = entry.plan;
  const bool ran = entry.last_run.at && *entry.last_run.at <= now;
  switch (plan.schedule.kind()) {
    case Schedule::Kind::kInterval:
      if (ran) return std::chrono::ceil<milliseconds>(*entry.last_run.at + plan.schedule.interval() - now);
      break;
    case Schedule::Kind::kCron:
      if (!ran) break;
      if (!entry.next) return std::nullopt;
      return std::chrono::ceil<milliseconds>(*entry.next + plan.jitter - now);
    case Schedule::Kind::kAtBoot:
      if (entry.last_run.in_this_boot) return std::nullopt;
      break;
    case Schedule::Kind::kNever:
      return std::nullopt;
  }
  // Since this device could.
  return std::min(std::chrono::duration_cast<milliseconds>(ready_at_ - clock_.Steady()), milliseconds(0));
}

std::optional<milliseconds> Scheduler::Until(const Entry& entry) const {
  const Plan& plan = entry.plan;
  const std::optional<milliseconds> named = UntilNamed(entry);
  if (!named) return std::nullopt;
  milliseconds jitter = plan.jitter;
  // The last run has its phase already; only what is late at the start is spread, and never by more than a tenth.
  if (plan.schedule.kind() == Schedule::Kind::kInterval) jitter = std::min(jitter, plan.schedule.interval() / 10);
  const auto settle = std::chrono::duration_cast<milliseconds>(ready_at_ + jitter - clock_.Steady());
  milliseconds until = std::max({*named, settle, milliseconds(0)});
  if (entry.held_until) until = std::max(until, std::chrono::duration_cast<milliseconds>(*entry.held_until - clock_.Steady()));
  if (plan.window) until += plan.window->UntilOpen(clock_.Now() + until);
  return until;
}

std::vector<std::string> Scheduler::Due() const {
  std::vector<std::string> due;
  for (const auto& [name, entry] : entries_) {
    if (entry.running) continue;
    const std::optional<milliseconds> until = Until(entry);
    if (until && *until <= milliseconds(0)) due.push_back(name);
  }
  return due;
}

void Scheduler::Started(const std::string& database) {
  const auto at = entries_.find(database);
  if (at == entries_.end()) return;
  at->second.running = true;
  at->second.held_until.reset();
  at->second.last_run = {clock_.Now(), true};
  Forecast(at->second);
}

void Scheduler::Ended(const std::string& database) {
  const auto at = entries_.find(database);
  if (at != entries_.end()) at->second.running = false;
}

void Scheduler::Hold(const std::string& database, milliseconds time) {
  const auto at = entries_.find(database);
  if (at != entries_.end()) at->second.held_until = clock_.Steady() + time;
}

milliseconds Scheduler::LateBy(const std::string& database) const {
  const auto at = entries_.find(database);
  const std::optional<milliseconds> named = at == entries_.end() ? std::nullopt : UntilNamed(at->second);
  return named ? std::max(-*named, milliseconds(0)) : milliseconds(0);
}

bool Scheduler::HasRun(const std::string& database) const {
  const auto at = entries_.find(database);
  return at != entries_.end() && at->second.last_run.at.has_value();
}

milliseconds Scheduler::UntilNext(milliseconds limit) const {
  milliseconds next = limit;
  for (const auto& [name, entry] : entries_) {
    if (entry.running) continue;
    if (const std::optional<milliseconds> until = Until(entry)) next = std::min(next, *until);
  }
  return next;
}

milliseconds JitterOf(std::string_view device_id, std::string_view database, milliseconds most) {
  // FNV-1a, and its halves mixed: the same on every machine and in every version.
  uint64_t hash = 14695981039346656037ULL;
  for (const std::string_view text : {device_id, std::string_view("/"), database}) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  }
  hash ^= hash >> 32;
  return most.count() <= 0 ? milliseconds(0) : milliseconds(static_cast<int64_t>(hash % static_cast<uint64_t>(most.count())));
}

}  // namespace litefleet::control
