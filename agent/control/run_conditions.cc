#include "agent/control/run_conditions.h"

#include <dirent.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <memory>

#include "common/base/status.h"
#include "common/config/toml_reader.h"
#include "common/io/file.h"
#include "common/io/real_path.h"
#include "fmt/format.h"

namespace litefleet::control {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kClockIsSet = 1'600'000'000'000;  // 2020: no clock that was set says less

// The first line of a small file; empty: it does not say.
std::string FirstLine(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  std::array<char, 128> line{};
  if (file == nullptr || std::fgets(line.data(), line.size(), file.get()) == nullptr) return {};
  std::string text(line.data());
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

bool OnBattery(const std::string& directory) {
  const std::unique_ptr<DIR, int (*)(DIR*)> supplies(opendir(directory.c_str()), &closedir);
  if (supplies == nullptr) return false;
  bool discharging = false;
  bool battery = false;
  // A USB port with nothing in it is a plug only for what has a battery: a desktop has such ports, too.
  bool plugs = false;
  bool ports = false;
  bool powered = false;
  while (const dirent* const entry = readdir(supplies.get())) {
    if (entry->d_name[0] == '.') continue;
    const std::string supply = directory + "/" + entry->d_name;
    // Of a mouse or a keyboard.
    if (FirstLine(supply + "/scope") == "Device") continue;
    const std::string type = FirstLine(supply + "/type");
    if (type == "Battery") {
      battery = true;
      discharging |= FirstLine(supply + "/status") == "Discharging";
    } else if (const std::string online = FirstLine(supply + "/online"); !online.empty()) {
      (type == "Mains" || type == "UPS" ? plugs : ports) = true;
      powered |= online != "0";
    }
  }
  return discharging || ((plugs || (ports && battery)) && !powered);
}

// Of the last minute, in percent of all processors; -1: it is not told.
int LoadPercent(const std::string& file) {
  const std::string line = FirstLine(file);
  double load = -1;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), load);
  if (error != std::errc() || !(load >= 0)) return -1;  // also what is no number
  const long processors = std::max(sysconf(_SC_NPROCESSORS_ONLN), 1L);
  return static_cast<int>(std::min(load * 100 / static_cast<double>(processors), 1e6));
}

// How long nobody has written; times of the future say nothing.
std::optional<milliseconds> QuietFor(const std::string& path, SystemTime now) {
  const std::string file = io::RealPathOr(path);
  std::optional<milliseconds> quiet;
  for (const char* suffix : {"", "-wal", "-journal"}) {
    struct stat st {};
    if (stat((file + suffix).c_str(), &st) != 0) continue;
    const SystemTime written = FromUnixMillis(int64_t{st.st_mtim.tv_sec} * 1000 + st.st_mtim.tv_nsec / 1'000'000);
    if (written > now) continue;
    const auto since = std::chrono::duration_cast<milliseconds>(now - written);
    quiet = std::min(quiet.value_or(since), since);
  }
  return quiet;
}

}  // namespace

std::string WaitsFor(const config::RunConditions& conditions, const std::string& path, SystemTime now, const MachineFacts& facts) {
  if (conditions.on_mains && OnBattery(facts.power_supplies)) return "this device runs on its battery";
  if (conditions.max_load_percent > 0) {
    if (const int load = LoadPercent(facts.load); load > conditions.max_load_percent)
      return fmt::format("the load of this device is {} %, more than {} %", load, conditions.max_load_percent);
  }
  if (conditions.quiet.count() > 0) {
    if (const std::optional<milliseconds> quiet = QuietFor(path, now); quiet.has_value() && *quiet < conditions.quiet) {
      return fmt::format("the database was written {} ago, and is to be quiet for {}",
                         config::FormatDuration(std::chrono::duration_cast<std::chrono::seconds>(*quiet)),
                         config::FormatDuration(conditions.quiet));
    }
  }
  return {};
}

SystemTime RunGate::WaitsSince(const std::string& database) {
  const SystemTime now = clock_.Now();
  const std::string line = FirstLine(FileOf(database));
  int64_t at = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), at);
  // Before the clock was set, or after it was set back: nothing that could be counted from.
  if (error == std::errc() && at >= kClockIsSet && FromUnixMillis(at) <= now) return FromUnixMillis(at);
  if (const int64_t ms = ToUnixMillis(now); ms >= kClockIsSet) {
    if (const absl::Status written = io::WriteFileAtomic(FileOf(database), fmt::format("{}\n", ms)); !written.ok())
      spdlog::warn("since when {} waits cannot be remembered: {}", database, MessageOf(written));
  }
  return now;
}

milliseconds RunGate::LateBy(const std::string& database, bool waits) {
  const milliseconds late = scheduler_.LateBy(database);
  if (folder_.empty()) return late;
  if (waits && !scheduler_.HasRun(database))
    return std::max(late, std::chrono::duration_cast<milliseconds>(clock_.Now() - WaitsSince(database)));
  if (io::Exists(FileOf(database))) static_cast<void>(io::RemoveFile(FileOf(database)));
  return late;
}

bool RunGate::Waits(const config::AgentConfig& config, const std::string& database) {
  const config::DatabaseConfig* const found = config.Find(database);
  if (found == nullptr || !found->when.any()) {
    Forget(database);
    return false;
  }
  const std::string reason = WaitsFor(found->when, found->path, clock_.Now());
  const milliseconds late = LateBy(database, !reason.empty());
  const bool waits = !reason.empty() && !(found->when.at_latest && late >= *found->when.at_latest);
  if (!waits) {
    if (Forget(database)) spdlog::info("the scheduled backup of {} waits no more{}{}", database, reason.empty() ? "" : ", though ", reason);
    return false;
  }
  bool begins = false;
  {
    MutexLock lock(mu_);
    const auto [at, inserted] = waiting_.try_emplace(database, Reason{.phrase = reason, .since = clock_.Now() - late});
    at->second.phrase = reason;
    begins = inserted;
  }
  if (begins) spdlog::info("the scheduled backup of {} waits: {}", database, reason);
  scheduler_.Hold(database, kLook);
  return true;
}

bool RunGate::WouldWait(const config::AgentConfig& config, const std::string& database) const {
  const config::DatabaseConfig* const found = config.Find(database);
  return found != nullptr && found->when.any() && !WaitsFor(found->when, found->path, clock_.Now()).empty();
}

bool RunGate::Forget(const std::string& database) {
  MutexLock lock(mu_);
  return waiting_.erase(database) > 0;
}

std::optional<RunGate::Reason> RunGate::Waiting(const std::string& database) const {
  MutexLock lock(mu_);
  const auto at = waiting_.find(database);
  if (at == waiting_.end()) return std::nullopt;
  return at->second;
}

}  // namespace litefleet::control
