// A source that is read while its chunks are uploaded, and does not wait for the network longer than for the disk.
//
// As long as the network keeps up, chunks go straight from the source to the upload. It may be waited for as long as all of the reading
// takes, at the rate of what was read, and `patience`; at no moment for longer than three times what the reading has taken until then,
// since its rate shows late, and a slow link soon. Then the source is read on into a spool, and the upload takes its chunks from there. So
// flash is written for slow links alone, and the read transaction lasts for at most twice the reading, `patience` and what is written.
// Where the spool is full, SPOOL_FULL ends it (kResourceExhausted): the transaction is let go.
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

class SpillFeed final : public ChunkFeed {
 public:
  // `source` and `options` outlive this.
  SpillFeed(SourceFeed& source, std::string spool_file, const SpoolOptions& options, std::chrono::milliseconds patience)
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
  // How long the network may be waited for, altogether.
  std::chrono::nanoseconds MayWait() const;
  absl::Status Spill(Chunk chunk);

  SourceFeed& source_;
  const std::string spool_file_;
  const SpoolOptions& options_;
  const std::chrono::milliseconds patience_;
  std::chrono::nanoseconds reading_{0};
  bool ended_ = false;  // the source
  bool spool_failed_ = false;
  std::unique_ptr<Spool> spool_;
  size_t taken_ = 0;  // of the spool
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_SPILL_FEED_H_
