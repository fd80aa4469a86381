// Neighbouring deltas become one: of a page that several have the newest counts, and pages behind the newest one's end are gone.
#include <memory>
#include <utility>
#include <vector>

#include "agent/spool/snapshot_spool.h"
#include "agent/upload/page_gatherer.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"

namespace litefleet::spool {
namespace {

// Page after page of a file.
class PageCursor {
 public:
  explicit PageCursor(SpoolFileReader& reader) : reader_(reader) {}

  bool at_end() const { return !chunk_.has_value(); }
  // REQUIRES: !at_end().
  uint32_t page() const { return chunk_->runs[run_].first_page + in_run_; }
  ByteView data() const { return ByteView(pages_).subspan(at_ * reader_.header().page_size(), reader_.header().page_size()); }
  std::span<const format::PageDigest> digest() const { return std::span(digests_).subspan(at_, 1); }

  absl::Status Load() {
    run_ = in_run_ = 0;
    at_ = 0;
    LF_ASSIGN_OR_RETURN(chunk_, reader_.Next());
    if (!chunk_) return absl::OkStatus();
    digests_.clear();
    return reader_.Unpack(*chunk_, pages_, &digests_);
  }
  absl::Status Advance() {
    ++at_;
    if (++in_run_ < chunk_->runs[run_].page_count) return absl::OkStatus();
    in_run_ = 0;
    return ++run_ < chunk_->runs.size() ? absl::OkStatus() : Load();
  }

 private:
  SpoolFileReader& reader_;
  std::optional<StoredChunk> chunk_;
  Bytes pages_;
  std::vector<format::PageDigest> digests_;
  size_t run_ = 0;
  uint32_t in_run_ = 0;
  size_t at_ = 0;
};

class MergedWriter {
 public:
  MergedWriter(SpoolFileWriter& writer, uint32_t page_size, int level, const GoesOn& goes_on)
      : writer_(writer), gatherer_(page_size), compressor_(level), goes_on_(goes_on) {}
  absl::Status Add(const PageCursor& page) { return Put(gatherer_.Add(page.page(), page.data(), page.digest())); }
  absl::Status Flush() { return Put(gatherer_.Flush()); }

 private:
  absl::Status Put(std::optional<upload::Chunk> chunk) {
    if (!chunk) return absl::OkStatus();
    if (goes_on_) LF_RETURN_IF_ERROR(goes_on_());
    StoredChunk stored{.name = chunk->name, .runs = chunk->runs, .raw_bytes = chunk->raw_bytes};
    LF_ASSIGN_OR_RETURN(upload::PackedChunk packed, static_cast<upload::PackablePayload&>(*chunk->payload).Pack(compressor_));
    stored.codec = packed.codec;
    stored.data = std::move(packed.data);
    return writer_.Add(stored);
  }

  SpoolFileWriter& writer_;
  upload::PageGatherer gatherer_;
  format::ChunkCompressor compressor_;
  const GoesOn& goes_on_;
};

}  // namespace

absl::Status MergeSpooled(std::span<const SpooledSnapshot> group, const io::DiskReserve& reserve, int level, const GoesOn& goes_on) {
  // What is before one that has all pages is in none of them.
  size_t first = 0;
  for (size_t at = 1; at < group.size(); ++at) {
    if (group[at].full()) first = at;
  }
  const SpooledSnapshot& newest = group.back();
  storage::v1::SpooledHeader header = newest.header;
  header.set_base_spooled_id(group[first].header.base_spooled_id());
  header.set_base_snapshot_id(group[first].header.base_snapshot_id());
  header.set_base_root_digest(group[first].header.base_root_digest());
  header.set_base_taken_at_ms(group[first].header.base_taken_at_ms());
  header.set_merged(static_cast<uint32_t>(group.size() - 1));
  uint64_t bytes = 0;
  for (const SpooledSnapshot& one : group) {
    header.set_merged(header.merged() + one.header.merged());
    bytes += one.bytes;
  }
  std::vector<std::unique_ptr<SpoolFileReader>> files;
  std::vector<PageCursor> cursors;
  cursors.reserve(group.size());
  v1::UploadCommit commit;
  int64_t ended_at_ms = 0;
  for (const SpooledSnapshot& one : group.subspan(first)) {
    LF_ASSIGN_OR_RETURN(auto file, SpoolFileReader::Open(one.path));
    const uint32_t commits = commit.commits() + file->commit().commits();
    commit = file->commit();
    commit.set_commits(commits);
    ended_at_ms = file->footer().ended_at_ms();
    files.push_back(std::move(file));
    LF_RETURN_IF_ERROR(cursors.emplace_back(*files.back()).Load());
  }
  // What all have, and a little: another level of compression, other neighbours.
  const SpoolFileWriter::Limits limits{.max_bytes = bytes / 8 * 9 + (64 << 10), .reserve = reserve};
  LF_ASSIGN_OR_RETURN(const auto writer, SpoolFileWriter::Create(newest.path, header, limits));
  MergedWriter merged(*writer, header.page_size(), level, goes_on);
  for (;;) {
    const PageCursor* last = nullptr;  // the newest of those that are at the least page
    for (const PageCursor& cursor : cursors) {
      if (!cursor.at_end() && (last == nullptr || cursor.page() <= last->page())) last = &cursor;
    }
    if (last == nullptr) break;
    const uint32_t page = last->page();
    if (page <= header.page_count()) LF_RETURN_IF_ERROR(merged.Add(*last));
    for (PageCursor& cursor : cursors) {
      if (!cursor.at_end() && cursor.page() == page) LF_RETURN_IF_ERROR(cursor.Advance());
    }
  }
  LF_RETURN_IF_ERROR(merged.Flush());
  LF_RETURN_IF_ERROR(writer->Finish(commit, ended_at_ms));
  LF_CRASH_POINT("spooled.merged");
  return absl::OkStatus();
}

}  // namespace litefleet::spool
