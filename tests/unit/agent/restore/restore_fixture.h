// Real databases, and a snapshot that lies in a file.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_RESTORE_RESTORE_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_RESTORE_RESTORE_FIXTURE_H_

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "agent/restore/local_restorer.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "tests/unit/agent/restore/application.h"
#include "tests/unit/agent/restore/file_fetcher.h"

namespace litefleet::restore {

inline const std::string kOperation = "01JD0000000000000000000001";

class RestoreFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = Parent() + "restore-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    data_ = folder_ + "/data";
    ASSERT_TRUE(io::MakeDirectory(data_, 0755).ok());
    path_ = data_ + "/app.db";
    fetcher_.path = folder_ + "/snapshot.db";
    target_ = {"app", path_, "allow", io::DiskReserve(1 << 20), {}};
  }
  // Where all of it is made.
  virtual std::string Parent() const { return ::testing::TempDir(); }
  // For tests that kill again and again: what a process leaves when it is killed is the same in memory, and nothing has to be synced.
  static std::string InMemory() { return access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : ::testing::TempDir(); }
  void TearDown() override {
    if (folder_.empty()) return;
    // Directories that nobody but root may enter are left by some.
    if (geteuid() != 0) static_cast<void>(std::system(fmt::format("chmod -R u+rwX '{}' 2>/dev/null", folder_).c_str()));
    std::filesystem::remove_all(folder_);
  }

  // A database whose state is told by its label.
  static void Make(const std::string& path, const std::string& label, const std::string& journal, int rows, int page_size = 4096) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok()) << db.status();
    const absl::Status made = sqlite::Execute(
        db->get(),
        fmt::format(
            "pragma page_size={}; pragma journal_mode={}; create table label(v); insert into label values('{}'); create table log(n);"
            "create table t(id integer primary key, v blob); create index tv on t(v);"
            "with recursive c(n) as (select 1 union all select n+1 from c where n < {}) insert into t select n, "
            "'{}' || hex(zeroblob(100)) || n from c;",
            page_size, journal, label, rows, label));
    ASSERT_TRUE(made.ok()) << made;
  }
  // As at the beginning, with a database of "old" at the path again where `journal` is named. It is made once.
  void StartAnew(const std::string& journal, int rows = 3000) {
    for (const auto& entry : std::filesystem::directory_iterator(data_)) std::filesystem::remove_all(entry.path());
    std::filesystem::remove_all(folder_ + "/state");
    std::filesystem::remove_all(folder_ + "/copy");
    if (journal.empty()) return;
    const std::string made = fmt::format("{}/old-{}-{}.db", folder_, journal, rows);
    if (!io::Exists(made)) Make(made, "old", journal, rows);
    std::filesystem::copy(made, path_);
  }
  void MakeSnapshot(const std::string& journal, int rows = 2000, int page_size = 4096) {
    std::filesystem::remove(fetcher_.path);
    Make(fetcher_.path, "new", journal, rows, page_size);
    Order();
  }
  void Order() {
    order_.Clear();
    const auto bytes = std::filesystem::file_size(fetcher_.path);
    auto content = io::ReadFile(fetcher_.path, 1 << 30);
    ASSERT_TRUE(content.ok());
    const ByteView view = AsBytes(*content);
    uint32_t page_size = bytes == 0 ? 4096 : LoadBigEndian<uint16_t>(view.data() + 16);
    if (page_size == 1) page_size = 65536;
    order_.set_database("app");
    order_.set_snapshot_id("01JD00000000000000000000S1");
    order_.set_page_size(page_size);
    order_.set_page_count(static_cast<uint32_t>(bytes / page_size));
    order_.set_root_version(format::kRootVersion);
    order_.set_new_timeline(2);
    order_.set_check_state(v1::CHECK_STATE_OK);
    format::RootBuilder root(page_size, order_.page_count());
    for (size_t at = 0; at < view.size(); at += format::kExtentBytes) {
      root.Add(format::NameChunkOf(page_size, view.subspan(at, std::min<size_t>(format::kExtentBytes, view.size() - at))));
    }
    order_.set_root_digest(std::string(root.Finish().AsString()));
  }

  std::unique_ptr<LocalRestorer> Open() {
    RestorerOptions options;
    options.state_folder = folder_ + "/state";
    options.apply.lock_timeout = lock_timeout_;
    options.apply.at_point = at_point_;
    if (free_bytes_) options.apply.free_bytes = free_bytes_;
    options.fetch_patience = std::chrono::seconds(20);
    auto restorer = LocalRestorer::Open(options, fetcher_);
    EXPECT_TRUE(restorer.ok()) << restorer.status();
    return std::move(*restorer);
  }
  Outcome Run(const std::string& operation = kOperation) {
    last_ = {};
    return Open()->Run(operation, order_, target_, cancel_, [this](const v1::Progress& progress) {
      EXPECT_GE(progress.done_bytes(), last_.done_bytes());
      EXPECT_LE(progress.done_bytes(), progress.total_bytes());
      last_ = progress;
    });
  }
  // Runs in a process that is killed at the named point. False: it never came there.
  bool RunAndCrashAt(const std::string& point) {
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_CRASH_AT", point.c_str(), 1);
      Run();
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  }

  static std::string Label(const std::string& path) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    if (!db.ok()) return "cannot open: " + MessageOf(db.status());
    sqlite3_busy_timeout(db->get(), 10'000);
    auto check = sqlite::Statement::Prepare(db->get(), "pragma integrity_check");
    if (!check.ok()) return MessageOf(check.status());
    const auto row = check->Step();
    if (!row.ok()) return MessageOf(row.status());
    if (check->Text(0) != "ok") return std::string(check->Text(0));
    check->Reset();
    auto label =
        sqlite::Statement::Prepare(db->get(), "select (select v from label), count(*), min(substr(v, 1, 3)), max(substr(v, 1, 3)) from t");
    if (!label.ok()) return MessageOf(label.status());
    if (!label->Step().value_or(false)) return "no row";
    if (label->Int(1) > 0 && (label->Text(0) != label->Text(2) || label->Text(0) != label->Text(3))) return "a mixture";
    return std::string(label->Text(0));
  }
  static int64_t LogRows(const std::string& path) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    if (!db.ok()) return -1;
    sqlite3_busy_timeout(db->get(), 10'000);
    return sqlite::QueryInt(db->get(), "select count(*) from log").value_or(-1);
  }
  static std::string JournalMode(const std::string& path) {
    auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
    auto mode = sqlite::Statement::Prepare(db->get(), "pragma journal_mode");
    if (!mode.ok() || !mode->Step().value_or(false)) return "?";
    return std::string(mode->Text(0));
  }
  // An application dies in the middle of a transaction that had reached the file.
  static void LeaveHotJournal(const std::string& path) {
    const pid_t pid = fork();
    if (pid == 0) {
      auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
      // Spills, so that the file has changed when the process dies.
      static_cast<void>(sqlite::Execute(db->get(), "pragma cache_size=5; begin; update t set v = 'mix'; update label set v = 'mix'"));
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(io::Exists(path + "-journal"));
  }
  // Files of ours that nobody needs any more.
  std::string LeftOver() const {
    std::string found;
    for (const auto& entry : std::filesystem::directory_iterator(data_)) {
      if (entry.path().filename().string().starts_with(".litefleet")) found += entry.path().filename().string() + " ";
    }
    return found;
  }

  std::string folder_;
  std::string data_;
  std::string path_;
  FileFetcher fetcher_;
  v1::RestoreOrder order_;
  Target target_;
  CancelToken cancel_;
  v1::Progress last_;
  std::chrono::milliseconds lock_timeout_{3000};
  std::function<void(std::string_view)> at_point_;
  io::FreeBytesOf free_bytes_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_TESTS_UNIT_AGENT_RESTORE_RESTORE_FIXTURE_H_
