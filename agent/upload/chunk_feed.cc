#include "agent/upload/chunk_feed.h"

#include <google/protobuf/util/time_util.h>

#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::upload {

using google::protobuf::util::TimeUtil;

v1::UploadCommit DescribeSource(const capture::PageSource& source, const format::RootDigest& root) {
  const capture::SourceInfo& info = source.info();
  v1::UploadCommit commit;
  commit.set_page_size(info.page_size);
  commit.set_page_count(info.page_count);
  commit.set_root_digest(std::string(root.AsString()));
  commit.set_root_version(format::kRootVersion);
  *commit.mutable_taken_at() = TimeUtil::MillisecondsToTimestamp(ToUnixMillis(info.pinned_at));
  commit.set_journal_mode(info.wal ? v1::JOURNAL_MODE_WAL : v1::JOURNAL_MODE_ROLLBACK);
  commit.set_source_check(source.damage().empty() ? v1::CHECK_STATE_UNKNOWN : v1::CHECK_STATE_DAMAGED);
  commit.set_source_check_message(source.damage());
  *commit.mutable_pinned() = TimeUtil::NanosecondsToDuration(source.pinned_for().count());
  commit.set_read_bytes(static_cast<int64_t>(format::DatabaseBytes(info.page_size, info.page_count)));
  return commit;
}

// Buffers of one extent each, handed out and taken back.
class SourceFeed::Buffers {
 public:
  std::unique_ptr<Bytes> Take() {
    MutexLock lock(mu_);
    if (free_.empty()) {
      auto buffer = std::make_unique<Bytes>();
      buffer->reserve(format::kExtentBytes);
      return buffer;
    }
    auto buffer = std::move(free_.back());
    free_.pop_back();
    return buffer;
  }
  void GiveBack(std::unique_ptr<Bytes> buffer) {
    MutexLock lock(mu_);
    free_.push_back(std::move(buffer));
  }

 private:
  Mutex mu_;
  std::vector<std::unique_ptr<Bytes>> free_ ABSL_GUARDED_BY(mu_);
};

struct SourceFeed::RawPayload final : PackablePayload {
  RawPayload(std::shared_ptr<Buffers> owner, std::unique_ptr<Bytes> content) : buffers(std::move(owner)), bytes(std::move(content)) {}
  ~RawPayload() override { buffers->GiveBack(std::move(bytes)); }
  absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) override {
    // Compressed into room for the worst case, kept in what it needs.
    thread_local std::string room;
    PackedChunk packed;
    LF_ASSIGN_OR_RETURN(packed.codec, compressor.Compress(*bytes, room));
    packed.data.assign(room);
    return packed;
  }
  std::string Raw() const override { return std::string(AsText(*bytes)); }

  const std::shared_ptr<Buffers> buffers;
  std::unique_ptr<Bytes> bytes;
};

SourceFeed::SourceFeed(std::unique_ptr<capture::PageSource> source)
    : source_(std::move(source)), buffers_(std::make_shared<Buffers>()), root_(page_size(), page_count()) {}

absl::StatusOr<std::optional<Chunk>> SourceFeed::Next() {
  absl::StatusOr<std::optional<Chunk>> chunk = Read();
  failed_ = !chunk.ok();
  return chunk;
}

absl::StatusOr<std::optional<Chunk>> SourceFeed::Read() {
  LF_ASSIGN_OR_RETURN(const std::optional<capture::ExtentPages> pages, source_->Next());
  if (!pages) {
    if (next_extent_ != format::ExtentCount(page_size(), page_count())) {
      return Error(absl::StatusCode::kInternal, "SOURCE_SHORT", fmt::format("the source ended before extent {}", next_extent_));
    }
    // What was read stands, whatever letting go says.
    source_->Close().IgnoreError();
    commit_ = DescribeSource(*source_, root_.Finish());
    return std::nullopt;
  }
  if (pages->extent != next_extent_++ || pages->extent >= format::ExtentCount(page_size(), page_count())) {
    return Error(absl::StatusCode::kInternal, "SOURCE_ORDER", fmt::format("extent {} is out of order", pages->extent));
  }
  Chunk chunk;
  chunk.first_page = format::FirstPageOf(page_size(), pages->extent);
  chunk.page_count = static_cast<uint32_t>(pages->data.size() / page_size());
  chunk.raw_bytes = static_cast<uint32_t>(pages->data.size());
  if (chunk.page_count != format::PagesIn(page_size(), page_count(), pages->extent)) {
    return Error(absl::StatusCode::kInternal, "SOURCE_SHORT", fmt::format("extent {} has {} pages", pages->extent, chunk.page_count));
  }
  chunk.name = format::NameChunkOf(page_size(), pages->data);
  root_.Add(chunk.name);
  auto buffer = buffers_->Take();
  buffer->assign(pages->data.begin(), pages->data.end());
  chunk.payload = std::make_shared<RawPayload>(buffers_, std::move(buffer));
  return chunk;
}

v1::UploadCommit SourceFeed::Commit() { return *commit_; }

}  // namespace litefleet::upload
