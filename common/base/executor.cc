#include "common/base/executor.h"

#include <utility>

namespace litefleet {

ThreadPoolExecutor::ThreadPoolExecutor(int threads, size_t max_queued) : max_queued_(max_queued) {
  threads_.reserve(static_cast<size_t>(threads));
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

ThreadPoolExecutor::~ThreadPoolExecutor() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  work_.SignalAll();
  for (auto& thread : threads_) thread.join();
}

bool ThreadPoolExecutor::TryPost(absl::AnyInvocable<void()> task) {
  {
    MutexLock lock(mu_);
    if (stop_ || queue_.size() >= max_queued_) return false;
    queue_.push_back(std::move(task));
  }
  work_.Signal();
  return true;
}

void ThreadPoolExecutor::Post(absl::AnyInvocable<void()> task) {
  {
    MutexLock lock(mu_);
    while (queue_.size() >= max_queued_) room_.Wait(mu_);
    queue_.push_back(std::move(task));
  }
  work_.Signal();
}

void ThreadPoolExecutor::Run() {
  for (;;) {
    absl::AnyInvocable<void()> task;
    {
      MutexLock lock(mu_);
      while (queue_.empty() && !stop_) work_.Wait(mu_);
      if (queue_.empty()) return;
      task = std::move(queue_.front());
      queue_.pop_front();
    }
    room_.Signal();
    task();
  }
}

}  // namespace litefleet
