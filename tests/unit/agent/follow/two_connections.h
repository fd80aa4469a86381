// An application of one process with two connections: one does what it is told, the other one checkpoints, and stops on its way.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_TWO_CONNECTIONS_H_
#define LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_TWO_CONNECTIONS_H_

#include <signal.h>
#include <sqlite3.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <future>
#include <string>
#include <thread>
#include <utility>

#include "gtest/gtest.h"

namespace litefleet::follow {

class TwoConnections {
 public:
  explicit TwoConnections(const std::string& path) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) std::abort();
    pid_ = fork();
    if (pid_ == 0) {
      close(ends[0]);
      Serve(path, ends[1]);
    }
    close(ends[1]);
    channel_ = ends[0];
    Run("pragma wal_autocheckpoint=0; select 1");
  }
  ~TwoConnections() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    close(channel_);
  }
  TwoConnections(const TwoConnections&) = delete;
  TwoConnections& operator=(const TwoConnections&) = delete;

  // By the first connection.
  void Run(const std::string& sql) { ASSERT_EQ(Ask(sql), SQLITE_OK) << sql; }
  // By the second one, PASSIVE. Has read the header, which must have changed since its last look; has looked at nothing else yet.
  void CheckpointToHeader() { ASSERT_EQ(Ask("header"), SQLITE_OK); }
  // Is about to write the first page into the database.
  void CheckpointToCopy() { ASSERT_EQ(Ask("copy"), SQLITE_OK); }
  // It goes on to its end.
  void GoOn() { ASSERT_EQ(Ask("go on"), SQLITE_OK); }

 private:
  // Of the process that serves: the file of the second connection with a stop in one of its methods.
  struct Stops {
    sqlite3_io_methods methods;
    const sqlite3_io_methods* own = nullptr;
    bool armed = false, stopped = false;
    std::promise<void> reached, released;
    void Here() {
      if (!armed) return;
      armed = false;
      stopped = true;
      reached.set_value();
      released.get_future().wait();
    }
  };
  static Stops& stops() {
    static Stops stops;
    return stops;
  }
  static int Unfetch(sqlite3_file* file, sqlite3_int64 at, void* page) {
    stops().Here();
    return stops().own->xUnfetch(file, at, page);
  }
  static int Write(sqlite3_file* file, const void* bytes, int size, sqlite3_int64 at) {
    stops().Here();
    return stops().own->xWrite(file, bytes, size, at);
  }
  int Ask(const std::string& what) {
    EXPECT_GT(send(channel_, what.data(), what.size(), MSG_NOSIGNAL), 0);
    int rc = -1;
    EXPECT_EQ(recv(channel_, &rc, sizeof rc, 0), static_cast<ssize_t>(sizeof rc)) << "the application has died";
    return rc;
  }
  [[noreturn]] static void Serve(const std::string& path, int channel) {
    sqlite3 *first = nullptr, *second = nullptr;
    for (sqlite3** db : {&first, &second}) {
      if (sqlite3_open(path.c_str(), db) != SQLITE_OK ||
          sqlite3_exec(*db, "select * from sqlite_schema", nullptr, nullptr, nullptr) != SQLITE_OK)
        _exit(1);
    }
    std::thread checkpoint;
    int ended = SQLITE_OK;
    static char text[1 << 16];
    for (;;) {
      const ssize_t size = recv(channel, text, sizeof text - 1, 0);
      if (size <= 0) _exit(0);
      text[size] = 0;
      const std::string what = text;
      int rc = SQLITE_OK;
      if (what == "header" || what == "copy") {
        sqlite3_file* file = nullptr;
        sqlite3_file_control(second, "main", SQLITE_FCNTL_FILE_POINTER, &file);
        stops().own = file->pMethods;
        stops().methods = *file->pMethods;
        if (what == "copy") {
          stops().methods.xWrite = Write;
        } else {
          stops().methods.xUnfetch = Unfetch;
        }
        file->pMethods = &stops().methods;
        stops().armed = true;
        checkpoint = std::thread([second, &ended] {
          ended = sqlite3_wal_checkpoint_v2(second, "main", SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
          if (std::exchange(stops().armed, false)) stops().reached.set_value();
        });
        stops().reached.get_future().wait();
        rc = stops().stopped ? SQLITE_OK : SQLITE_NOTFOUND;
      } else if (what == "go on") {
        stops().released.set_value();
        checkpoint.join();
        rc = ended;
      } else {
        rc = sqlite3_exec(first, text, nullptr, nullptr, nullptr);
      }
      if (send(channel, &rc, sizeof rc, MSG_NOSIGNAL) <= 0) _exit(0);
    }
  }

  pid_t pid_ = -1;
  int channel_ = -1;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_TESTS_UNIT_AGENT_FOLLOW_TWO_CONNECTIONS_H_
