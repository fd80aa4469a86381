// Uploads on a base: random histories of pages, each snapshot read back and proven, layers and the price of reading bounded.
#include <gmock/gmock.h>

#include <map>
#include <random>

#include "common/base/sanitizer.h"
#include "controller/manifest/manifest_reader.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::RecordingSink;

// A database of pages, and a device that knows what the controller has.
struct PagedDatabase {
  uint32_t page_size = 4096;
  std::vector<unsigned> pages;  // seeds

  Bytes Page(uint32_t page) const {
    std::minstd_rand random(pages[page - 1] + 1);
    Bytes bytes(page_size);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = i % 16 < 3 ? static_cast<std::byte>(random() >> 8) : std::byte{7};
    return bytes;
  }
  Bytes Run(uint32_t first, uint32_t count) const {
    Bytes bytes;
    for (uint32_t page = first; page < first + count; ++page) {
      const Bytes one = Page(page);
      bytes.insert(bytes.end(), one.begin(), one.end());
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

struct Backup {
  absl::Status status;
  std::string snapshot;
  std::string base;
  uint64_t sent_bytes = 0;
  uint32_t pages_sent = 0;
  int differing = 0;
};

class DeltaTest : public IngestTest {
 protected:
  struct Piece {
    std::vector<v1::PageRun> runs;
    Bytes raw;
    bool compared = false;
  };

  static Piece WholeExtent(const PagedDatabase& now, uint32_t extent) {
    Piece piece;
    v1::PageRun run;
    run.set_first_page(format::FirstPageOf(now.page_size, extent));
    run.set_page_count(format::PagesIn(now.page_size, now.count(), extent));
    piece.runs.push_back(run);
    piece.raw = now.Extent(extent);
    return piece;
  }
  // Pages in chunks of one stretch.
  static std::vector<Piece> Pieces(const PagedDatabase& now, const std::vector<uint32_t>& changed) {
    std::vector<Piece> pieces;
    for (const uint32_t page : changed) {
      const bool fits = !pieces.empty() && pieces.back().raw.size() + now.page_size <= format::kExtentBytes &&
                        format::StretchOf(now.page_size, page) == format::StretchOf(now.page_size, pieces.back().runs[0].first_page());
      if (!fits) pieces.emplace_back();
      Piece& piece = pieces.back();
      if (piece.runs.empty() || piece.runs.back().first_page() + piece.runs.back().page_count() != page) {
        piece.runs.emplace_back();
        piece.runs.back().set_first_page(page);
      }
      piece.runs.back().set_page_count(piece.runs.back().page_count() + 1);
      const Bytes raw = now.Page(page);
      piece.raw.insert(piece.raw.end(), raw.begin(), raw.end());
    }
    return pieces;
  }

  // With a base: what differs from `before`. Without: everything, compared by the controller if `compare`.
  Backup Run(const PagedDatabase& now, const PagedDatabase* before, const std::string& base, bool compare) {
    Backup backup;
    auto sink = std::make_shared<RecordingSink>();
    auto session = path_->ingest->NewUpload(device_, sink);
    EXPECT_TRUE(session.ok()) << session.status();
    v1::UploadRequest begin;
    begin.mutable_begin()->set_session_id(NewSession());
    begin.mutable_begin()->set_database("main");
    begin.mutable_begin()->set_timeline(1);
    begin.mutable_begin()->set_method(v1::METHOD_ONLINE);
    begin.mutable_begin()->set_page_size(now.page_size);
    begin.mutable_begin()->set_page_count(now.count());
    begin.mutable_begin()->set_compare(compare);
    if (before != nullptr) {
      begin.mutable_begin()->set_base_snapshot_id(base);
      begin.mutable_begin()->set_base_root_digest(std::string(before->Root().AsString()));
    }
    backup.status = Drive(**session, *sink, begin, now, before, backup);
    (*session)->End();
    return backup;
  }

  absl::Status Drive(UploadSession& session, RecordingSink& sink, v1::UploadRequest& begin, const PagedDatabase& now,
                     const PagedDatabase* before, Backup& backup) {
    LF_RETURN_IF_ERROR(session.Handle(begin));
    const auto accepted = sink.Next(v1::UploadResponse::kAccepted);
    if (!accepted.has_value()) return absl::InternalError("not accepted");
    backup.base = accepted->accepted().base_snapshot_id();
    std::vector<Piece> pieces;
    if (before != nullptr && backup.base == begin.begin().base_snapshot_id()) {
      std::vector<uint32_t> changed;
      for (uint32_t page = 1; page <= now.count(); ++page) {
        if (page > before->count() || before->pages[page - 1] != now.pages[page - 1]) changed.push_back(page);
      }
      pieces = Pieces(now, changed);
    } else {
      for (uint32_t extent = 0; extent < now.extents(); ++extent) pieces.push_back(WholeExtent(now, extent));
    }
    uint64_t id = 0;
    for (size_t at = 0; at < pieces.size(); ++at) {
      const Piece piece = pieces[at];
      v1::UploadRequest offer;
      offer.mutable_offer()->set_offer_id(++id);
      v1::ChunkOffer& chunk = *offer.mutable_offer()->add_chunks();
      const std::string name(format::NameChunkOf(now.page_size, piece.raw).AsString());
      chunk.set_name(name);
      chunk.set_compared(piece.compared);
      for (const v1::PageRun& run : piece.runs) *chunk.add_runs() = run;
      LF_RETURN_IF_ERROR(session.Handle(offer));
      const auto missing = sink.Next(v1::UploadResponse::kMissing);
      if (!missing.has_value()) return absl::InternalError("no answer to an offer");
      for (const v1::DifferingExtent& differing : missing->missing().differing()) {
        ++backup.differing;
        std::vector<uint32_t> changed;
        const uint32_t first = piece.runs[0].first_page();
        for (uint32_t i = 0; i < piece.runs[0].page_count(); ++i) {
          const std::string prefix(format::DigestPage(now.Page(first + i)).AsString().substr(0, 8));
          if (differing.page_digests().substr(size_t{i} * 8, 8) != prefix) changed.push_back(first + i);
        }
        for (Piece& refined : Pieces(now, changed)) {
          refined.compared = true;
          pieces.push_back(std::move(refined));
        }
      }
      if (missing->missing().positions_size() == 0) continue;
      v1::UploadRequest chunks;
      v1::ChunkData& data = *chunks.mutable_chunks()->add_chunks();
      data.set_name(name);
      data.set_raw_bytes(static_cast<uint32_t>(piece.raw.size()));
      format::ChunkCompressor compressor(1);
      std::string packed;
      data.set_codec(static_cast<v1::Codec>(*compressor.Compress(piece.raw, packed)));
      backup.sent_bytes += packed.size();
      backup.pages_sent += static_cast<uint32_t>(piece.raw.size() / now.page_size);
      data.set_data(packed);
      LF_RETURN_IF_ERROR(session.Handle(chunks));
    }
    v1::UploadRequest commit;
    commit.mutable_commit()->set_page_size(now.page_size);
    commit.mutable_commit()->set_page_count(now.count());
    commit.mutable_commit()->set_root_digest(std::string(now.Root().AsString()));
    commit.mutable_commit()->set_root_version(1);
    LF_RETURN_IF_ERROR(session.Handle(commit));
    const auto committed = sink.Next(v1::UploadResponse::kCommitted);
    if (!committed.has_value()) return absl::InternalError("not committed");
    backup.snapshot = committed->committed().snapshot_id();
    return absl::OkStatus();
  }

  void ExpectReadsBack(const std::string& snapshot, const PagedDatabase& now) {
    const auto bytes = path_->ReadBack(snapshot);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(*bytes == now.Run(1, now.count()));
  }

  struct Price {
    size_t layers = 0;
    double opened = 0;  // bytes of chunks over bytes of pages
  };
  Price PriceOf(const std::string& snapshot) {
    auto layout = *path_->ingest_catalog->GetLayout(SnapshotId(snapshot));
    uint64_t bytes = 0;
    EXPECT_TRUE(manifest::ForEachNeededChunk(*path_->ingest_catalog, *path_->store, SnapshotId(snapshot),
                                             [&](std::span<const manifest::ChunkRef> chunks) {
                                               for (const auto& chunk : chunks) bytes += uint64_t{chunk.page_count} * layout.page_size;
                                               return absl::OkStatus();
                                             })
                    .ok());
    return {layout.layers.size(),
            static_cast<double>(bytes) / static_cast<double>(format::DatabaseBytes(layout.page_size, layout.page_count))};
  }
};

TEST_F(DeltaTest, RandomHistories) {
  Open();
  std::minstd_rand random(7);
  for (const uint32_t page_size : {512u, 4096u, 65536u}) {
    PagedDatabase now{.page_size = page_size, .pages = {}};
    std::vector<std::pair<std::string, PagedDatabase>> history;
    unsigned seed = page_size;
    const int steps = (page_size == 65536 ? 12 : 40) / (kSanitized ? 3 : 1);  // every one is read back at the end
    for (int step = 0; step < steps; ++step) {
      const PagedDatabase before = now;
      switch (random() % 5) {
        case 0:
          for (unsigned i = random() % 900; i > 0; --i) now.pages.push_back(++seed);
          break;
        case 1:
          now.pages.resize(now.pages.size() - std::min<size_t>(now.pages.size(), random() % 300));
          break;
        case 2:  // a whole stretch of pages
          for (size_t at = now.pages.empty() ? 0 : random() % now.pages.size(), end = at + 700; at < std::min(end, now.pages.size()); ++at)
            now.pages[at] = ++seed;
          break;
        default:
          for (unsigned i = now.pages.empty() ? 0 : random() % 40; i > 0; --i) now.pages[random() % now.pages.size()] = ++seed;
      }
      const bool first = history.empty();
      // Now and then a device that knows nothing, or an older base.
      const bool lost = random() % 6 == 0;
      const size_t base = first ? 0 : history.size() - 1 - (random() % 8 == 0 ? random() % history.size() : 0);
      const Backup backup = first || lost ? Run(now, nullptr, "", true) : Run(now, &history[base].second, history[base].first, true);
      ASSERT_TRUE(backup.status.ok()) << step << ": " << backup.status;
      ExpectReadsBack(backup.snapshot, now);
      history.emplace_back(backup.snapshot, now);
    }
    for (const auto& [snapshot, state] : history) ExpectReadsBack(snapshot, state);
  }
}

TEST_F(DeltaTest, AThousandDeltasStayCheapToRead) {
  Open();
  std::minstd_rand random(3);
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 64 * 12; ++i) now.pages.push_back(i);
  Backup last = Run(now, nullptr, "", true);
  ASSERT_TRUE(last.status.ok()) << last.status;
  unsigned seed = 1'000'000;
  size_t layers = 0;
  for (int i = 0; i < 1000; ++i) {
    const PagedDatabase before = now;
    for (int n = 0; n < 6; ++n) now.pages[random() % now.pages.size()] = ++seed;
    if (i % 10 == 0) now.pages.push_back(++seed);
    const Backup next = Run(now, &before, last.snapshot, true);
    ASSERT_TRUE(next.status.ok()) << i << ": " << next.status;
    EXPECT_EQ(next.base, last.snapshot);
    EXPECT_LE(next.pages_sent, 7u);
    last = next;
    if (i % 50 == 0) layers = std::max(layers, PriceOf(last.snapshot).layers);
  }
  ExpectReadsBack(last.snapshot, now);
  const Price price = PriceOf(last.snapshot);
  EXPECT_LE(layers, 12u);
  EXPECT_LE(price.opened, 1.45);
  RecordProperty("opened_percent", static_cast<int>(price.opened * 100));
  // What the manifests of 1000 deltas took, for each delta.
  const int64_t parts = path_->Count("select count(distinct pack || ':' || offset) from manifest_part");
  EXPECT_LE(parts, 1100);
}

TEST_F(DeltaTest, ALostLedgerSendsOnlyWhatTheControllerLacks) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 64 * 20 + 9; ++i) now.pages.push_back(i);
  const Backup first = Run(now, nullptr, "", false);
  ASSERT_TRUE(first.status.ok()) << first.status;
  const PagedDatabase before = now;
  for (const unsigned at : {3u, 500u, 501u, 1200u}) now.pages[at] = 9000 + at;
  const Backup delta = Run(now, &before, first.snapshot, true);
  ASSERT_TRUE(delta.status.ok()) << delta.status;
  EXPECT_EQ(delta.pages_sent, 4u);
  // The same state from a device without a ledger: nothing travels.
  const Backup again = Run(now, nullptr, "", true);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.pages_sent, 0u);
  EXPECT_EQ(again.base, delta.snapshot);
  EXPECT_EQ(path_->snapshots->Resolve(again.snapshot)->stored_bytes(), 0);
  now.pages[77] = 12345;
  const Backup one = Run(now, nullptr, "", true);
  ASSERT_TRUE(one.status.ok()) << one.status;
  EXPECT_EQ(one.differing, 1);
  EXPECT_EQ(one.pages_sent, 1u);
  ExpectReadsBack(one.snapshot, now);
}

TEST_F(DeltaTest, ABaseThatIsNotThereIsSaid) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {1, 2, 3}};
  const Backup first = Run(now, nullptr, "", true);
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_EQ(first.base, "");
  PagedDatabase other = now;
  other.pages[0] = 99;
  // The right snapshot with another root: the newest is compared, nothing is believed.
  const Backup wrong_root = Run(now, &other, first.snapshot, true);
  EXPECT_EQ(wrong_root.base, first.snapshot);
  const Backup unknown = Run(now, &now, NewSession(), false);
  ASSERT_TRUE(unknown.status.ok()) << unknown.status;
  EXPECT_EQ(unknown.base, "");
  ExpectReadsBack(unknown.snapshot, now);
}

TEST_F(DeltaTest, WhatIsNotTrueIsRefused) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 300; ++i) now.pages.push_back(i);
  const Backup first = Run(now, nullptr, "", true);
  ASSERT_TRUE(first.status.ok()) << first.status;
  PagedDatabase changed = now;
  changed.pages[100] = 7777;
  // Page 101 has changed and is not offered: the root tells.
  auto sink = std::make_shared<RecordingSink>();
  auto session = path_->ingest->NewUpload(device_, sink);
  v1::UploadRequest begin;
  begin.mutable_begin()->set_session_id(NewSession());
  begin.mutable_begin()->set_database("main");
  begin.mutable_begin()->set_timeline(1);
  begin.mutable_begin()->set_method(v1::METHOD_ONLINE);
  begin.mutable_begin()->set_page_size(4096);
  begin.mutable_begin()->set_page_count(300);
  begin.mutable_begin()->set_base_snapshot_id(first.snapshot);
  begin.mutable_begin()->set_base_root_digest(std::string(now.Root().AsString()));
  ASSERT_TRUE((*session)->Handle(begin).ok());
  v1::UploadRequest commit;
  commit.mutable_commit()->set_page_size(4096);
  commit.mutable_commit()->set_page_count(300);
  commit.mutable_commit()->set_root_digest(std::string(changed.Root().AsString()));
  commit.mutable_commit()->set_root_version(1);
  EXPECT_EQ(ReasonOf((*session)->Handle(commit)), "ROOT_MISMATCH");
  (*session)->End();
  EXPECT_EQ(path_->SnapshotCount(), 1u);
}

}  // namespace
}  // namespace litefleet::ingest
