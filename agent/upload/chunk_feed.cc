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

SourceFeed::SourceFeed(std::unique_ptr<capture::PageSource> source, FeedPlan plan)
    : source_(std::move(source)),
      plan_(plan),
      known_pages_(plan.changes_only ? plan.ledger->state()->page_count : 0),
      gatherer_(page_size()),
      moved_(page_size()),
      root_(page_size(), page_count()) {}

absl::StatusOr<std::optional<Chunk>> SourceFeed::Next() {
  absl::StatusOr<std::optional<Chunk>> chunk = Read();
  failed_ = !chunk.ok();
  return chunk;
}

absl::StatusOr<std::optional<Chunk>> SourceFeed::Read() {
  if (plan_.ledger != nullptr && !std::exchange(begun_, true)) {
    LF_RETURN_IF_ERROR(
        plan_.ledger->Begin(page_size(), page_count(), plan_.changes_only ? ledger::Ledger::kChanges : ledger::Ledger::kAll));
  }
  while (ready_.empty() && !commit_.has_value()) {
    LF_ASSIGN_OR_RETURN(const bool more, ReadExtent());
    if (more) continue;
    if (next_extent_ != format::ExtentCount(page_size(), page_count())) {
      return Error(absl::StatusCode::kInternal, "SOURCE_SHORT", fmt::format("the source ended before extent {}", next_extent_));
    }
    // What was read stands, whatever letting go says.
    source_->Close().IgnoreError();
    commit_ = DescribeSource(*source_, root_.Finish());
    if (std::optional<Chunk> last = moved_.Flush()) ready_.push_back(*std::move(last));
    if (std::optional<Chunk> last = gatherer_.Flush()) ready_.push_back(*std::move(last));
  }
  if (ready_.empty()) return std::nullopt;
  Chunk chunk = std::move(ready_.front());
  ready_.pop_front();
  return chunk;
}

absl::StatusOr<bool> SourceFeed::ReadExtent() {
  LF_ASSIGN_OR_RETURN(const std::optional<capture::ExtentPages> pages, source_->Next());
  if (!pages) return false;
  if (pages->extent != next_extent_++ || pages->extent >= format::ExtentCount(page_size(), page_count())) {
    return Error(absl::StatusCode::kInternal, "SOURCE_ORDER", fmt::format("extent {} is out of order", pages->extent));
  }
  const auto count = static_cast<uint32_t>(pages->data.size() / page_size());
  if (count != format::PagesIn(page_size(), page_count(), pages->extent)) {
    return Error(absl::StatusCode::kInternal, "SOURCE_SHORT", fmt::format("extent {} has {} pages", pages->extent, count));
  }
  digests_.clear();
  format::DigestPages(page_size(), pages->data, digests_);
  root_.Add(format::NameChunk(page_size(), digests_));
  read_bytes_ += static_cast<int64_t>(pages->data.size());
  const uint32_t first_page = format::FirstPageOf(page_size(), pages->extent);
  if (plan_.changes_only) {
    LF_RETURN_IF_ERROR(Compare(first_page, pages->data));
    return true;
  }
  if (plan_.ledger != nullptr) LF_RETURN_IF_ERROR(plan_.ledger->Put(first_page, digests_));
  ready_.push_back(gatherer_.Whole(first_page, pages->data, digests_));
  return true;
}

absl::Status SourceFeed::Compare(uint32_t first_page, ByteView pages) {
  const size_t known = first_page > known_pages_ ? 0 : std::min<size_t>(digests_.size(), known_pages_ - first_page + 1);
  known_.resize(known);
  if (known > 0) LF_RETURN_IF_ERROR(plan_.ledger->Read(first_page, known_));
  const bool whole = runs_ >= plan_.max_runs;
  bool differs = false;
  for (size_t at = 0; at < digests_.size();) {
    size_t end = at;
    while (end < digests_.size() && (end >= known || known_[end] != digests_[end])) ++end;
    if (end == at) {
      ++at;
      continue;
    }
    const auto changed = std::span(digests_).subspan(at, end - at);
    const auto first = first_page + static_cast<uint32_t>(at);
    LF_RETURN_IF_ERROR(plan_.ledger->Put(first, changed));
    if (!whole) LF_RETURN_IF_ERROR(HandOn(first, pages.subspan(at * page_size(), changed.size() * page_size()), changed));
    differs = true;
    at = end;
  }
  if (whole && differs) {
    if (std::optional<Chunk> chunk = gatherer_.Add(first_page, pages, digests_)) ready_.push_back(*std::move(chunk));
  }
  return absl::OkStatus();
}

absl::Status SourceFeed::HandOn(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests) {
  if (!plan_.find_moved) {
    ++runs_;
    if (std::optional<Chunk> chunk = gatherer_.Add(first_page, pages, digests)) ready_.push_back(*std::move(chunk));
    return absl::OkStatus();
  }
  if (!index_.has_value()) {
    LF_ASSIGN_OR_RETURN(ledger::PageIndex index, ledger::PageIndex::Build(*plan_.ledger, plan_.index_entries));
    index_.emplace(std::move(index));
  }
  LF_RETURN_IF_ERROR(index_->Find(first_page, digests, sources_));
  for (size_t at = 0; at < digests.size();) {
    const bool moved = sources_[at] != 0;
    size_t end = at + 1;
    while (end < digests.size() && (sources_[end] != 0) == moved) ++end;
    const auto first = first_page + static_cast<uint32_t>(at);
    const ByteView part = pages.subspan(at * page_size(), (end - at) * page_size());
    const auto names = digests.subspan(at, end - at);
    std::optional<Chunk> chunk =
        moved ? moved_.AddMoved(first, part, names, std::span(sources_).subspan(at, end - at)) : gatherer_.Add(first, part, names);
    if (chunk.has_value()) ready_.push_back(*std::move(chunk));
    ++runs_;
    at = end;
  }
  return absl::OkStatus();
}

v1::UploadCommit SourceFeed::Commit() { return *commit_; }

uint64_t SourceFeed::bytes_to_come() const {
  if (plan_.changes_only) return 0;
  return format::DatabaseBytes(page_size(), page_count()) - static_cast<uint64_t>(read_bytes_);
}

}  // namespace litefleet::upload
