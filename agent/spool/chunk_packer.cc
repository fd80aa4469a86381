#include "agent/spool/chunk_packer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "agent/upload/page_gatherer.h"
#include "common/base/bytes.h"
#include "common/base/status.h"

namespace litefleet::spool {
namespace {

constexpr int kFastLevel = 1;
constexpr std::chrono::milliseconds kLook{100};

upload::PackablePayload& PayloadOf(const upload::Chunk& chunk) { return static_cast<upload::PackablePayload&>(*chunk.payload); }

}  // namespace

ChunkPacker::ChunkPacker(SpoolFileWriter& writer, int level) : writer_(writer), level_(level), fast_(kFastLevel) {
  if (level_ > kFastLevel) thread_ = std::thread([this] { Run(); });
}

ChunkPacker::~ChunkPacker() {
  {
    MutexLock lock(mu_);
    stop_ = true;
  }
  changed_.SignalAll();
  if (thread_.joinable()) thread_.join();
}

void ChunkPacker::Run() {
  format::ChunkCompressor compressor(level_);
  for (;;) {
    std::shared_ptr<Job> job;
    {
      MutexLock lock(mu_);
      for (;;) {
        if (stop_) return;
        // The newest has the most time until the reader takes it.
        const auto newest = std::find_if(jobs_.rbegin(), jobs_.rend(), [](const auto& waiting) { return !waiting->begun; });
        if (newest != jobs_.rend()) {
          job = *newest;
          break;
        }
        changed_.Wait(mu_);
      }
      job->begun = true;
    }
    absl::StatusOr<upload::PackedChunk> packed = PayloadOf(job->chunk).Pack(compressor);
    {
      MutexLock lock(mu_);
      job->packed = std::move(packed);
      job->done = true;
    }
    changed_.SignalAll();
  }
}

absl::Status ChunkPacker::Add(upload::Chunk chunk) {
  if (level_ <= kFastLevel) return Write(chunk, PayloadOf(chunk).Pack(fast_));
  {
    MutexLock lock(mu_);
    jobs_.push_back(std::make_shared<Job>());
    jobs_.back()->chunk = std::move(chunk);
  }
  changed_.SignalAll();
  return Store(kMaxWaiting);
}

absl::Status ChunkPacker::Store(size_t may_wait) {
  for (;;) {
    std::shared_ptr<Job> oldest;
    bool done = false;
    {
      MutexLock lock(mu_);
      if (jobs_.empty() || (!jobs_.front()->done && jobs_.size() <= may_wait)) return absl::OkStatus();
      oldest = jobs_.front();
      jobs_.pop_front();
      done = oldest->done;
      // What the compressor makes of it now is not waited for.
      oldest->begun = true;
    }
    LF_RETURN_IF_ERROR(Write(oldest->chunk, done ? std::move(oldest->packed) : PackFast(oldest->chunk)));
  }
}

absl::Status ChunkPacker::Finish(const CancelToken& cancel) {
  for (;;) {
    LF_RETURN_IF_ERROR(Store(kMaxWaiting));
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled");
    MutexLock lock(mu_);
    if (jobs_.empty()) return absl::OkStatus();
    if (!jobs_.front()->done) changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + kLook);
  }
}

absl::StatusOr<upload::PackedChunk> ChunkPacker::PackFast(const upload::Chunk& chunk) {
  LF_ASSIGN_OR_RETURN(const std::string raw, PayloadOf(chunk).Raw());
  upload::PackedChunk packed;
  LF_ASSIGN_OR_RETURN(packed.codec, fast_.Compress(AsBytes(raw), packed.data));
  return packed;
}

absl::Status ChunkPacker::Write(const upload::Chunk& chunk, absl::StatusOr<upload::PackedChunk> packed) {
  LF_RETURN_IF_ERROR(packed.status());
  return writer_.Add(
      {.name = chunk.name, .runs = chunk.runs, .raw_bytes = chunk.raw_bytes, .codec = packed->codec, .data = std::move(packed->data)});
}

}  // namespace litefleet::spool
