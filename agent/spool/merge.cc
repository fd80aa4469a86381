// Two neighbouring deltas become one: of a page that both have the newer counts, and pages behind the newer one's end are gone.
#include <utility>

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
  MergedWriter(SpoolFileWriter& writer, uint32_t page_size, int level) : writer_(writer), gatherer_(page_size), compressor_(level) {}
  absl::Status Add(const PageCursor& page) { return Put(gatherer_.Add(page.page(), page.data(), page.digest())); }
  absl::Status Flush() { return Put(gatherer_.Flush()); }

 private:
  absl::Status Put(std::optional<upload::Chunk> chunk) {
    if (!chunk) return absl::OkStatus();
    StoredChunk stored{.name = chunk->name, .runs = chunk->runs, .raw_bytes = chunk->raw_bytes};
    LF_ASSIGN_OR_RETURN(upload::PackedChunk packed, static_cast<upload::PackablePayload&>(*chunk->payload).Pack(compressor_));
    stored.codec = packed.codec;
    stored.data = std::move(packed.data);
    return writer_.Add(stored);
  }

  SpoolFileWriter& writer_;
  upload::PageGatherer gatherer_;
  format::ChunkCompressor compressor_;
};

}  // namespace

absl::Status MergeSpooled(const SpooledSnapshot& older, const SpooledSnapshot& newer, const io::DiskReserve& reserve, int level) {
  LF_ASSIGN_OR_RETURN(const auto old_file, SpoolFileReader::Open(older.path));
  LF_ASSIGN_OR_RETURN(const auto new_file, SpoolFileReader::Open(newer.path));
  storage::v1::SpooledHeader header = newer.header;
  header.set_base_spooled_id(older.header.base_spooled_id());
  header.set_base_snapshot_id(older.header.base_snapshot_id());
  header.set_base_root_digest(older.header.base_root_digest());
  header.set_base_taken_at_ms(older.header.base_taken_at_ms());
  header.set_merged(older.header.merged() + newer.header.merged() + 1);
  // What both have, and a little: another level of compression, other neighbours.
  const uint64_t most = (older.bytes + newer.bytes) / 8 * 9 + (64 << 10);
  const SpoolFileWriter::Limits limits{.max_bytes = most, .reserve = reserve};
  LF_ASSIGN_OR_RETURN(const auto writer, SpoolFileWriter::Create(newer.path, header, limits));
  MergedWriter merged(*writer, header.page_size(), level);
  PageCursor a(*old_file);
  PageCursor b(*new_file);
  LF_RETURN_IF_ERROR(a.Load());
  LF_RETURN_IF_ERROR(b.Load());
  while (!a.at_end() || !b.at_end()) {
    if (b.at_end() || (!a.at_end() && a.page() < b.page())) {
      if (a.page() <= header.page_count()) LF_RETURN_IF_ERROR(merged.Add(a));
      LF_RETURN_IF_ERROR(a.Advance());
      continue;
    }
    if (!a.at_end() && a.page() == b.page()) LF_RETURN_IF_ERROR(a.Advance());
    LF_RETURN_IF_ERROR(merged.Add(b));
    LF_RETURN_IF_ERROR(b.Advance());
  }
  LF_RETURN_IF_ERROR(merged.Flush());
  LF_RETURN_IF_ERROR(writer->Finish(new_file->commit(), new_file->footer().ended_at_ms()));
  LF_CRASH_POINT("spooled.merged");
  return absl::OkStatus();
}

}  // namespace litefleet::spool
