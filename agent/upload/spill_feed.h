// A source that is read while its chunks are uploaded, and does not wait for the network longer than for the disk.
//
// As long as the network keeps up, chunks go straight from the source to the upload. It does not keep up once the upload has waited for it
// for longer than the reading has taken (and `at_once`), and at this rate would wait for longer than `altogether` and twice the reading
// until the end: then the source is read on into a spool, and the upload takes its chunks from there. So flash is written for slow links
// alone, and how long the read transaction lasts depends on the disk. Where the spool is full, SPOOL_FULL ends it (kResourceExhausted): the
// transaction is let go.
//
// Thread safety: as ChunkFeed. Memory: that of the source's feed and of a spool.
#ifndef LITEFLEET_AGENT_UPLOAD_SPILL_FEED_H_
#define LITEFLEET_AGENT_UPLOAD_SPILL_FEED_H_

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/upload/chunk_feed.h"
#include "agent/upload/spool.h"

namespace litefleet::upload {

// How long a pinned source may wait for the network.
struct Patience {
  std::chrono::milliseconds at_once{250};
  std::chrono::milliseconds altogether{5000};
};

class SpillFeed final : public ChunkFeed {
 public:
  // `source` and `options` outlive this.
  SpillFeed(SourceFeed& source, std::string spool_file, const SpoolOptions& options, Patience patience)
      : source_(source), spool_file_(std::move(spool_file)), options_(options), patience_(patience) {}

  absl::StatusOr<std::optional<Chunk>> Next() override;
  absl::StatusOr<bool> ReadAhead(std::chrono::nanoseconds waited) override;
  v1::UploadCommit Commit() override { return source_.Commit(); }
  std::chrono::nanoseconds pinned_since_boot() const override { return source_.pinned_since_boot(); }
  uint32_t page_size() const override { return source_.page_size(); }
  uint32_t page_count() const override { return source_.page_count(); }
  int64_t read_bytes() const override { return source_.read_bytes(); }

  // The source or the spool ended with an error, and not whoever takes the chunks.
  bool failed() const { return source_.failed() || spool_failed_; }
  // Chunks that went through the spool.
  size_t spilled() const { return spool_ == nullptr ? 0 : spool_->size(); }

 private:
  absl::StatusOr<std::optional<Chunk>> Read();
  bool KeepsUp(std::chrono::nanoseconds waited) const;
  absl::Status Spill(Chunk chunk);

  SourceFeed& source_;
  const std::string spool_file_;
  const SpoolOptions& options_;
  const Patience patience_;
  std::chrono::nanoseconds reading_{0};
  bool ended_ = false;  // the source
  bool spool_failed_ = false;
  std::unique_ptr<Spool> spool_;
  size_t taken_ = 0;  // of the spool
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_SPILL_FEED_H_
