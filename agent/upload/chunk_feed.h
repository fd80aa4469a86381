// Where the chunks of an upload come from: a page source that is being read, or a spool file.
//
// Thread safety: a feed is used by one thread; payloads are packed on any thread. Memory: a source feed holds one buffer of 256 KiB for
// each chunk that is referenced, and uses them again.
#ifndef LITEFLEET_AGENT_UPLOAD_CHUNK_FEED_H_
#define LITEFLEET_AGENT_UPLOAD_CHUNK_FEED_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/page_source.h"
#include "agent/upload/session.h"
#include "common/base/mutex.h"
#include "common/format/digest.h"

namespace litefleet::upload {

// A payload that can be turned into what is sent.
struct PackablePayload : Payload {
  virtual absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) = 0;
  // Of a chunk that was just read: what it holds.
  virtual std::string Raw() const = 0;
};

class ChunkFeed {
 public:
  virtual ~ChunkFeed() = default;
  // The next chunk in ascending order of pages; nothing at the end.
  virtual absl::StatusOr<std::optional<Chunk>> Next() = 0;
  // What the controller needs to know in the end. REQUIRES: Next() has returned nothing.
  virtual v1::UploadCommit Commit() = 0;
  // CLOCK_BOOTTIME when the state was pinned.
  virtual std::chrono::nanoseconds pinned_since_boot() const = 0;
  virtual uint32_t page_size() const = 0;
  virtual uint32_t page_count() const = 0;
};

// What is said of a source once it has been read to the end and closed; `root` belongs to it.
v1::UploadCommit DescribeSource(const capture::PageSource& source, const format::RootDigest& root);

// Reads, hashes and names extents. When it has come to the end, the source is closed before Next returns.
class SourceFeed final : public ChunkFeed {
 public:
  explicit SourceFeed(std::unique_ptr<capture::PageSource> source);

  absl::StatusOr<std::optional<Chunk>> Next() override;
  v1::UploadCommit Commit() override;
  std::chrono::nanoseconds pinned_since_boot() const override { return source_->info().pinned_since_boot; }
  // The source ended with an error, and not whoever takes the chunks.
  bool failed() const { return failed_; }
  uint32_t page_size() const override { return source_->info().page_size; }
  uint32_t page_count() const override { return source_->info().page_count; }

 private:
  absl::StatusOr<std::optional<Chunk>> Read();

  class Buffers;
  struct RawPayload;

  const std::unique_ptr<capture::PageSource> source_;
  const std::shared_ptr<Buffers> buffers_;
  format::RootBuilder root_;
  uint32_t next_extent_ = 0;
  bool failed_ = false;
  std::optional<v1::UploadCommit> commit_;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_CHUNK_FEED_H_
