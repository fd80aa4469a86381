// A queue over a real state directory, an executor that runs until it is told to end, and who is told of results.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_CONTROL_OPERATION_QUEUE_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_CONTROL_OPERATION_QUEUE_FIXTURE_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "agent/control/operation_queue.h"
#include "common/base/error_detail.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::control {

inline v1::Order Order(int number, const std::string& database, bool restore = false) {
  v1::Order order;
  order.set_operation_id(fmt::format("01JDAAAAAAAAAAAAAAAAAAAA{:02}", number));
  if (restore) {
    order.mutable_restore()->set_database(database);
  } else {
    order.mutable_backup()->set_database(database);
  }
  return order;
}

// Runs until told to end, or to its cancel.
class FakeExecutor final : public OperationExecutor {
 public:
  v1::OperationResult Execute(const storage::v1::AgentOperation& operation, const v1::Order& order, const CancelToken& cancel,
                              const CancelToken& stop, const std::function<void(const v1::Progress&)>& progress, Turn& turn) override {
    const bool waits = waiting.contains(DatabaseOf(order));
    if (waits) turn.Yield();
    const auto resume = [&] {
      if (waits) turn.Resume(cancel);
    };
    const absl::Cleanup resumed = resume;
    MutexLock lock(mu_);
    begun.push_back(operation.operation_id());
    sessions.push_back(operation.session_id());
    ++running[DatabaseOf(order)];
    EXPECT_EQ(running[DatabaseOf(order)], 1) << "one at a time for a database";
    changed_.SignalAll();
    v1::OperationResult result;
    if (!spooling) {
      result.set_state(v1::OPERATION_STATE_SUCCEEDED);
      v1::Progress done;
      done.set_done_bytes(1);
      progress(done);
    }
    while (hold && !cancel.cancelled() && !(until_awaited && turn.Awaited()))
      changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
    while (ending && !stop.interrupted()) changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
    if (cancel.cancelled()) {
      result.set_state(v1::OPERATION_STATE_CANCELLED);
      *result.mutable_error() = ToErrorDetail(Error(absl::StatusCode::kCancelled, "CANCELLED", "cancelled"));
    }
    --running[DatabaseOf(order)];
    return result;
  }
  absl::StatusOr<v1::RestorePlan> Plan(const v1::Query&) override { return v1::RestorePlan(); }
  std::optional<v1::OperationResult> Settle(const v1::Order& order, const CancelToken& stop) override {
    ++settles;
    while (settling && !stop.interrupted()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (stop.interrupted()) {
      v1::OperationResult result;
      result.set_state(v1::OPERATION_STATE_CANCELLED);
      return result;
    }
    if (order.operation_id() != abandoned) return std::nullopt;
    v1::OperationResult result;
    result.set_state(v1::OPERATION_STATE_FAILED);
    *result.mutable_error() = ToErrorDetail(Error(absl::StatusCode::kAborted, "RESTORE_ABANDONED", "some files are new"));
    return result;
  }
  bool HasBegun(const std::string& id) override { return id == abandoned; }
  absl::Status Forget(const std::string& id) override {
    forgotten.push_back(id);
    return forgets ? absl::OkStatus() : absl::ResourceExhaustedError("no room");
  }

  void Release() {
    MutexLock lock(mu_);
    hold = false;
    changed_.SignalAll();
  }
  bool WaitBegun(size_t count) {
    MutexLock lock(mu_);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (begun.size() < count) {
      if (!changed_.WaitUntil(mu_, until)) return false;
    }
    return true;
  }
  size_t Begun() {
    MutexLock lock(mu_);
    return begun.size();
  }

  bool hold = true;
  bool until_awaited = false;     // goes on when something ordered stands behind it
  bool spooling = false;          // what it makes waits in the spool
  std::set<std::string> waiting;  // databases whose operations only wait
  std::atomic<bool> settling = false;
  std::atomic<int> settles = 0;
  bool forgets = true;
  bool ending = false;    // it ends what it had begun, which no cancel ends
  std::string abandoned;  // what a former run had begun to change
  std::vector<std::string> begun, sessions, forgotten;
  std::map<std::string, int> running;

 private:
  Mutex mu_;
  CondVar changed_;
};

class FakeListener final : public OperationListener {
 public:
  void OnProgress(const v1::OperationProgress& progress) override {
    MutexLock lock(mu_);
    progress_.push_back(progress);
  }
  void OnDropped(const std::string& id) override {
    MutexLock lock(mu_);
    dropped_.push_back(id);
    changed_.SignalAll();
  }
  std::vector<std::string> WaitDropped(size_t count) {
    MutexLock lock(mu_);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (dropped_.size() < count) {
      if (!changed_.WaitUntil(mu_, until)) break;
    }
    return dropped_;
  }
  void OnResult(const v1::OperationResult& result) override {
    MutexLock lock(mu_);
    results_.push_back(result);
    changed_.SignalAll();
  }
  std::vector<v1::OperationResult> Wait(size_t count, std::chrono::milliseconds limit = std::chrono::seconds(10)) {
    MutexLock lock(mu_);
    const auto until = std::chrono::steady_clock::now() + limit;
    while (results_.size() < count) {
      if (!changed_.WaitUntil(mu_, until)) break;
    }
    return results_;
  }
  std::vector<v1::OperationProgress> progress() {
    MutexLock lock(mu_);
    return progress_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<v1::OperationResult> results_;
  std::vector<v1::OperationProgress> progress_;
  std::vector<std::string> dropped_;
};

class OperationQueueTest : public testing::Test {
 protected:
  OperationQueueTest() : path_(testing::TempDir() + fmt::format("/lf-queue-{}", getpid())), state_(*state::StateDirectory::Open(path_)) {}
  ~OperationQueueTest() override { std::filesystem::remove_all(path_); }

  bool OnDisk(const char* folder, const v1::Order& order) const {
    return std::filesystem::exists(fmt::format("{}/{}/{}", path_, folder, order.operation_id()));
  }

  const std::string path_;
  const state::StateDirectory state_;
  RealClock clock_;
  FakeExecutor executor_;
  FakeListener listener_;
};

}  // namespace litefleet::control

#endif  // LITEFLEET_TESTS_UNIT_AGENT_CONTROL_OPERATION_QUEUE_FIXTURE_H_
