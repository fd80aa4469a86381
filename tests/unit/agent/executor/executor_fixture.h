// A device that carries backups out: a real database, a clock of its own, and a controller that keeps what it is sent.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_EXECUTOR_EXECUTOR_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_EXECUTOR_EXECUTOR_FIXTURE_H_

#include <gtest/gtest.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "agent/executor.h"
#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "tests/fakes/fake_upload_controller.h"

namespace litefleet {

struct NoTurn final : control::Turn {
  void Yield() override {}
  void Resume(const CancelToken&) override {}
};

struct NoSender final : heal::WantedSender {
  absl::Status WaitConnected(SteadyTime, const CancelToken&) override { return absl::UnavailableError("no controller"); }
  absl::StatusOr<v1::SendWantedResponse> Send(const v1::SendWantedRequest&, const CancelToken&) override {
    return absl::UnavailableError("no controller");
  }
};

struct NoFetcher final : restore::PageFetcher {
  absl::Status Fetch(const std::string&, const v1::RestoreOrder&, uint32_t, const CancelToken&,
                     const std::function<absl::Status(const restore::FetchedExtent&)>&) override {
    return absl::UnavailableError("no controller");
  }
  absl::Status FetchNames(const std::string&, const v1::RestoreOrder&, const CancelToken&,
                          const std::function<absl::Status(std::span<const format::ChunkName>)>&) override {
    return absl::UnavailableError("no controller");
  }
  absl::Status FetchPages(const std::string&, const v1::RestoreOrder&, const restore::WantedPages&, const CancelToken&,
                          const std::function<absl::Status(const restore::FetchedPages&)>&) override {
    return absl::UnavailableError("no controller");
  }
};

// Programs of the device: real ones, until a test answers for them.
class FixtureHooks final : public hooks::HookRunner {
 public:
  hooks::HookResult Run(const hooks::Hook& hook, const CancelToken& cancel) override {
    if (!answer) return processes_.Run(hook, cancel);
    hooks::HookResult result;
    result.run.set_hook(hook.name);
    result.run.set_exit_code(answer(hook));
    if (cancel.cancelled()) result.status = absl::CancelledError();
    return result;
  }
  // The exit code. Set before any runs; called from any thread.
  std::function<int(const hooks::Hook&)> answer;

 private:
  hooks::ProcessHookRunner processes_;
};

// How often files of a folder are opened, by whomever.
class OpenWatch {
 public:
  explicit OpenWatch(const std::string& folder) : fd_(inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    works_ = fd_ >= 0 && inotify_add_watch(fd_, folder.c_str(), IN_OPEN) >= 0;
  }
  ~OpenWatch() {
    if (fd_ >= 0) close(fd_);
  }
  OpenWatch(const OpenWatch&) = delete;
  OpenWatch& operator=(const OpenWatch&) = delete;

  bool works() const { return works_; }
  // Since the last call; of the folder itself none.
  int Take() const {
    int opened = 0;
    alignas(inotify_event) char buffer[4096];
    for (ssize_t n = 0; (n = read(fd_, buffer, sizeof buffer)) > 0;) {
      for (ssize_t at = 0; at < n;) {
        const auto* const event = reinterpret_cast<const inotify_event*>(&buffer[at]);
        if (event->len > 0) ++opened;
        at += static_cast<ssize_t>(sizeof(inotify_event) + event->len);
      }
    }
    return opened;
  }

 private:
  const int fd_;
  bool works_ = false;
};

class ExecutorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "lf-executor-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    std::filesystem::create_directory(folder_ + "/data");
    auto state = state::StateDirectory::Open(folder_ + "/state");
    ASSERT_TRUE(state.ok()) << state.status();
    state_.emplace(*std::move(state));
    std::vector<std::string> said;
    auto gaps = state::GapBook::Open(state_->gaps_path(), said);
    ASSERT_TRUE(gaps.ok()) << gaps.status();
    gaps_ = *std::move(gaps);
    auto spool = spool::SnapshotSpool::Open(state_->spooled_path(), *gaps_, clock_, said);
    ASSERT_TRUE(spool.ok()) << spool.status();
    spool_ = *std::move(spool);
    restore::RestorerOptions restores;
    restores.state_folder = state_->restore_path();
    auto restorer = restore::LocalRestorer::Open(restores, fetcher_);
    ASSERT_TRUE(restorer.ok()) << restorer.status();
    restorer_ = *std::move(restorer);
    rules_.emplace(*state_, clock_);
    config::DatabaseConfig database;
    database.name = "app";
    database.path = folder_ + "/data/app.db";
    config_.databases.push_back(database);
    config_.disk_reserve = io::DiskReserve(0);
    executor_ = std::make_unique<DeviceExecutor>(DeviceExecutor::Dependencies{
        .state = *state_,
        .clock = clock_,
        .transport = controller_,
        .restorer = *restorer_,
        .rate = rate_,
        .config = [this] { return std::make_shared<const config::AgentConfig>(config_); },
        .device_id = "device",
        .backup = {},
        .sender = sender_,
        .hooks = hooks_,
        .spool = *spool_,
        .offline =
            [this] {
              if (when_offline_) when_offline_();
              return offline_;
            },
        .report =
            [this](const v1::OperationProgress& report) {
              if (on_progress_) on_progress_(report.progress());
            },
        .ended =
            [this](const v1::OperationResult& result) {
              ended_.push_back(result);
              return absl::OkStatus();
            },
        .rules = &*rules_,
        .config_path = "",
        .pause_capture = [this](const std::string&, std::string_view, const CancelToken& cancel) -> absl::StatusOr<std::shared_ptr<void>> {
          return pause_ ? pause_(cancel) : std::shared_ptr<void>();
        },
        .pause_interval = std::chrono::milliseconds(5),
    });
    Sql("create table t (v text); insert into t values ('first')");
    // The files are an hour old: what is written now by this clock would show in their times.
    clock_.JumpSystem(std::chrono::system_clock::now() + std::chrono::hours(1) - clock_.Now());
  }
  void TearDown() override {
    executor_.reset();
    restorer_.reset();
    std::filesystem::remove_all(folder_);
  }

  const std::string& path() const { return config_.databases[0].path; }
  void Sql(const std::string& sql) {
    auto db = sqlite::Open(path(), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE(sqlite::Execute(db->get(), sql).ok());
  }
  // The next run of the schedule, a minute after the last one.
  v1::OperationResult Run(bool drain = false) { return Run(drain, true); }
  // One that somebody orders. `full`: all is compared, whatever is known.
  v1::OperationResult RunOrdered(bool full = false) { return Run(false, false, full); }
  v1::OperationResult Run(bool drain, bool by_schedule, bool full = false) {
    clock_.Advance(std::chrono::minutes(1));
    storage::v1::AgentOperation operation;
    operation.set_operation_id(NewUlid(clock_.Now()));
    operation.set_session_id(NewUlid(clock_.Now()));
    operation.set_by_schedule(by_schedule);
    operation.set_drain(drain);
    operation.set_started_at_ms(ToUnixMillis(clock_.Now()));
    v1::Order order;
    order.mutable_backup()->set_database("app");
    order.mutable_backup()->set_full(full);
    return executor_->Execute(
        operation, order, cancel_, cancel_,
        [this](const v1::Progress& progress) {
          if (on_progress_) on_progress_(progress);
        },
        turn_);
  }
  storage::v1::AgentDatabase Kept() const { return state_->ReadDatabase("app").value(); }
  int64_t NowMs() const { return ToUnixMillis(clock_.Now()); }
  std::string FileContent() const {
    std::ifstream file(path(), std::ios::binary);
    std::ostringstream content;
    content << file.rdbuf();
    return content.str();
  }

  std::string folder_;
  FakeClock clock_;
  config::AgentConfig config_;
  bool offline_ = false;
  std::function<void()> when_offline_;                                              // before a run is told whether it is
  std::function<absl::StatusOr<std::shared_ptr<void>>(const CancelToken&)> pause_;  // of continuous capture; empty: it lets go at once
  std::function<void(const v1::Progress&)> on_progress_;                            // of runs, and of what was spooled
  std::vector<v1::OperationResult> ended_;                                          // of what was spooled
  CancelToken cancel_;
  NoTurn turn_;
  RateLimit rate_{0};
  NoSender sender_;
  NoFetcher fetcher_;
  FixtureHooks hooks_;
  fakes::FakeUploadController controller_;
  std::optional<state::StateDirectory> state_;
  std::unique_ptr<state::GapBook> gaps_;
  std::unique_ptr<spool::SnapshotSpool> spool_;
  std::unique_ptr<restore::LocalRestorer> restorer_;
  std::optional<rules::OrderRules> rules_;
  std::unique_ptr<DeviceExecutor> executor_;
};

}  // namespace litefleet

#endif  // LITEFLEET_TESTS_UNIT_AGENT_EXECUTOR_EXECUTOR_FIXTURE_H_
