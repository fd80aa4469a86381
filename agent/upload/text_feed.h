// The chunks of a dump or of files: the text in segments (common/format/FORMAT.md, "Content").
//
// Thread safety: as ChunkFeed. Memory: a segment, those that are referenced, 32 bytes for each 256 KiB of text. How many pages there are is
// known at the end alone: either it is read into a spool before anything is uploaded, or the controller is told with the commit
// (UploadBegin.size_at_commit).
#ifndef LITEFLEET_AGENT_UPLOAD_TEXT_FEED_H_
#define LITEFLEET_AGENT_UPLOAD_TEXT_FEED_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "agent/capture/dump_source.h"
#include "agent/upload/chunk_feed.h"
#include "common/format/segment.h"

namespace litefleet::upload {

class TextFeed final : public ChunkFeed {
 public:
  TextFeed(std::unique_ptr<capture::TextSource> source, format::Content content)
      : source_(std::move(source)), content_(content), writer_(content) {}

  absl::StatusOr<std::optional<Chunk>> Next() override;
  v1::UploadCommit Commit() override { return commit_; }
  std::chrono::nanoseconds pinned_since_boot() const override { return source_->info().pinned_since_boot; }
  uint32_t page_size() const override { return format::kContentPageBytes; }
  // So far, until Next has returned nothing.
  uint32_t page_count() const override { return writer_.page_count(); }
  // The source ended with an error, and not whoever takes the chunks.
  bool failed() const { return failed_; }
  int64_t read_bytes() const override { return source_->read_bytes(); }
  // Of the source, once Next has returned nothing.
  std::string note() const { return source_->note(); }

 private:
  absl::Status Read();

  const std::unique_ptr<capture::TextSource> source_;
  const format::Content content_;
  format::SegmentWriter writer_;
  bool ended_ = false;
  bool failed_ = false;
  v1::UploadCommit commit_;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_TEXT_FEED_H_
