// A device that knows page by page what the controller has: uploads on a base, message by message, so that tests may do anything in
// between.
#ifndef LITEFLEET_TESTS_FAKES_PAGED_DEVICE_H_
#define LITEFLEET_TESTS_FAKES_PAGED_DEVICE_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "tests/fakes/upload_device.h"

namespace litefleet::fakes {

// The content of each page follows from its seed alone.
struct PagedDatabase {
  uint32_t page_size = 4096;
  std::vector<unsigned> pages;  // seeds

  Bytes Page(uint32_t page) const { return Run(page, 1); }
  // Three bytes of sixteen say nothing of the others. Written by the word: tests make gigabytes of it, and have no optimization.
  Bytes Run(uint32_t first, uint32_t count) const {
    Bytes bytes(size_t{page_size} * count, std::byte{7});
    std::byte* at = bytes.data();
    for (uint32_t page = first; page < first + count; ++page) {
      uint64_t random = pages[page - 1] + 1;
      for (std::byte* const end = at + page_size; at < end; at += 16) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        const uint64_t word = 0x0707070707000000u | random >> 40;
        std::memcpy(at, &word, sizeof(word));
      }
    }
    return bytes;
  }
  uint32_t count() const { return static_cast<uint32_t>(pages.size()); }
  uint32_t extents() const { return format::ExtentCount(page_size, count()); }
  Bytes Extent(uint32_t extent) const { return Run(format::FirstPageOf(page_size, extent), format::PagesIn(page_size, count(), extent)); }
  format::RootDigest Root() const {
    format::RootBuilder root(page_size, count());
    for (uint32_t i = 0; i < extents(); ++i) root.Add(format::NameChunkOf(page_size, Extent(i)));
    return root.Finish();
  }
};

struct PagedWish {
  std::string session_id;
  std::string database = "main";
  bool compare = true;  // without a usable base the controller says what differs
  // What the device believes the controller has; empty: nothing.
  std::string base;
  PagedDatabase base_state;
  bool precopied = false;  // committed as what is uploaded ahead of a backup
  std::string operation = {};
};

struct PagedOutcome {
  absl::Status status;
  std::string snapshot;  // empty: not committed
  std::string base;      // that the controller took
  uint64_t sent_bytes = 0;
  uint32_t pages_sent = 0;
  int differing = 0;
};

// One upload. Thread safety: none.
class PagedUpload {
 public:
  PagedUpload(ingest::Ingest& ingest, const DeviceId& device, PagedDatabase now, PagedWish wish)
      : now_(std::move(now)), wish_(std::move(wish)), sink_(std::make_shared<RecordingSink>()) {
    auto session = ingest.NewUpload(device, sink_);
    if (session.ok()) {
      session_ = *std::move(session);
    } else {
      outcome_.status = session.status();
    }
  }
  ~PagedUpload() { End(); }
  PagedUpload(const PagedUpload&) = delete;
  PagedUpload& operator=(const PagedUpload&) = delete;

  // The next message and its answer; false when there is none any more.
  bool Step() {
    if (session_ == nullptr || !outcome_.status.ok() || !outcome_.snapshot.empty()) return false;
    outcome_.status = !began_ ? Begin() : at_ < pieces_.size() ? Offer(at_++) : Commit();
    return outcome_.status.ok() && outcome_.snapshot.empty();
  }
  // The stream ends here, committed or not.
  void End() {
    if (session_ != nullptr) session_->End();
    session_.reset();
  }
  const PagedOutcome& outcome() const { return outcome_; }
  const PagedDatabase& now() const { return now_; }

 private:
  struct Piece {
    std::vector<v1::PageRun> runs;
    Bytes raw;
    bool compared = false;
  };

  Piece WholeExtent(uint32_t extent) const {
    Piece piece;
    v1::PageRun& run = piece.runs.emplace_back();
    run.set_first_page(format::FirstPageOf(now_.page_size, extent));
    run.set_page_count(format::PagesIn(now_.page_size, now_.count(), extent));
    piece.raw = now_.Extent(extent);
    return piece;
  }
  // Pages in chunks of one stretch.
  std::vector<Piece> Pieces(const std::vector<uint32_t>& changed) const {
    std::vector<Piece> pieces;
    for (const uint32_t page : changed) {
      const bool fits = !pieces.empty() && pieces.back().raw.size() + now_.page_size <= format::kExtentBytes &&
                        format::StretchOf(now_.page_size, page) == format::StretchOf(now_.page_size, pieces.back().runs[0].first_page());
      if (!fits) pieces.emplace_back();
      Piece& piece = pieces.back();
      if (piece.runs.empty() || piece.runs.back().first_page() + piece.runs.back().page_count() != page) {
        piece.runs.emplace_back().set_first_page(page);
      }
      piece.runs.back().set_page_count(piece.runs.back().page_count() + 1);
      const Bytes raw = now_.Page(page);
      piece.raw.insert(piece.raw.end(), raw.begin(), raw.end());
    }
    return pieces;
  }

  absl::Status Begin() {
    began_ = true;
    v1::UploadRequest request;
    v1::UploadBegin& begin = *request.mutable_begin();
    begin.set_session_id(wish_.session_id);
    begin.set_operation_id(wish_.operation);
    begin.set_database(wish_.database);
    begin.set_timeline(1);
    begin.set_method(v1::METHOD_ONLINE);
    begin.set_page_size(now_.page_size);
    begin.set_page_count(now_.count());
    begin.set_compare(wish_.compare);
    if (!wish_.base.empty()) {
      begin.set_base_snapshot_id(wish_.base);
      begin.set_base_root_digest(std::string(wish_.base_state.Root().AsString()));
    }
    LF_RETURN_IF_ERROR(session_->Handle(request));
    const auto accepted = sink_->Next(v1::UploadResponse::kAccepted);
    if (!accepted.has_value()) return Unanswered();
    if (sink_->closed().has_value()) return Committed();  // it was, before
    outcome_.base = accepted->accepted().base_snapshot_id();
    if (!wish_.base.empty() && outcome_.base == wish_.base &&
        accepted->accepted().base_root_digest() == std::string(wish_.base_state.Root().AsString())) {
      const PagedDatabase& before = wish_.base_state;
      std::vector<uint32_t> changed;
      for (uint32_t page = 1; page <= now_.count(); ++page) {
        if (page > before.count() || before.pages[page - 1] != now_.pages[page - 1]) changed.push_back(page);
      }
      pieces_ = Pieces(changed);
    } else {
      for (uint32_t extent = 0; extent < now_.extents(); ++extent) pieces_.push_back(WholeExtent(extent));
    }
    return absl::OkStatus();
  }

  absl::Status Offer(size_t at) {
    const Piece piece = pieces_[at];
    v1::UploadRequest offer;
    offer.mutable_offer()->set_offer_id(++offers_);
    v1::ChunkOffer& chunk = *offer.mutable_offer()->add_chunks();
    const std::string name(format::NameChunkOf(now_.page_size, piece.raw).AsString());
    chunk.set_name(name);
    chunk.set_compared(piece.compared);
    for (const v1::PageRun& run : piece.runs) *chunk.add_runs() = run;
    LF_RETURN_IF_ERROR(session_->Handle(offer));
    const auto missing = sink_->Next(v1::UploadResponse::kMissing);
    if (!missing.has_value()) return Unanswered();
    for (const v1::DifferingExtent& differing : missing->missing().differing()) {
      ++outcome_.differing;
      std::vector<uint32_t> changed;
      const uint32_t first = piece.runs[0].first_page();
      for (uint32_t i = 0; i < piece.runs[0].page_count(); ++i) {
        const std::string prefix(format::DigestPage(now_.Page(first + i)).AsString().substr(0, 8));
        if (size_t{i} * 8 + 8 > differing.page_digests().size() || differing.page_digests().substr(size_t{i} * 8, 8) != prefix)
          changed.push_back(first + i);
      }
      for (Piece& refined : Pieces(changed)) {
        refined.compared = true;
        pieces_.push_back(std::move(refined));
      }
    }
    if (missing->missing().positions_size() == 0) return absl::OkStatus();
    v1::UploadRequest chunks;
    v1::ChunkData& data = *chunks.mutable_chunks()->add_chunks();
    data.set_name(name);
    data.set_raw_bytes(static_cast<uint32_t>(piece.raw.size()));
    static thread_local format::ChunkCompressor compressor(1);
    std::string packed;
    data.set_codec(static_cast<v1::Codec>(*compressor.Compress(piece.raw, packed)));
    outcome_.sent_bytes += packed.size();
    outcome_.pages_sent += static_cast<uint32_t>(piece.raw.size() / now_.page_size);
    data.set_data(packed);
    return session_->Handle(chunks);
  }

  absl::Status Commit() {
    v1::UploadRequest request;
    v1::UploadCommit& commit = *request.mutable_commit();
    commit.set_page_size(now_.page_size);
    commit.set_page_count(now_.count());
    commit.set_root_digest(std::string(now_.Root().AsString()));
    commit.set_root_version(format::kRootVersion);
    commit.set_precopied(wish_.precopied);
    LF_RETURN_IF_ERROR(session_->Handle(request));
    return Committed();
  }
  absl::Status Committed() {
    const auto committed = sink_->Next(v1::UploadResponse::kCommitted);
    if (!committed.has_value()) return Unanswered();
    outcome_.snapshot = committed->committed().snapshot_id();
    return absl::OkStatus();
  }
  absl::Status Unanswered() {
    const auto closed = sink_->closed();
    return closed.has_value() && !closed->ok() ? *closed : absl::InternalError("no answer");
  }

  const PagedDatabase now_;
  const PagedWish wish_;
  const std::shared_ptr<RecordingSink> sink_;
  std::shared_ptr<ingest::UploadSession> session_;
  std::vector<Piece> pieces_;
  size_t at_ = 0;
  uint64_t offers_ = 0;
  bool began_ = false;
  PagedOutcome outcome_;
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_PAGED_DEVICE_H_
