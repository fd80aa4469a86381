#include "agent/upload/text_feed.h"

#include <google/protobuf/util/time_util.h>

#include <utility>

#include "agent/upload/page_gatherer.h"
#include "common/base/status.h"

namespace litefleet::upload {
namespace {

using google::protobuf::util::TimeUtil;

struct SegmentPayload final : PackablePayload {
  explicit SegmentPayload(Bytes content) : pages(std::move(content)) {}
  absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) override {
    PackedChunk packed;
    LF_ASSIGN_OR_RETURN(packed.codec, compressor.Compress(pages, packed.data));
    return packed;
  }
  absl::StatusOr<std::string> Raw() const override { return std::string(AsText(pages)); }

  const Bytes pages;
};

}  // namespace

absl::StatusOr<std::optional<Chunk>> TextFeed::Next() {
  for (;;) {
    if (std::optional<format::SegmentWriter::Segment> segment = writer_.Take()) {
      Chunk chunk;
      chunk.name = segment->name;
      chunk.raw_bytes = static_cast<uint32_t>(segment->pages.size());
      chunk.runs.push_back({.first_page = segment->first_page, .page_count = chunk.raw_bytes / format::kContentPageBytes});
      chunk.payload = std::make_shared<SegmentPayload>(std::move(segment->pages));
      return chunk;
    }
    if (ended_) return std::nullopt;
    const absl::Status read = Read();
    failed_ = !read.ok();
    LF_RETURN_IF_ERROR(read);
  }
}

absl::Status TextFeed::Read() {
  LF_ASSIGN_OR_RETURN(const ByteView piece, source_->Next());
  if (!piece.empty()) return writer_.Add(piece);
  ended_ = true;
  // What was read stands, whatever letting go says.
  source_->Close().IgnoreError();
  LF_RETURN_IF_ERROR(writer_.Finish());
  const capture::SourceInfo& info = source_->info();
  commit_.set_page_size(format::kContentPageBytes);
  commit_.set_page_count(writer_.page_count());
  commit_.set_root_digest(std::string(writer_.Root().AsString()));
  commit_.set_root_version(format::kRootVersion);
  *commit_.mutable_taken_at() = TimeUtil::MillisecondsToTimestamp(ToUnixMillis(info.pinned_at));
  const bool is_database = content_ == format::Content::kSql;
  if (is_database) commit_.set_journal_mode(info.wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK);
  // Files that did not keep still are not damaged for sure.
  const v1::CheckState doubt = is_database ? v1::CHECK_STATE_DAMAGED : v1::CHECK_STATE_CANNOT_TELL;
  commit_.set_source_check(source_->damage().empty() ? v1::CHECK_STATE_UNKNOWN : doubt);
  commit_.set_source_check_message(source_->damage());
  *commit_.mutable_pinned() = TimeUtil::NanosecondsToDuration(source_->pinned_for().count());
  commit_.set_read_bytes(source_->read_bytes());
  commit_.set_content_bytes(writer_.text_bytes());
  return absl::OkStatus();
}

}  // namespace litefleet::upload
