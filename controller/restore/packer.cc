#include "controller/restore/packer.h"

#include <algorithm>
#include <cstddef>

#include "common/base/mutex.h"

namespace litefleet::restore {
namespace {

// What is to be done of one message.
class Work {
 public:
  explicit Work(std::span<StoredChunk> chunks) : left_(chunks) {}

  // Until nothing is left that nobody has begun.
  void Do(format::ChunkCompressor& compressor) {
    for (StoredChunk* chunk = Begin(); chunk != nullptr; chunk = Begin()) End(Pack(*chunk, compressor));
  }
  // What others have begun has ended.
  absl::Status Wait() {
    MutexLock lock(mu_);
    while (begun_ > 0) ended_.Wait(mu_);
    return status_;
  }

 private:
  StoredChunk* Begin() {
    MutexLock lock(mu_);
    if (!status_.ok()) return nullptr;  // the chunks may be gone
    while (!left_.empty() && !left_.front().data.empty()) left_ = left_.subspan(1);
    if (left_.empty()) return nullptr;
    StoredChunk* const chunk = &left_.front();
    left_ = left_.subspan(1);
    ++begun_;
    return chunk;
  }
  void End(const absl::Status& status) {
    MutexLock lock(mu_);
    status_.Update(status);
    if (--begun_ == 0) ended_.SignalAll();
  }

  Mutex mu_;
  CondVar ended_;
  std::span<StoredChunk> left_ ABSL_GUARDED_BY(mu_);
  size_t begun_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

Packer::Packer(Executor* helpers, int level)
    : helpers_(helpers), own_(level), helpers_own_(std::make_shared<format::ChunkCompressor>(level)) {}

absl::Status Packer::Pack(std::span<StoredChunk> chunks) {
  const auto work = std::make_shared<Work>(chunks);
  const auto open = std::count_if(chunks.begin(), chunks.end(), [](const StoredChunk& chunk) { return chunk.data.empty(); });
  // Nobody who could help is as good as nobody free.
  if (helpers_ != nullptr && open > 1) static_cast<void>(helpers_->TryPost([work, compressor = helpers_own_] { work->Do(*compressor); }));
  work->Do(own_);
  return work->Wait();
}

}  // namespace litefleet::restore
