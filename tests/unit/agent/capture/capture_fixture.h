// What the tests of capture share: databases made by SQL, their bytes read without touching the locks of this process, other processes.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_CAPTURE_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_CAPTURE_FIXTURE_H_

#include <sqlite3.h>
#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "agent/capture/online_source.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "gtest/gtest.h"

namespace litefleet::capture {

class CaptureTest : public testing::Test {
 public:
  ~CaptureTest() override;

 protected:
  CaptureTest();

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  const std::string& directory() const { return directory_; }
  OnlineOptions Options(const std::string& path) const;

  // Everything that the source of `path` gives, as a file's content; records the status.
  struct Copy {
    absl::Status status;
    SourceInfo info;
    std::string damage;
    Bytes bytes;
  };
  static Copy ReadAll(const OnlineOptions& options);
  Copy Backup(const std::string& path) const { return ReadAll(Options(path)); }

  // Runs SQL on a connection of its own and closes it. Expects success.
  static void Sql(const std::string& path, const std::string& sql);
  // The first column of the first row.
  static std::string Query(const std::string& path, const std::string& sql);
  // Writes `bytes` to a new file and returns its path.
  std::string Store(const Bytes& bytes, const std::string& name = "restored.db") const;

  RealClock clock_;

 private:
  std::string directory_;
};

// Reads through another process: closing a descriptor here would drop the locks of SQLite connections of this process.
Bytes FileBytes(const std::string& path);
// The database file as a checkpoint of everything in its WAL would leave it; made from copies.
Bytes CheckpointedBytes(const std::string& path);
// Name, size, mode, owner and content of every file in a directory, one a line.
std::string Listing(const std::string& directory);
// Runs a shell command; its exit code.
int Shell(const std::string& command);

// Another process that runs `body`; the return value is its exit code. Ready when the body has said so.
class Child {
 public:
  // `body` gets a function that tells the parent to go on, and one that says whether the parent wants it to end.
  using Body = std::function<int(const std::function<void()>& ready, const std::function<bool()>& asked_to_stop)>;
  explicit Child(const Body& body);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  // Asks it to stop, waits, gives its exit code.
  int Stop();
  void Kill();
  // Waits until it has stopped (LITEFLEET_STOP_AT); false: it ended.
  bool AwaitStopped();
  void Continue();

 private:
  pid_t pid_ = -1;
  int stop_ = -1;
};

// A connection for children: fails by exit code 99 with a message.
class Connection {
 public:
  explicit Connection(const std::string& path, int busy_timeout_ms = 5000);
  ~Connection() { sqlite3_close(db_); }
  // SQLite's result code.
  int Try(const std::string& sql);
  void Run(const std::string& sql);
  int64_t Int(const std::string& sql);

 private:
  sqlite3* db_ = nullptr;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_CAPTURE_FIXTURE_H_
