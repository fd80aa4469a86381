// Where blocking work runs: disk, SQLite, compression. Never in a gRPC reaction, never under a lock.
//
// Not for work that waits for another task of the same executor: a full pool would wait for itself.
// Thread safety: all members may be called from any thread. Ownership: tasks are owned until they have run.
#ifndef LITEFLEET_COMMON_BASE_EXECUTOR_H_
#define LITEFLEET_COMMON_BASE_EXECUTOR_H_

#include <cstddef>
#include <deque>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/base/mutex.h"

namespace litefleet {

class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `task` once, on an unspecified thread, never inline. False, and the task is not taken, when the queue is full.
  [[nodiscard]] virtual bool TryPost(absl::AnyInvocable<void()> task) = 0;
};

// A fixed pool over one bounded queue. The destructor runs what is queued, then joins.
class ThreadPoolExecutor final : public Executor {
 public:
  // REQUIRES: threads >= 1, max_queued >= 1.
  ThreadPoolExecutor(int threads, size_t max_queued);
  ~ThreadPoolExecutor() override;
  ThreadPoolExecutor(const ThreadPoolExecutor&) = delete;
  ThreadPoolExecutor& operator=(const ThreadPoolExecutor&) = delete;

  bool TryPost(absl::AnyInvocable<void()> task) override;
  // As TryPost, but waits for room. REQUIRES: not called from a task of this executor.
  void Post(absl::AnyInvocable<void()> task);

 private:
  void Run();

  const size_t max_queued_;
  Mutex mu_;
  CondVar work_;
  CondVar room_;
  std::deque<absl::AnyInvocable<void()>> queue_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_EXECUTOR_H_
