// What has a new name is on the disk before anything says that it is: the directory's fsync between the two, whatever the order elsewhere.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/limits.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/base/mutex.h"
#include "litefleet/storage/v1/restore_state.pb.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

// What the process asks the file system for while a test of this file runs, in order.
class FileEvents {
 public:
  void Begin() {
    MutexLock lock(mu_);
    on_ = true;
    events_.clear();
  }
  std::vector<std::string> End() {
    MutexLock lock(mu_);
    on_ = false;
    return std::move(events_);
  }
  void Note(const std::string& event) {
    MutexLock lock(mu_);
    if (on_) events_.push_back(event);
  }
  bool on() const { return MutexLock(mu_), on_; }

 private:
  mutable Mutex mu_;
  bool on_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::string> events_ ABSL_GUARDED_BY(mu_);
};

FileEvents& Events() {
  static FileEvents events;
  return events;
}

std::string NameOfFd(int fd) {
  char name[PATH_MAX] = {};
  const ssize_t size = readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), name, sizeof name - 1);
  return size < 0 ? "?" : std::string(name, static_cast<size_t>(size));
}

// A state file's step is what counts, not that it was written.
void NoteSaved(const std::string& from, const std::string& to) {
  const std::string name = to.substr(to.rfind('/') + 1);
  storage::v1::RestoreState state;
  const auto content = io::ReadFile(from);
  if (name == kOperation + ".state" && content.ok() && state.ParseFromString(*content)) {
    Events().Note("says " + storage::v1::RestoreStep_Name(static_cast<storage::v1::RestoreStep>(state.step())));
  } else {
    Events().Note("says " + name);
  }
}

}  // namespace
}  // namespace litefleet::restore

// In the place of the C library's, for this program.
extern "C" {
int fsync(int fd) {
  if (litefleet::restore::Events().on()) litefleet::restore::Events().Note("sync " + litefleet::restore::NameOfFd(fd));
  return static_cast<int>(syscall(SYS_fsync, fd));
}
int rename(const char* from, const char* to) noexcept {
  if (litefleet::restore::Events().on()) litefleet::restore::NoteSaved(from, to);
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int renameat(int from_fd, const char* from, int to_fd, const char* to) noexcept {
  if (litefleet::restore::Events().on()) litefleet::restore::Events().Note(std::string("rename ") + to);
  return static_cast<int>(syscall(SYS_renameat2, from_fd, from, to_fd, to, 0));
}
int renameat2(int from_fd, const char* from, int to_fd, const char* to, unsigned int flags) noexcept {
  if (litefleet::restore::Events().on()) litefleet::restore::Events().Note(std::string("rename ") + to);
  return static_cast<int>(syscall(SYS_renameat2, from_fd, from, to_fd, to, flags));
}
int linkat(int from_fd, const char* from, int to_fd, const char* to, int flags) noexcept {
  if (litefleet::restore::Events().on()) litefleet::restore::Events().Note(std::string("link ") + to);
  return static_cast<int>(syscall(SYS_linkat, from_fd, from, to_fd, to, flags));
}
}

namespace litefleet::restore {
namespace {

class SyncedTest : public RestoreFixture {
 protected:
  void Restore(v1::RestoreMode mode) {
    if (mode != v1::RESTORE_MODE_NEW) Make(path_, "old", "wal", 300);
    MakeSnapshot("wal", 600);
    order_.set_mode(mode);
    Events().Begin();
    const Outcome outcome = Run();
    events_ = Events().End();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  }
  void Undo() {
    v1::UndoOrder undo;
    undo.set_database("app");
    undo.set_new_timeline(3);
    ASSERT_TRUE(Open()->Forget(kOperation).ok());
    Events().Begin();
    const Outcome outcome = Open()->Undo(kOperation, undo, target_, cancel_, [](const v1::Progress&) {});
    events_ = Events().End();
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  }
  // After the last `first`, and before the next `then`, there is `between`.
  void ExpectBetween(const std::string& first, const std::string& between, const std::string& then) {
    SCOPED_TRACE(fmt::format("{} ... {}: {}", first, then, fmt::join(events_, "; ")));
    const auto from = std::find(events_.rbegin(), events_.rend(), first).base();
    ASSERT_NE(from, events_.begin()) << "never did " << first;
    const auto to = std::find(from, events_.end(), then);
    ASSERT_NE(to, events_.end()) << "never did " << then;
    EXPECT_NE(std::find(from, to, between), to) << "nobody did " << between;
  }
  std::string Directory() const { return "sync " + data_; }
  static std::string Ours(const std::string& suffix) { return ".litefleet-" + kOperation + suffix; }

  std::vector<std::string> events_;
};

TEST_F(SyncedTest, NewIsSyncedBeforeItIsApplied) {
  Restore(v1::RESTORE_MODE_NEW);
  ExpectBetween("rename app.db", Directory(), "says RESTORE_STEP_APPLIED");
}

TEST_F(SyncedTest, ReplaceIsSyncedBeforeItIsApplied) {
  Restore(v1::RESTORE_MODE_REPLACE);
  ExpectBetween("link " + Ours(".undo"), Directory(), "rename app.db");
  ExpectBetween("rename app.db", Directory(), "says RESTORE_STEP_APPLIED");
  ExpectBetween("rename app.db.litefleet-undo", Directory(), "says undo-app.state");
  Undo();
  ExpectBetween("link " + Ours(".undo"), Directory(), "rename app.db");
  ExpectBetween("rename app.db", Directory(), "says RESTORE_STEP_APPLIED");
  ExpectBetween("rename app.db.litefleet-undo", Directory(), "says undo-app.state");
}

TEST_F(SyncedTest, TheUndoOfALiveOneIsSyncedBeforeThePointOfNoReturn) {
  Restore(v1::RESTORE_MODE_LIVE);
  const std::string undo = "sync " + data_ + "/" + Ours(".undo");
  ExpectBetween(undo, Directory(), "says RESTORE_STEP_APPLYING");
  ExpectBetween("rename app.db.litefleet-undo", Directory(), "says undo-app.state");
}

TEST_F(SyncedTest, WhatIsFetchedIsSyncedBeforeItIsChecked) {
  Restore(v1::RESTORE_MODE_NEW);
  ExpectBetween("says RESTORE_STEP_PREPARED", "sync " + data_ + "/" + Ours(".staging"), "says RESTORE_STEP_CHECKED");
}

}  // namespace
}  // namespace litefleet::restore
