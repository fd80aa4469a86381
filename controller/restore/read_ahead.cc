#include "controller/restore/read_ahead.h"

#include <atomic>
#include <utility>

#include "common/base/mutex.h"

namespace litefleet::restore {
namespace {

using Result = absl::StatusOr<std::optional<StoredChunk>>;

// One chunk, read by whoever begins first.
class Step {
 public:
  explicit Step(std::shared_ptr<SnapshotReader> reader) : reader_(std::move(reader)) {}

  void Run() {
    const std::shared_ptr<SnapshotReader> reader = Claim();
    if (reader == nullptr) return;
    Result result = reader->Next();
    MutexLock lock(mu_);
    result_ = std::move(result);
    done_ = true;
    changed_.SignalAll();
  }
  // What is waited for runs already.
  Result Take() {
    Run();
    MutexLock lock(mu_);
    while (!done_) changed_.Wait(mu_);
    return std::move(result_);
  }
  // The reader, once: a task that comes late keeps nothing.
  std::shared_ptr<SnapshotReader> Claim() {
    MutexLock lock(mu_);
    return std::exchange(reader_, nullptr);
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::shared_ptr<SnapshotReader> reader_ ABSL_GUARDED_BY(mu_);  // until it is claimed
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  Result result_ ABSL_GUARDED_BY(mu_) = Result(std::nullopt);
};

class AheadReader final : public SnapshotReader {
 public:
  AheadReader(std::unique_ptr<SnapshotReader> reader, Executor& executor) : reader_(std::move(reader)), executor_(executor) {}
  ~AheadReader() override {
    if (next_ != nullptr) next_->Claim();  // a task that has not begun has nothing to do
  }

  const SnapshotGeometry& geometry() const override { return reader_->geometry(); }

  Result Next() override {
    const std::shared_ptr<Step> step = std::exchange(next_, nullptr);
    Result chunk = step != nullptr ? step->Take() : reader_->Next();
    if (chunk.ok() && chunk->has_value() && (*chunk)->data.empty()) {
      next_ = std::make_shared<Step>(reader_);
      Post();
    }
    return chunk;
  }

 private:
  // One task at a time: where all threads are busy, those whose steps were taken since would fill the queue. Without room, or with one that
  // waits yet, the chunk is read when it is wanted.
  void Post() {
    if (waits_->exchange(true)) return;
    const bool posted = executor_.TryPost([next = next_, waits = waits_] {
      waits->store(false);
      next->Run();
    });
    if (!posted) waits_->store(false);
  }

  const std::shared_ptr<SnapshotReader> reader_;
  Executor& executor_;
  std::shared_ptr<Step> next_;
  const std::shared_ptr<std::atomic<bool>> waits_ = std::make_shared<std::atomic<bool>>(false);  // a task of this is in the queue
};

}  // namespace

std::unique_ptr<SnapshotReader> ReadAhead(std::unique_ptr<SnapshotReader> reader, Executor& executor) {
  return std::make_unique<AheadReader>(std::move(reader), executor);
}

}  // namespace litefleet::restore
