// An application as a process of its own, with a database open.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_RESTORE_APPLICATION_H_
#define LITEFLEET_TESTS_UNIT_AGENT_RESTORE_APPLICATION_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "common/sqlite/handle.h"

namespace litefleet::restore {

// Another process with the database open.
class Application {
 public:
  enum Kind { kIdle, kWriting, kReading, kMidWrite };
  // Returns when it has begun. A journal mode is set where it is named: truncate and persist are of a connection.
  Application(const std::string& path, Kind kind, const std::string& journal = {}) {
    int ready[2], stop[2];
    EXPECT_EQ(pipe(ready), 0);
    EXPECT_EQ(pipe(stop), 0);
    pid_ = fork();
    if (pid_ == 0) {
      close(stop[1]);
      _exit(Live(path, kind, journal, ready[1], stop[0]));
    }
    close(ready[1]);
    close(stop[0]);
    stop_ = stop[1];
    char byte;
    EXPECT_EQ(read(ready[0], &byte, 1), 1) << "the application did not start";
    close(ready[0]);
  }
  ~Application() {
    if (pid_ > 0) Stop();
  }
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  // Its exit code: 0, unless a statement failed.
  int Stop() {
    close(stop_);
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100 + WTERMSIG(status);
  }
  void Kill() {
    kill(pid_, SIGKILL);
    int status = 0;
    waitpid(pid_, &status, 0);
    close(stop_);
    pid_ = -1;
  }
  pid_t pid() const { return pid_; }

 private:
  static int Live(const std::string& path, Kind kind, const std::string& journal, int ready, int stop) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    if (!db.ok()) return 2;
    sqlite3_busy_timeout(db->get(), 20'000);
    if (!journal.empty() && !sqlite::Execute(db->get(), "pragma journal_mode=" + journal).ok()) return 8;
    if (!sqlite::QueryInt(db->get(), "select count(*) from log").ok()) return 3;
    if (kind == kReading && !sqlite::Execute(db->get(), "begin; select count(*) from log").ok()) return 4;
    if (kind == kWriting && !sqlite::Execute(db->get(), "insert into log values(1)").ok()) return 5;
    // Without a sync the journal is at once as one that a crash has left.
    if (kind == kMidWrite && !sqlite::Execute(db->get(), "pragma synchronous=off; begin immediate; insert into log values(1)").ok())
      return 9;
    if (write(ready, "r", 1) != 1) return 6;
    fcntl(stop, F_SETFL, O_NONBLOCK);
    char byte;
    while (read(stop, &byte, 1) != 0) {
      if (kind == kWriting && !sqlite::Execute(db->get(), "insert into log values(1)").ok()) return 7;
      usleep(2000);
    }
    return 0;
  }

  pid_t pid_ = -1;
  int stop_ = -1;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_TESTS_UNIT_AGENT_RESTORE_APPLICATION_H_
