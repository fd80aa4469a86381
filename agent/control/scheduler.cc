#include "agent/control/scheduler.h"

#include <algorithm>

namespace litefleet::control {

using std::chrono::milliseconds;

void Scheduler::Set(const std::string& database, milliseconds interval, std::optional<SystemTime> last_run) {
  const bool known = entries_.contains(database);
  Entry& entry = entries_[database];
  entry.interval = interval;
  if (!known) entry.last_run = last_run;
}

void Scheduler::Keep(const std::vector<std::string>& databases) {
  std::erase_if(entries_, [&](const auto& entry) { return std::find(databases.begin(), databases.end(), entry.first) == databases.end(); });
}

milliseconds Scheduler::Until(const Entry& entry) const {
  const auto settle = std::chrono::duration_cast<milliseconds>(ready_at_ - clock_.Steady());
  milliseconds until{0};
  const SystemTime now = clock_.Now();
  if (entry.last_run && *entry.last_run <= now) {
    until = std::chrono::ceil<milliseconds>(*entry.last_run + entry.interval - now);
  }
  return std::max({until, settle, milliseconds(0)});
}

std::vector<std::string> Scheduler::Due() const {
  std::vector<std::string> due;
  for (const auto& [name, entry] : entries_) {
    if (!entry.running && Until(entry) <= milliseconds(0)) due.push_back(name);
  }
  return due;
}

void Scheduler::Started(const std::string& database) {
  const auto at = entries_.find(database);
  if (at == entries_.end()) return;
  at->second.running = true;
  at->second.last_run = clock_.Now();
}

void Scheduler::Ended(const std::string& database) {
  const auto at = entries_.find(database);
  if (at != entries_.end()) at->second.running = false;
}

milliseconds Scheduler::UntilNext(milliseconds limit) const {
  milliseconds next = limit;
  for (const auto& [name, entry] : entries_) {
    if (!entry.running) next = std::min(next, Until(entry));
  }
  return next;
}

}  // namespace litefleet::control
