// Uploads on a base: random histories of pages, each snapshot read back and proven, layers and the price of reading bounded.
#include <gmock/gmock.h>

#include <atomic>
#include <map>
#include <random>

#include "absl/cleanup/cleanup.h"
#include "common/base/sanitizer.h"
#include "common/base/status.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/manifest/manifest_reader.h"
#include "fmt/format.h"
#include "tests/fakes/counted_syncs.h"
#include "tests/fakes/paged_device.h"
#include "tests/fakes/volatile_files.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::PagedDatabase;
using fakes::PagedOutcome;
using fakes::RecordingSink;

class DeltaTest : public IngestTest {
 protected:
  // With a base: what differs from `before`. Without: everything, compared by the controller if `compare`.
  PagedOutcome Run(const PagedDatabase& now, const PagedDatabase* before, const std::string& base, bool compare) {
    fakes::PagedWish wish{.session_id = NewSession(), .compare = compare, .base = {}, .base_state = {}};
    wish.precopied = precopied_;
    wish.operation = operation_;
    if (before != nullptr) {
      wish.base = base;
      wish.base_state = *before;
    }
    fakes::PagedUpload upload(*path_->ingest, device_, now, std::move(wish));
    while (upload.Step()) {}
    upload.End();
    return upload.outcome();
  }

  bool precopied_ = false;  // what Run commits
  std::string operation_;

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
      const PagedOutcome backup = first || lost ? Run(now, nullptr, "", true) : Run(now, &history[base].second, history[base].first, true);
      ASSERT_TRUE(backup.status.ok()) << step << ": " << backup.status;
      ExpectReadsBack(backup.snapshot, now);
      history.emplace_back(backup.snapshot, now);
    }
    for (const auto& [snapshot, state] : history) ExpectReadsBack(snapshot, state);
  }
}

TEST_F(DeltaTest, AThousandDeltasStayCheapToRead) {
  const int kDeltas = kSanitized ? 200 : 1000;  // it is about costs, which a sanitizer multiplies
  Open();
  std::minstd_rand random(3);
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 64 * 12; ++i) now.pages.push_back(i);
  PagedOutcome last = Run(now, nullptr, "", true);
  ASSERT_TRUE(last.status.ok()) << last.status;
  unsigned seed = 1'000'000;
  size_t layers = 0;
  for (int i = 0; i < kDeltas; ++i) {
    const PagedDatabase before = now;
    for (int n = 0; n < 6; ++n) now.pages[random() % now.pages.size()] = ++seed;
    if (i % 10 == 0) now.pages.push_back(++seed);
    const PagedOutcome next = Run(now, &before, last.snapshot, true);
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
  // What the manifests of all deltas took.
  const int64_t parts = path_->Count("select count(distinct pack || ':' || offset) from manifest_part");
  EXPECT_LE(parts, kDeltas + kDeltas / 10);
}

TEST_F(DeltaTest, ALostLedgerSendsOnlyWhatTheControllerLacks) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 64 * 20 + 9; ++i) now.pages.push_back(i);
  const PagedOutcome first = Run(now, nullptr, "", false);
  ASSERT_TRUE(first.status.ok()) << first.status;
  const PagedDatabase before = now;
  for (const unsigned at : {3u, 500u, 501u, 1200u}) now.pages[at] = 9000 + at;
  const PagedOutcome delta = Run(now, &before, first.snapshot, true);
  ASSERT_TRUE(delta.status.ok()) << delta.status;
  EXPECT_EQ(delta.pages_sent, 4u);
  // The same state from a device without a ledger: nothing travels.
  const PagedOutcome again = Run(now, nullptr, "", true);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.pages_sent, 0u);
  EXPECT_EQ(again.base, delta.snapshot);
  EXPECT_EQ(path_->snapshots->Resolve(again.snapshot)->stored_bytes(), 0);
  now.pages[77] = 12345;
  const PagedOutcome one = Run(now, nullptr, "", true);
  ASSERT_TRUE(one.status.ok()) << one.status;
  EXPECT_EQ(one.differing, 1);
  EXPECT_EQ(one.pages_sent, 1u);
  ExpectReadsBack(one.snapshot, now);
}

TEST_F(DeltaTest, WhatWasUploadedAheadIsABaseAndNothingElse) {
  Open();
  catalog::DeletionCatalog deletions(*path_->db);
  PagedDatabase first{.page_size = 4096, .pages = {}};
  for (uint32_t page = 0; page < 500; ++page) first.pages.push_back(page);
  PagedDatabase ahead = first;
  for (size_t page = 0; page < ahead.pages.size(); page += 3) ahead.pages[page] += 1000;
  PagedDatabase now = ahead;
  now.pages[7] = 9999;
  const PagedOutcome before = Run(first, nullptr, "", true);
  ASSERT_TRUE(before.status.ok()) << before.status;

  precopied_ = true;
  const PagedOutcome precopied = Run(ahead, &first, before.snapshot, true);
  ASSERT_TRUE(precopied.status.ok()) << precopied.status;
  EXPECT_EQ(path_->SnapshotCount(), 1u);
  EXPECT_EQ(path_->committed.size(), 1u) << "it is not checked";
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), before.snapshot);
  EXPECT_EQ(ReasonOf(path_->ReadBack(precopied.snapshot).status()), "SNAPSHOT_IN_TRASH");
  EXPECT_EQ(ReasonOf(deletions.Restore(SnapshotId(precopied.snapshot))), "SNAPSHOT_PRECOPIED");

  precopied_ = false;
  // Who has lost what he knew is compared with what came last.
  const PagedOutcome compared = Run(ahead, nullptr, "", true);
  EXPECT_EQ(compared.base, precopied.snapshot);
  EXPECT_EQ(compared.pages_sent, 0u);
  ExpectReadsBack(compared.snapshot, ahead);
  precopied_ = true;
  const PagedOutcome again = Run(ahead, &ahead, compared.snapshot, true);
  ASSERT_TRUE(again.status.ok()) << again.status;
  precopied_ = false;
  const PagedOutcome backup = Run(now, &ahead, again.snapshot, true);
  EXPECT_EQ(backup.base, again.snapshot);
  EXPECT_EQ(backup.pages_sent, 1u);
  EXPECT_EQ(path_->SnapshotCount(), 3u);
  // The grace is over with the backup, and what it stands on stays.
  EXPECT_EQ(path_->Count("select count(*) from snapshot where state = 3 and trashed_at = 0"), 2);
  const auto removed = deletions.RemoveSome(FromUnixMillis(1), 0, /*newest_pack=*/1, [](const SnapshotId&) { return false; });
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(removed->snapshots, 2);
  ExpectReadsBack(backup.snapshot, now);
  ExpectReadsBack(before.snapshot, first);
}

TEST_F(DeltaTest, WhatAnOperationUploadedAheadCountsForItsSnapshot) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (uint32_t page = 0; page < 300; ++page) now.pages.push_back(page);
  const std::string base = Run(now, nullptr, "", true).snapshot;
  const auto sent = [&](const std::string& snapshot) {
    return path_->Count(fmt::format("select wire_bytes from snapshot where id = '{}'", snapshot));
  };
  const auto stored = [&](const std::string& snapshot) {
    return path_->Count(fmt::format("select stored_bytes from snapshot where id = '{}'", snapshot));
  };
  // Two rounds of one operation and its backup; each sends one changed page.
  int64_t wire = 0;
  int64_t grown = 0;
  PagedOutcome last{.status = absl::OkStatus(), .snapshot = base, .base = {}};
  for (int round = 1; round <= 3; ++round) {
    const PagedDatabase before = now;
    now.pages[static_cast<size_t>(round)] = 1000U + static_cast<uint32_t>(round);
    operation_ = "01J00000000000000000000000";
    precopied_ = round < 3;
    last = Run(now, &before, last.snapshot, true);
    ASSERT_TRUE(last.status.ok()) << last.status;
    EXPECT_EQ(last.pages_sent, 1u);
    EXPECT_GT(sent(last.snapshot), wire) << round;
    EXPECT_GT(stored(last.snapshot), grown) << round;
    wire = sent(last.snapshot);
    grown = stored(last.snapshot);
  }
  // The next operation begins at nothing.
  operation_ = "01J00000000000000000000001";
  const PagedDatabase before = now;
  now.pages[9] = 5000;
  const PagedOutcome next = Run(now, &before, last.snapshot, true);
  ASSERT_TRUE(next.status.ok()) << next.status;
  EXPECT_LT(sent(next.snapshot), wire / 2);
  ExpectReadsBack(next.snapshot, now);
}

TEST_F(DeltaTest, ABaseThatIsNotThereIsSaid) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {1, 2, 3}};
  const PagedOutcome first = Run(now, nullptr, "", true);
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_EQ(first.base, "");
  PagedDatabase other = now;
  other.pages[0] = 99;
  // The right snapshot with another root: the newest is compared, nothing is believed.
  const PagedOutcome wrong_root = Run(now, &other, first.snapshot, true);
  EXPECT_EQ(wrong_root.base, first.snapshot);
  const PagedOutcome unknown = Run(now, &now, NewSession(), false);
  ASSERT_TRUE(unknown.status.ok()) << unknown.status;
  EXPECT_EQ(unknown.base, "");
  ExpectReadsBack(unknown.snapshot, now);
}

TEST_F(DeltaTest, WhatIsNotTrueIsRefused) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 300; ++i) now.pages.push_back(i);
  const PagedOutcome first = Run(now, nullptr, "", true);
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

TEST_F(DeltaTest, ASmallDeltaCostsOneSyncOfThePackAndOneOfTheCatalog) {
  const fakes::CountedSyncs counted;
  std::atomic<int> pack_syncs{0};
  fakes::VolatileFiles files(1, 0, [&](fakes::FileCall call) {
    if (call == fakes::FileCall::kSync) ++pack_syncs;
    return fakes::FileFault::kNone;
  });
  path_ = std::make_unique<DataPath>(directory_, clock_, IngestLimits(), 64 << 20, files);
  const auto closed = absl::MakeCleanup([this] { path_.reset(); });  // before what it stands on
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 1000; ++i) now.pages.push_back(i + 1);
  std::string base = Run(now, nullptr, "", false).snapshot;
  for (unsigned step = 1; step <= 5; ++step) {
    const PagedDatabase before = now;
    now.pages[step * 100] += 10'000 * step;
    now.pages[step * 150] += 10'000 * step;
    const int packs = pack_syncs;
    const int wals = fakes::CountedSyncs::Count();
    const PagedOutcome outcome = Run(now, &before, base, false);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(pack_syncs - packs, 1);
    EXPECT_EQ(fakes::CountedSyncs::Count() - wals, 1);
    ExpectReadsBack(outcome.snapshot, now);
    EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
    base = outcome.snapshot;
  }
}

TEST_F(DeltaTest, WhatCameIsReadBeforeTheCatalogKnowsIt) {
  IngestLimits limits;
  limits.digest_cache_bytes = 0;
  Open(limits);
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 300; ++i) now.pages.push_back(i + 1);
  const std::string first = Run(now, nullptr, "", false).snapshot;
  const PagedDatabase before = now;
  for (unsigned i = 7; i < 300; i += 20) now.pages[i] += 1000;
  const PagedOutcome outcome = Run(now, &before, first, false);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  ExpectReadsBack(outcome.snapshot, now);
}

TEST_F(DeltaTest, WhileAPruneMarksTheClaimsOfACommitStay) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 300; ++i) now.pages.push_back(i + 1);
  const std::string first = Run(now, nullptr, "", false).snapshot;
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  const auto set_marking = [&](int marking) {
    return path_->db->Write(
        [&](sqlite3* db) { return sqlite::Execute(db, "update prune_state set marking = " + std::to_string(marking)); });
  };
  ASSERT_TRUE(set_marking(1).ok());
  const PagedDatabase before = now;
  now.pages[50] += 1000;
  ASSERT_TRUE(Run(now, &before, first, false).status.ok());
  EXPECT_EQ(path_->Count("select count(*) from claim"), 1) << "the mark may not see the snapshot: its new chunk needs a claim";
  ASSERT_TRUE(set_marking(0).ok());
}

TEST_F(DeltaTest, ACommitThatFailsKeepsWhatCame) {
  Open();
  PagedDatabase now{.page_size = 4096, .pages = {}};
  for (unsigned i = 0; i < 300; ++i) now.pages.push_back(i + 1);
  const std::string first = Run(now, nullptr, "", false).snapshot;
  // A trigger in place of whatever may go wrong in the commit's transaction.
  ASSERT_TRUE(path_->db
                  ->Write([](sqlite3* db) {
                    return sqlite::Execute(db, "create trigger refuse before insert on snapshot begin select raise(abort, 'no'); end");
                  })
                  .ok());
  const PagedDatabase before = now;
  now.pages[50] += 1000;
  const int64_t chunks = path_->Count("select count(*) from chunk");
  EXPECT_FALSE(Run(now, &before, first, false).status.ok());
  EXPECT_EQ(path_->SnapshotCount(), 1u);
  EXPECT_EQ(path_->Count("select count(*) from chunk"), chunks + 1);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 1);
  EXPECT_EQ(path_->Count("select sum(chunks) from upload_session where state = 1"), 1) << "a resume point";
  ASSERT_TRUE(path_->db->Write([](sqlite3* db) { return sqlite::Execute(db, "drop trigger refuse"); }).ok());
  const PagedOutcome again = Run(now, &before, first, false);
  ASSERT_TRUE(again.status.ok()) << again.status;
  ExpectReadsBack(again.snapshot, now);
}

}  // namespace
}  // namespace litefleet::ingest
