// What was read of a database and waits for the network: compressed chunks in one file of the state directory.
//
// The producer adds chunks, which are packed on threads of the spool's own, so that reading the source waits for the disk and the processor
// and never for the network. Where compression cannot keep up, chunks are written as they are and compressed when they are sent. The file
// needs no format of its own: it does not outlive the process (StateDirectory::ClearSpool).
//
// Thread safety: Add, Finish and At on one thread; payloads may be packed on any thread. Memory: 4 chunks, about 100 bytes a chunk and 8
// bytes a run of changed pages; bounded by max_bytes.
#ifndef LITEFLEET_AGENT_UPLOAD_SPOOL_H_
#define LITEFLEET_AGENT_UPLOAD_SPOOL_H_

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/upload/chunk_feed.h"
#include "common/base/cancel_token.h"
#include "common/io/disk_reserve.h"
#include "common/io/file.h"

namespace litefleet::upload {

struct SpoolOptions {
  int compressors = 2;
  int compression_level = 1;
  uint64_t max_bytes = 256 << 20;
  io::DiskReserve reserve;
};

class Spool {
 public:
  // Errors: kResourceExhausted DISK_FULL.
  static absl::StatusOr<std::unique_ptr<Spool>> Open(const std::string& path, const SpoolOptions& options);
  // Removes the file.
  ~Spool();
  Spool(const Spool&) = delete;
  Spool& operator=(const Spool&) = delete;

  // `to_come`: content that is to be added after it, as far as this is known. Errors: kResourceExhausted SPOOL_FULL, also as soon as what
  // was written says that the rest will not fit; DISK_FULL; those of the disk, also of chunks added before.
  absl::Status Add(Chunk chunk, uint64_t to_come = 0);
  // Everything is in the file when this returns.
  absl::Status Finish();
  size_t size() const { return size_; }
  // The payload waits until it is written, and is good as long as the spool. REQUIRES: at < size().
  Chunk At(size_t at);

  // False where so many bytes of a database cannot be expected to fit, however well they compress.
  static bool MayFit(uint64_t database_bytes, const SpoolOptions& options) { return database_bytes / 8 <= options.max_bytes; }

 private:
  struct Place {
    uint64_t offset = 0;
    uint32_t stored_bytes = 0;
    format::Codec codec = format::Codec::kRaw;
    bool written = false;
  };
  struct Entry {
    format::ChunkName name;
    std::vector<PageRun> runs;
    std::vector<PageRun> sources;
    uint32_t raw_bytes = 0;
    Place place;  // under Writer::mu_
  };
  struct SpooledPayload;
  class Writer;

  Spool(std::string path, io::UniqueFd fd, const SpoolOptions& options);
  absl::Status CheckSpace() const;

  const std::string path_;
  const io::UniqueFd fd_;
  const SpoolOptions options_;
  std::deque<Entry> entries_;  // references stay valid
  size_t size_ = 0;
  std::unique_ptr<Writer> writer_;
};

// Reads a source to its end into a spool, then yields what it holds as often as wanted: for a source that must not wait for anything.
class SpooledBackup {
 public:
  // Errors: those of the feed and of the spool; kCancelled. `feed` and its payloads are needed no more afterwards. `on_chunk` is called
  // after each chunk, while the source is held: it must not block.
  static absl::StatusOr<std::unique_ptr<SpooledBackup>> Read(const std::string& path, ChunkFeed& feed, const SpoolOptions& options,
                                                             const CancelToken& cancel, const std::function<void()>& on_chunk);
  std::unique_ptr<ChunkFeed> MakeFeed() const;

 private:
  class Feed;
  SpooledBackup() = default;

  std::unique_ptr<Spool> spool_;
  v1::UploadCommit commit_;
  std::chrono::nanoseconds pinned_since_boot_{0};
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_SPOOL_H_
