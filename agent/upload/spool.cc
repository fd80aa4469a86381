#include "agent/upload/spool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
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

constexpr size_t kMaxWaiting = 4;  // chunks, 1 MiB
// So much of a spool, where it is written, tells how well the rest compresses.
constexpr uint64_t kTelling = 4 << 20;

absl::Status DiskFull(const std::string& path, uint64_t free, uint64_t reserve, const std::string& wanted) {
  constexpr double kMiB = 1 << 20;
  return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
               fmt::format("{:.1f} MiB are free where {} is, {} and a reserve of {:.1f} MiB stays free", static_cast<double>(free) / kMiB,
                           path, wanted, static_cast<double>(reserve) / kMiB),
               "free space where the state directory is; the reserve is `[limits] disk_reserve` of agent.toml");
}

}  // namespace

// Packs on threads, and writes in whatever order chunks are ready: an entry knows its place.
class Spool::Writer {
 public:
  explicit Writer(Spool& spool) : spool_(spool) {
    for (int i = 0; i < spool.options_.compressors; ++i) threads_.emplace_back([this] { Run(); });
  }
  ~Writer() {
    std::deque<Waiting> unwanted;  // nobody will read it
    {
      MutexLock lock(mu_);
      unwanted.swap(waiting_);
    }
    Finish().IgnoreError();
  }

  // Where all compressors are busy the caller writes the chunk itself, as it is.
  absl::Status Add(Place& place, Chunk chunk, uint64_t to_come) {
    {
      MutexLock lock(mu_);
      if (!status_.ok()) return status_;
      if (to_come > 0) LF_RETURN_IF_ERROR(Expect(to_come + chunk.raw_bytes));
      if (end_ + coming_bytes_ + chunk.raw_bytes > spool_.options_.max_bytes) {
        return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                     fmt::format("{} MiB of a backup wait for the network, and the spool takes no more", spool_.options_.max_bytes >> 20),
                     "raise `[limits] spool_bytes` of agent.toml");
      }
      coming_bytes_ += chunk.raw_bytes;
      if (waiting_.size() < kMaxWaiting) {
        waiting_.push_back({&place, std::move(chunk)});
        work_.Signal();
        return absl::OkStatus();
      }
    }
    return Store(place, chunk, nullptr);
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

  // Waits until the chunk has its place.
  absl::StatusOr<Place> Written(const Place& place) {
    MutexLock lock(mu_);
    while (!place.written && status_.ok()) written_.Wait(mu_);
    if (!place.written) return status_;
    return place;
  }

 private:
  struct Waiting {
    Place* place;
    Chunk chunk;
  };

  // Flash is not worn for what will not fit: with a quarter's doubt, since content is not the same all over a database.
  absl::Status Expect(uint64_t to_come) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    const uint64_t room = spool_.options_.max_bytes;
    if (end_ < std::min(kTelling, room / 4)) return absl::OkStatus();
    const double share = static_cast<double>(end_) / static_cast<double>(raw_bytes_);
    const double expected = static_cast<double>(end_) + share * static_cast<double>(to_come + coming_bytes_);
    if (expected <= 1.25 * static_cast<double>(room)) return absl::OkStatus();
    return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                 fmt::format("{} MiB that are still to be read do not fit into a spool of {} MiB: what was read takes {:.0f} % of its size",
                             to_come >> 20, room >> 20, 100 * share),
                 "raise `[limits] spool_bytes` of agent.toml");
  }

  void Run() {
    format::ChunkCompressor compressor(spool_.options_.compression_level);
    for (;;) {
      Waiting next;
      {
        MutexLock lock(mu_);
        while (waiting_.empty() && !stop_) work_.Wait(mu_);
        if (waiting_.empty()) return;
        next = std::move(waiting_.front());
        waiting_.pop_front();
      }
      const absl::Status status = Store(*next.place, next.chunk, &compressor);
      if (status.ok()) continue;
      MutexLock lock(mu_);
      if (status_.ok()) status_ = status;
      written_.SignalAll();
    }
  }

  absl::Status Store(Place& place, const Chunk& chunk, format::ChunkCompressor* compressor) {
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
      raw_bytes_ += chunk.raw_bytes;
      coming_bytes_ -= chunk.raw_bytes;
    }
    LF_RETURN_IF_ERROR(io::PwriteAll(spool_.fd_.get(), AsBytes(packed.data), offset, spool_.path_));
    MutexLock lock(mu_);
    place = {.offset = offset, .stored_bytes = static_cast<uint32_t>(packed.data.size()), .codec = packed.codec, .written = true};
    written_.SignalAll();
    return absl::OkStatus();
  }

  Spool& spool_;
  Mutex mu_;
  CondVar work_;
  CondVar written_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  uint64_t coming_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // as they are: the most that those without a place yet may take
  uint64_t end_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t raw_bytes_ ABSL_GUARDED_BY(mu_) = 0;  // of what lies before it
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<std::thread> threads_;
};

struct Spool::SpooledPayload final : PackablePayload {
  SpooledPayload(const Spool& owner, const Entry& at) : spool(owner), entry(at) {}
  absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) override {
    PackedChunk packed;
    LF_ASSIGN_OR_RETURN(const Place place, spool.writer_->Written(entry.place));
    packed.codec = place.codec;
    packed.data.resize(place.stored_bytes);
    LF_RETURN_IF_ERROR(io::PreadAll(spool.fd_.get(), std::as_writable_bytes(std::span(packed.data)), place.offset, spool.path_));
    if (packed.codec != format::Codec::kRaw) return packed;
    PackedChunk smaller;
    LF_ASSIGN_OR_RETURN(smaller.codec, compressor.Compress(AsBytes(packed.data), smaller.data));
    return smaller;
  }
  absl::StatusOr<std::string> Raw() const override {
    LF_ASSIGN_OR_RETURN(const Place place, spool.writer_->Written(entry.place));
    std::string stored(place.stored_bytes, '\0');
    LF_RETURN_IF_ERROR(io::PreadAll(spool.fd_.get(), std::as_writable_bytes(std::span(stored)), place.offset, spool.path_));
    if (place.codec == format::Codec::kRaw) return stored;
    Bytes raw;
    LF_RETURN_IF_ERROR(format::ChunkDecompressor().Decompress(place.codec, AsBytes(stored), entry.raw_bytes, raw));
    return std::string(AsText(raw));
  }

  const Spool& spool;
  const Entry& entry;
};

Spool::Spool(std::string path, io::UniqueFd fd, const SpoolOptions& options)
    : path_(std::move(path)), fd_(std::move(fd)), options_(options), writer_(std::make_unique<Writer>(*this)) {}

Spool::~Spool() {
  writer_.reset();
  unlink(path_.c_str());
}

absl::StatusOr<std::unique_ptr<Spool>> Spool::Open(const std::string& path, const SpoolOptions& options) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, io::Open(path, O_RDWR | O_CREAT | O_TRUNC));
  std::unique_ptr<Spool> spool(new Spool(path, std::move(fd), options));
  LF_RETURN_IF_ERROR(spool->CheckSpace());
  return spool;
}

absl::Status Spool::CheckSpace() const {
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(path_));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, options_.reserve.At(path_));
  if (free < reserve) return DiskFull(path_, free, reserve, "a backup waits for the network,");
  return absl::OkStatus();
}

absl::Status Spool::Add(Chunk chunk, uint64_t to_come) {
  if (size_ % 64 == 63) {
    // As a spool that is smaller than it was said to be.
    if (const absl::Status full = CheckSpace(); !full.ok())
      return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL", MessageOf(full), HintOf(full));
  }
  LF_CRASH_POINT("upload.spooling");
  Entry& entry = entries_.emplace_back();
  entry.name = chunk.name;
  entry.runs = chunk.runs;
  entry.sources = chunk.sources;
  entry.raw_bytes = chunk.raw_bytes;
  ++size_;
  return writer_->Add(entry.place, std::move(chunk), to_come);
}

absl::Status Spool::Finish() { return writer_->Finish(); }

Chunk Spool::At(size_t at) {
  const Entry& entry = entries_[at];
  return Chunk{entry.name, entry.runs, entry.raw_bytes, std::make_shared<SpooledPayload>(*this, entry), false, entry.sources};
}

class SpooledBackup::Feed final : public ChunkFeed {
 public:
  explicit Feed(const SpooledBackup& backup) : backup_(backup) {}
  absl::StatusOr<std::optional<Chunk>> Next() override {
    if (next_ == backup_.spool_->size()) return std::nullopt;
    return backup_.spool_->At(next_++);
  }
  v1::UploadCommit Commit() override { return backup_.commit_; }
  std::chrono::nanoseconds pinned_since_boot() const override { return backup_.pinned_since_boot_; }
  uint32_t page_size() const override { return backup_.commit_.page_size(); }
  uint32_t page_count() const override { return backup_.commit_.page_count(); }
  int64_t read_bytes() const override { return backup_.commit_.read_bytes(); }

 private:
  const SpooledBackup& backup_;
  size_t next_ = 0;
};

absl::StatusOr<std::unique_ptr<SpooledBackup>> SpooledBackup::Read(const std::string& path, ChunkFeed& feed, const SpoolOptions& options,
                                                                   const CancelToken& cancel, const std::function<void()>& on_chunk) {
  std::unique_ptr<SpooledBackup> backup(new SpooledBackup());
  LF_ASSIGN_OR_RETURN(backup->spool_, Spool::Open(path, options));
  for (;;) {
    if (cancel.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled");
    LF_ASSIGN_OR_RETURN(std::optional<Chunk> chunk, feed.Next());
    if (!chunk) break;
    LF_RETURN_IF_ERROR(backup->spool_->Add(*std::move(chunk), feed.bytes_to_come()));
    on_chunk();
  }
  LF_RETURN_IF_ERROR(backup->spool_->Finish());
  backup->commit_ = feed.Commit();
  backup->pinned_since_boot_ = feed.pinned_since_boot();
  return backup;
}

std::unique_ptr<ChunkFeed> SpooledBackup::MakeFeed() const { return std::make_unique<Feed>(*this); }

}  // namespace litefleet::upload
