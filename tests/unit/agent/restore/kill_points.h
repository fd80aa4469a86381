// The points at which a test kills a run: those that a whole one passes, so that none is forgotten.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_RESTORE_KILL_POINTS_H_
#define LITEFLEET_TESTS_UNIT_AGENT_RESTORE_KILL_POINTS_H_

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "fmt/format.h"

namespace litefleet::restore {

struct KillPoint {
  std::string name;  // "restore.fetching"
  std::string at;    // as LITEFLEET_CRASH_AT has it: "restore.fetching:3" where it is not the first time
  size_t position;   // of that moment, among all that were passed
};

// Runs in a process of its own, whose end is what `run` gives; the points in order, those that are passed more than once by their first and
// by their last time.
inline std::vector<KillPoint> KillPointsOf(const std::string& log, const std::function<bool()>& run) {
  std::filesystem::remove(log);
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("LITEFLEET_CRASH_LOG", log.c_str(), 1);
    _exit(run() ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the run whose points are wanted ended otherwise";
  std::vector<std::string> passed;
  std::map<std::string, size_t> times;
  std::ifstream file(log);
  for (std::string line; std::getline(file, line);) {
    passed.push_back(line);
    ++times[line];
  }
  std::vector<KillPoint> points;
  std::map<std::string, size_t> seen;
  for (size_t i = 0; i < passed.size(); ++i) {
    const std::string& name = passed[i];
    const size_t time = ++seen[name];
    if (time == 1) points.push_back({name, name, i});
    if (time > 1 && time == times[name]) points.push_back({name, fmt::format("{}:{}", name, time), i});
  }
  return points;
}

inline std::vector<std::string> NamesOf(const std::vector<KillPoint>& points) {
  std::vector<std::string> names;
  for (const KillPoint& point : points) names.push_back(point.name);
  return names;
}

}  // namespace litefleet::restore

#endif  // LITEFLEET_TESTS_UNIT_AGENT_RESTORE_KILL_POINTS_H_
