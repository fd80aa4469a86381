#include "controller/restore/read_ahead.h"

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
    if (!Claim()) return;
    Result result = reader_->Next();
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
  // True once.
  bool Claim() {
    MutexLock lock(mu_);
    return !std::exchange(begun_, true);
  }

 private:
  const std::shared_ptr<SnapshotReader> reader_;  // used by who has claimed this, and by its reader again when that has taken the result
  Mutex mu_;
  CondVar changed_;
  bool begun_ ABSL_GUARDED_BY(mu_) = false;
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
      (void)executor_.TryPost([next = next_] { next->Run(); });  // without room it is read when it is wanted
    }
    return chunk;
  }

 private:
  const std::shared_ptr<SnapshotReader> reader_;
  Executor& executor_;
  std::shared_ptr<Step> next_;
};

}  // namespace

std::unique_ptr<SnapshotReader> ReadAhead(std::unique_ptr<SnapshotReader> reader, Executor& executor) {
  return std::make_unique<AheadReader>(std::move(reader), executor);
}

}  // namespace litefleet::restore
