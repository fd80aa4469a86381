#include "agent/upload/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/crash_point.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

constexpr size_t kMaxWaiting = 16;  // chunks, 4 MiB

absl::Status DiskFull(const std::string& path, uint64_t free, uint64_t reserve, const std::string& wanted) {
  constexpr double kMiB = 1 << 20;
  return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
               fmt::format("{:.1f} MiB are free where {} is, {} and a reserve of {:.1f} MiB stays free", static_cast<double>(free) / kMiB,
                           path, wanted, static_cast<double>(reserve) / kMiB),
               "free space where the state directory is; the reserve is `[limits] disk_reserve` of agent.toml");
}

}  // namespace

struct Spool::SpooledPayload final : PackablePayload {
  SpooledPayload(const Spool& owner, const Entry& at) : spool(owner), entry(at) {}
  absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) override {
    PackedChunk packed;
    packed.codec = entry.codec;
    packed.data.resize(entry.stored_bytes);
    LF_RETURN_IF_ERROR(io::PreadAll(spool.fd_.get(), std::as_writable_bytes(std::span(packed.data)), entry.offset, spool.path_));
    if (packed.codec != format::Codec::kRaw) return packed;
    thread_local std::string room;
    PackedChunk smaller;
    LF_ASSIGN_OR_RETURN(smaller.codec, compressor.Compress(AsBytes(packed.data), room));
    smaller.data.assign(room);
    return smaller;
  }
  absl::StatusOr<std::string> Raw() const override {
    std::string stored(entry.stored_bytes, '\0');
    LF_RETURN_IF_ERROR(io::PreadAll(spool.fd_.get(), std::as_writable_bytes(std::span(stored)), entry.offset, spool.path_));
    if (entry.codec == format::Codec::kRaw) return stored;
    Bytes raw;
    LF_RETURN_IF_ERROR(format::ChunkDecompressor().Decompress(entry.codec, AsBytes(stored), entry.raw_bytes, raw));
    return std::string(AsText(raw));
  }

  const Spool& spool;
  const Entry entry;
};

class Spool::SpoolFeed final : public ChunkFeed {
 public:
  explicit SpoolFeed(const Spool& spool) : spool_(spool) {}
  absl::StatusOr<std::optional<Chunk>> Next() override {
    if (next_ == spool_.entries_.size()) return std::nullopt;
    const Entry& entry = spool_.entries_[next_++];
    return Chunk{entry.name, entry.runs, entry.raw_bytes, std::make_shared<SpooledPayload>(spool_, entry)};
  }
  v1::UploadCommit Commit() override { return spool_.commit_; }
  std::chrono::nanoseconds pinned_since_boot() const override { return spool_.pinned_since_boot_; }
  uint32_t page_size() const override { return spool_.commit_.page_size(); }
  uint32_t page_count() const override { return spool_.commit_.page_count(); }
  int64_t read_bytes() const override { return spool_.commit_.read_bytes(); }

 private:
  const Spool& spool_;
  size_t next_ = 0;
};

// Packs on threads, and writes in whatever order chunks are ready: an entry knows its place.
class Spool::Writer {
 public:
  Writer(Spool& spool, const SpoolOptions& options) : spool_(spool), options_(options) {
    for (int i = 0; i < options.compressors; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~Writer() { Finish().IgnoreError(); }

  // Where all compressors are busy the caller writes the chunk itself, as it is.
  absl::Status Add(size_t entry, Chunk chunk) {
    {
      MutexLock lock(mu_);
      if (!status_.ok()) return status_;
      if (waiting_.size() < kMaxWaiting) {
        waiting_.push_back({entry, std::move(chunk)});
        work_.Signal();
        return absl::OkStatus();
      }
    }
    return Store(entry, chunk, nullptr);
  }

  absl::Status Finish() {
    {
      MutexLock lock(mu_);
      stop_ = true;
    }
    work_.SignalAll();
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
    MutexLock lock(mu_);
    return status_;
  }

 private:
  struct Waiting {
    size_t entry;
    Chunk chunk;
  };

  void Run() {
    format::ChunkCompressor compressor(options_.compression_level);
    for (;;) {
      Waiting next;
      {
        MutexLock lock(mu_);
        while (waiting_.empty() && !stop_) work_.Wait(mu_);
        if (waiting_.empty()) return;
        next = std::move(waiting_.front());
        waiting_.pop_front();
      }
      const absl::Status status = Store(next.entry, next.chunk, &compressor);
      if (status.ok()) continue;
      MutexLock lock(mu_);
      if (status_.ok()) status_ = status;
    }
  }

  absl::Status Store(size_t at, const Chunk& chunk, format::ChunkCompressor* compressor) {
    auto& payload = static_cast<PackablePayload&>(*chunk.payload);
    PackedChunk packed;
    if (compressor != nullptr) {
      LF_ASSIGN_OR_RETURN(packed, payload.Pack(*compressor));
    } else {
      LF_ASSIGN_OR_RETURN(packed.data, payload.Raw());
    }
    uint64_t offset;
    {
      MutexLock lock(mu_);
      offset = end_;
      end_ += packed.data.size();
      Entry& entry = spool_.entries_[at];
      entry.offset = offset;
      entry.stored_bytes = static_cast<uint32_t>(packed.data.size());
      entry.codec = packed.codec;
    }
    return io::PwriteAll(spool_.fd_.get(), AsBytes(packed.data), offset, spool_.path_);
  }

  Spool& spool_;
  const SpoolOptions& options_;
  Mutex mu_;
  CondVar work_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  uint64_t end_ ABSL_GUARDED_BY(mu_) = 0;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

absl::StatusOr<std::unique_ptr<Spool>> Spool::Fill(const std::string& path, SourceFeed& feed, const SpoolOptions& options,
                                                   const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(path, O_RDWR | O_CREAT | O_TRUNC));
  std::unique_ptr<Spool> spool(new Spool(path, std::move(fd)));
  const uint64_t bytes = format::DatabaseBytes(feed.page_size(), feed.page_count());
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(path));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, options.reserve.At(path));
  // Chunks are compressed: an eighth of the database is the least that it may take, what it takes is seen below.
  if (free < reserve || (!feed.changes_only() && free - reserve < bytes / 8)) {
    const double mib = static_cast<double>(bytes) / (1 << 20);
    return DiskFull(path, free, reserve,
                    fmt::format("a database of {:.1f} MiB takes {:.1f} MiB at least while it waits for the network,", mib, mib / 8));
  }
  // All entries at once: compressors fill in places while others are added.
  // Two chunks of changed pages that follow each other fill one at least, but for the last one of a stretch.
  const uint32_t extents = format::ExtentCount(feed.page_size(), feed.page_count());
  spool->entries_.resize(feed.changes_only() ? size_t{extents} * 2 + extents / format::kExtentsPerStretch + 2 : extents);
  size_t used = 0;
  Writer writer(*spool, options);
  for (size_t at = 0;; ++at) {
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled");
    if (at % 64 == 63) {
      LF_ASSIGN_OR_RETURN(const uint64_t left, io::FreeBytes(path));
      if (left < reserve) return DiskFull(path, left, reserve, "the backup that waits for the network has not ended,");
    }
    LF_ASSIGN_OR_RETURN(std::optional<Chunk> chunk, feed.Next());
    if (!chunk) break;
    ++used;
    if (at >= spool->entries_.size()) return Error(absl::StatusCode::kInternal, "SOURCE_LONG", "the source yielded more than it announced");
    Entry& entry = spool->entries_[at];
    entry.name = chunk->name;
    entry.runs = chunk->runs;
    entry.raw_bytes = chunk->raw_bytes;
    LF_CRASH_POINT("upload.spooling");
    LF_RETURN_IF_ERROR(writer.Add(at, *std::move(chunk)));
  }
  LF_RETURN_IF_ERROR(writer.Finish());
  spool->entries_.resize(used);
  spool->commit_ = feed.Commit();
  spool->pinned_since_boot_ = feed.pinned_since_boot();
  return spool;
}

Spool::~Spool() { unlink(path_.c_str()); }

std::unique_ptr<ChunkFeed> Spool::MakeFeed() const { return std::make_unique<SpoolFeed>(*this); }

}  // namespace litefleet::upload
