// An application in another process that does what it is told, one statement at a time.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_APPLICATION_H_
#define LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_APPLICATION_H_

#include <poll.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"

namespace litefleet::follow {

// A checkpoint that waits for the agent is seen within a second, and given way to after 250 ms; the rest is for a busy machine.
inline constexpr std::chrono::milliseconds kHeldUpAtMost{3000};

class Application {
 public:
  explicit Application(const std::string& path, int busy_timeout_ms = 20) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      close(ends[0]);
      Serve(path, busy_timeout_ms, ends[1]);
    }
    close(ends[1]);
    channel_ = ends[0];
    const timeval patience{.tv_sec = 120, .tv_usec = 0};  // who waits for a lock may do so for ever
    if (setsockopt(channel_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0) std::abort();
    Run("select 1");
  }
  ~Application() { Kill(); }
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;

  // SQLite's result code; "close" closes the connection, "open" opens it again, "checkpoint full" (restart, truncate) is one, from
  // "endless" on its busy handler never gives up.
  int Try(const std::string& sql) {
    Begin(sql);
    return End();
  }
  // The answer is awaited by End().
  void Begin(const std::string& sql) { EXPECT_GT(send(channel_, sql.data(), sql.size(), MSG_NOSIGNAL), 0); }
  int End() {
    int rc = -1;
    EXPECT_EQ(recv(channel_, &rc, sizeof rc, 0), static_cast<ssize_t>(sizeof rc)) << "the application has died, or waits for ever";
    return rc & 0xff;
  }
  // What was begun has ended; End() does not wait then.
  bool HasEnded() const {
    pollfd answer{.fd = channel_, .events = POLLIN, .revents = 0};
    return poll(&answer, 1, 0) > 0;
  }
  void Run(const std::string& sql) { ASSERT_EQ(Try(sql), SQLITE_OK) << sql; }
  void Kill() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(channel_);
    pid_ = -1;
  }

 private:
  [[noreturn]] static void Serve(const std::string& path, int busy_timeout_ms, int channel) {
    sqlite3* db = nullptr;
    const auto open = [&] {
      const int rc = sqlite3_open(path.c_str(), &db);
      sqlite3_busy_timeout(db, busy_timeout_ms);
      return rc;
    };
    open();
    static char sql[1 << 16];
    for (;;) {
      const ssize_t size = recv(channel, sql, sizeof sql - 1, 0);
      if (size <= 0) _exit(0);
      sql[size] = 0;
      int rc = SQLITE_OK;
      if (std::string(sql) == "close") {
        rc = sqlite3_close(db);
        db = nullptr;
      } else if (std::string(sql) == "open") {
        rc = open();
      } else if (std::string(sql) == "endless") {
        rc = sqlite3_busy_handler(db, &WaitForEver, nullptr);
      } else if (std::string(sql).starts_with("checkpoint ")) {
        const int mode = sql[11] == 'f' ? SQLITE_CHECKPOINT_FULL : sql[11] == 'r' ? SQLITE_CHECKPOINT_RESTART : SQLITE_CHECKPOINT_TRUNCATE;
        rc = sqlite3_wal_checkpoint_v2(db, "main", mode, nullptr, nullptr);
      } else {
        rc = sqlite3_exec(db, sql, nullptr, nullptr, nullptr);
      }
      if (send(channel, &rc, sizeof rc, MSG_NOSIGNAL) <= 0) _exit(0);
    }
  }

  static int WaitForEver(void*, int) {
    usleep(1000);
    return 1;
  }

  pid_t pid_ = -1;
  int channel_ = -1;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_APPLICATION_H_
