// Chunks are lost, snapshots are marked, and a device that still has the pages brings them back: whole chunks, and pages alone.
#include "controller/heal/healer.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "controller/heal/wanted_list.h"
#include "controller/manifest/manifest_reader.h"
#include "tests/fakes/wanted_answer.h"
#include "tests/unit/controller/scrub/scrub_parts.h"

namespace litefleet::heal {
namespace {

namespace fs = std::filesystem;
using fakes::PagedDatabase;
using Backup = fakes::PagedOutcome;

class HealerTest : public ingest::IngestTest {
 protected:
  Backup Run(const PagedDatabase& now, const PagedDatabase* before, const std::string& base, bool compare) {
    fakes::PagedWish wish{.session_id = NewSession(), .compare = compare, .base = {}, .base_state = {}};
    if (before != nullptr) {
      wish.base = base;
      wish.base_state = *before;
    }
    fakes::PagedUpload upload(*path_->ingest, device_, now, std::move(wish));
    while (upload.Step()) {}
    upload.End();
    return upload.outcome();
  }
  void ExpectReadsBack(const std::string& snapshot, const PagedDatabase& now) {
    const auto bytes = path_->ReadBack(snapshot);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(*bytes == now.Run(1, now.count()));
  }
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    OpenParts();
    // The catalog has a row of each device that is enrolled.
    Execute("insert into device (id, name, state, key_hash, enrolled_ms) values ('" + device_.value() + "', 'alpha', 1, x'00', 1)");
  }
  void Execute(const std::string& sql) {
    ASSERT_TRUE(path_->db->Write([&](sqlite3* db) { return sqlite::Execute(db, sql); }).ok()) << sql;
  }
  void TearDown() override {
    CloseParts();
    IngestTest::TearDown();
  }
  void OpenParts() {
    parts_ = std::make_unique<scrub::ScrubParts>(*path_, clock_, scrub::ScrubberOptions{.bytes_per_second = 0});
    catalog_ = std::make_unique<catalog::HealCatalog>(*path_->db);
    healer_ = std::make_unique<Healer>(
        HealerDeps{
            .catalog = *catalog_,
            .chunks = *path_->ingest_catalog,
            .store = *path_->store,
            .clock = clock_,
            .start = [this](const DeviceId& device, const v1::HealOrder& order) -> absl::Status {
              LF_ASSIGN_OR_RETURN(const v1::Operation operation, parts_->fleet->StartHeal(device, order, "scrub"));
              operation_ = operation.id();
              return absl::OkStatus();
            },
            .order_of = [this](const DeviceId& device,
                               const OperationId& operation) { return parts_->fleet->HealOrderOf(device, operation); },
            .is_asked = [this](const DeviceId& device, const std::string& database) { return parts_->fleet->IsHealing(device, database); },
            .set_whole = [this](const SnapshotId& snapshot) { return parts_->catalog.SetDamaged(snapshot, false).status(); },
            .changed = [] {}},
        HealerOptions{});
  }

  // A bit of each of these chunks flips.
  void Lose(const std::vector<format::ChunkName>& names) {
    for (const format::ChunkName& name : names) {
      const std::string row = " from chunk where name = x'" + name.Hex() + "'";
      const int64_t pack = path_->Count("select pack" + row), offset = path_->Count("select offset" + row);
      ASSERT_GT(offset, 0);
      for (const auto& entry : fs::directory_iterator(directory_ + "/store/packs")) {
        if (std::stoll(entry.path().stem().string(), nullptr, 16) != pack) continue;
        std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(offset + 100);
        const char c = static_cast<char>(file.get() ^ 1);
        file.seekp(offset + 100);
        file.put(c);
      }
    }
  }
  scrub::Scrubber::Report Scrub() { return parts_->Run(); }
  // The chunks that a snapshot shows pages of.
  std::vector<format::ChunkName> ChunksOf(const std::string& snapshot) {
    std::vector<format::ChunkName> names;
    EXPECT_TRUE(manifest::ForEachNeededChunk(*path_->ingest_catalog, *path_->store, SnapshotId(snapshot),
                                             [&](std::span<const manifest::ChunkRef> chunks) {
                                               for (const auto& chunk : chunks) names.push_back(chunk.name);
                                               return absl::OkStatus();
                                             })
                    .ok());
    return names;
  }
  // The device answers one order with what `now` still has; false: there is none.
  bool Answer(const PagedDatabase& now) {
    const auto orders = healer_->OrderDue();
    EXPECT_TRUE(orders.ok()) << orders.status();
    if (orders.value_or(0) == 0) {
      // One that was given before a restart is answered all the same.
      const auto active = parts_->operations.ActiveOf(device_);
      if (!active.ok() || active->empty()) return false;
      operation_ = active->front().operation.id();
    }
    const auto order = parts_->fleet->HealOrderOf(device_, OperationId(operation_));
    EXPECT_TRUE(order.ok()) << order.status();
    EXPECT_TRUE(WantedGatherer::Check(*order).ok()) << WantedGatherer::Check(*order);
    const v1::SendWantedRequest request = fakes::AnswerOf(operation_, *order, now);
    const auto taken = healer_->Accept(device_, request);
    EXPECT_TRUE(taken.ok()) << taken.status();
    EXPECT_TRUE(healer_->Accept(device_, request).ok()) << "it may be repeated";
    v1::SendWantedRequest last;
    last.set_operation_id(operation_);
    last.set_last(true);
    const auto ended = healer_->Accept(device_, last);
    EXPECT_TRUE(ended.ok()) << ended.status();
    EXPECT_TRUE(parts_->fleet->Cancel(OperationId(operation_)).ok());
    EXPECT_TRUE(parts_->scrubber->Heal().ok());
    return true;
  }
  void CloseParts() {
    healer_.reset();
    catalog_.reset();
    parts_.reset();
  }
  void CloseAll() {
    CloseParts();
    path_.reset();
  }
  v1::SnapshotState StateOf(const std::string& id) { return path_->snapshots->Resolve(id)->state(); }
  static PagedDatabase Make(uint32_t pages) {
    PagedDatabase database;
    for (uint32_t i = 0; i < pages; ++i) database.pages.push_back(1000 + i);
    return database;
  }

  std::unique_ptr<scrub::ScrubParts> parts_;
  std::unique_ptr<catalog::HealCatalog> catalog_;
  std::unique_ptr<Healer> healer_;
  std::string operation_;
};

TEST_F(HealerTest, WholeChunksComeBackAlsoThoseOfDeltas) {
  const PagedDatabase first = Make(64 * 6);
  const Backup one = Run(first, nullptr, "", true);
  ASSERT_TRUE(one.status.ok()) << one.status;
  PagedDatabase second = first;
  for (const uint32_t page : {5U, 130U, 300U}) second.pages[page - 1] = 7000 + page;
  const Backup two = Run(second, &first, one.snapshot, true);
  ASSERT_TRUE(two.status.ok()) << two.status;
  auto lost = ChunksOf(two.snapshot);
  Lose(lost);
  EXPECT_EQ(Scrub().chunks_quarantined, lost.size());
  EXPECT_EQ(StateOf(one.snapshot), v1::SNAPSHOT_STATE_DAMAGED);
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_DAMAGED);
  EXPECT_EQ(catalog_->GetFigures()->wanted, static_cast<int64_t>(lost.size()));

  for (int orders = 0; Answer(second); ++orders) ASSERT_LT(orders, 5);
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_COMMITTED);
  ExpectReadsBack(two.snapshot, second);
  EXPECT_EQ(StateOf(one.snapshot), v1::SNAPSHOT_STATE_DAMAGED) << "pages 5, 130 and 300 of then are nowhere any more";
  EXPECT_EQ(catalog_->GetFigures()->wanted, 0);
  EXPECT_GT(catalog_->GetFigures()->gone, 0);
  EXPECT_EQ(Scrub().chunks_quarantined, 0U);
}

TEST_F(HealerTest, PagesHealEverySnapshotThatShowsNoMoreOfTheChunk) {
  std::vector<PagedDatabase> states = {Make(64 * 3)};
  std::vector<std::string> snapshots = {Run(states[0], nullptr, "", true).snapshot};
  const auto base = ChunksOf(snapshots[0]);
  for (unsigned i = 1; i < 6; ++i) {
    PagedDatabase next = states.back();
    next.pages[1] = 9000 + i;                   // a page that every commit writes
    if (i <= 2) next.pages[64 + i] = 9100 + i;  // and another one, at first
    snapshots.push_back(Run(next, &states.back(), snapshots.back(), true).snapshot);
    ASSERT_FALSE(snapshots.back().empty());
    states.push_back(next);
  }
  Lose(base);
  EXPECT_EQ(Scrub().snapshots_damaged, snapshots.size());
  PagedDatabase now = states.back();
  now.pages[1] = 424242;  // the device goes on
  for (int orders = 0; Answer(now); ++orders) ASSERT_LT(orders, 5);
  for (size_t i = 0; i < snapshots.size(); ++i) {
    // What the third commit overwrote last is shown by the first two alone, and by no device.
    EXPECT_EQ(StateOf(snapshots[i]), i < 2 ? v1::SNAPSHOT_STATE_DAMAGED : v1::SNAPSHOT_STATE_COMMITTED) << i;
    if (i >= 2) ExpectReadsBack(snapshots[i], states[i]);
  }
  // The third extent was never changed, and came back as it was.
  EXPECT_EQ(path_->Count("select count(*) from healed_page"), 63 + 62);

  // A backup on a snapshot that was healed, and all of it read again.
  const Backup more = Run(now, &states.back(), snapshots.back(), true);
  ASSERT_TRUE(more.status.ok()) << more.status;
  EXPECT_EQ(more.base, snapshots.back());
  ExpectReadsBack(more.snapshot, now);
  EXPECT_EQ(Scrub().chunks_quarantined, 0U);
}

class HealerKillTest : public HealerTest, public testing::WithParamInterface<const char*> {};

// Wherever the end comes, the next start finds the same damage and heals as much of it.
TEST_P(HealerKillTest, TheNextStartHealsAsMuch) {
  std::vector<PagedDatabase> states = {Make(64 * 3)};
  std::vector<std::string> snapshots = {Run(states[0], nullptr, "", true).snapshot};
  const auto base = ChunksOf(snapshots[0]);
  for (unsigned i = 1; i < 4; ++i) {
    PagedDatabase next = states.back();
    next.pages[1] = 9000 + i;
    snapshots.push_back(Run(next, &states.back(), snapshots.back(), true).snapshot);
    ASSERT_FALSE(snapshots.back().empty());
    states.push_back(next);
  }
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  Lose(base);
  CloseAll();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    Open();
    OpenParts();
    Scrub();
    for (int orders = 0; Answer(states.back()) && orders < 5;) ++orders;
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "it never came there: " << status;

  Open();
  OpenParts();
  ASSERT_TRUE(parts_->scrubber->MarkDue([] { return false; }).ok()) << "as the start does it";
  Scrub();
  for (size_t i = 1; i < snapshots.size(); ++i) {
    if (StateOf(snapshots[i]) == v1::SNAPSHOT_STATE_COMMITTED) ExpectReadsBack(snapshots[i], states[i]);  // healed before the end
  }
  for (int orders = 0; Answer(states.back()); ++orders) ASSERT_LT(orders, 5);
  for (size_t i = 0; i < snapshots.size(); ++i) {
    EXPECT_EQ(StateOf(snapshots[i]), i == 0 ? v1::SNAPSHOT_STATE_DAMAGED : v1::SNAPSHOT_STATE_COMMITTED) << i;
    if (i > 0) ExpectReadsBack(snapshots[i], states[i]);
  }
  EXPECT_EQ(Scrub().chunks_quarantined, 0U);
  PagedDatabase more = states.back();
  more.pages[7] = 5;
  EXPECT_TRUE(Run(more, &states.back(), snapshots.back(), true).status.ok());
}

INSTANTIATE_TEST_SUITE_P(Points, HealerKillTest,
                         testing::Values("scrub.after_quarantine", "scrub.before_marked", "scrub.after_pack", "heal.after_order",
                                         "heal.after_chunk_write", "heal.after_pack_sync", "heal.after_good", "heal.after_pages",
                                         "heal.before_layer", "heal.after_layer"));

// In the midst of an answer page by page: what came is put in its place, and no claim holds anything any more.
TEST_F(HealerTest, AnOrderThatIsCancelledLeavesNoClaim) {
  const PagedDatabase first = Make(64 * 3);
  const Backup one = Run(first, nullptr, "", true);
  PagedDatabase second = first;
  for (const uint32_t extent : {0U, 1U, 2U}) second.pages[64 * extent] = 9000 + extent;
  const Backup two = Run(second, &first, one.snapshot, true);
  ASSERT_TRUE(two.status.ok()) << two.status;
  Lose(ChunksOf(one.snapshot));
  EXPECT_EQ(Scrub().snapshots_damaged, 2U);
  // Whole chunks are nowhere any more.
  ASSERT_TRUE(Answer(second));
  ASSERT_EQ(healer_->OrderDue().value(), 1);
  const auto order = parts_->fleet->HealOrderOf(device_, OperationId(operation_));
  ASSERT_TRUE(order.ok()) << order.status();
  v1::SendWantedRequest request = fakes::AnswerOf(operation_, *order, second);
  ASSERT_EQ(request.contents_size(), 3);
  request.mutable_contents()->RemoveLast();
  ASSERT_TRUE(healer_->Accept(device_, request).ok());
  EXPECT_EQ(path_->Count("select count(*) from claim where session < 0"), 2);
  EXPECT_EQ(healer_->OrderDue().value(), 0);
  EXPECT_EQ(path_->Count("select count(*) from claim where session < 0"), 2) << "it is under way";

  ASSERT_TRUE(parts_->fleet->Cancel(OperationId(operation_)).ok());
  EXPECT_EQ(ReasonOf(healer_->Accept(device_, request).status()), "ORDER_NOT_FOUND");
  // A manifest that changes in that moment, and a catalog that refuses: what came is shown by no snapshot yet, and must not become dead.
  for (const char* refusal : {"raise(ignore)", "raise(abort, 'refused')"}) {
    Execute(std::string("create trigger refuse before update of layers on snapshot begin select ") + refusal + "; end");
    EXPECT_EQ(healer_->OrderDue().value(), 0);
    EXPECT_EQ(path_->Count("select count(*) from claim where session < 0"), 2) << refusal;
    Execute("drop trigger refuse");
  }
  EXPECT_EQ(healer_->OrderDue().value(), 0);
  EXPECT_EQ(path_->Count("select count(*) from claim where session < 0"), 2) << "a failure is not repeated each second";
  clock_.Advance(std::chrono::minutes(6));
  EXPECT_EQ(healer_->OrderDue().value(), 0) << "it is not asked for at once again";
  EXPECT_EQ(path_->Count("select count(*) from claim where session < 0"), 0);
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_DAMAGED);
  // The rest comes later.
  clock_.Advance(std::chrono::hours(25));
  ASSERT_TRUE(Answer(second));
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_COMMITTED);
  ExpectReadsBack(two.snapshot, second);
  EXPECT_EQ(path_->Count("select count(*) from claim where session < 0"), 0);
  EXPECT_EQ(Scrub().chunks_quarantined, 0U);
}

TEST_F(HealerTest, WhatIsNotWhatWasAskedForIsRefused) {
  const PagedDatabase first = Make(64 * 2);
  const Backup one = Run(first, nullptr, "", true);
  Lose(ChunksOf(one.snapshot));
  Scrub();
  ASSERT_EQ(healer_->OrderDue().value(), 1);
  EXPECT_EQ(healer_->OrderDue().value(), 0) << "asked once";
  v1::SendWantedRequest request;
  request.set_operation_id(operation_);
  v1::WantedContent& content = *request.add_contents();
  const Bytes wrong = Make(64 * 2 + 1).Run(64, 64);
  content.mutable_chunk()->set_name(std::string(format::NameChunkOf(4096, wrong).AsString()));
  content.mutable_chunk()->set_codec(v1::CODEC_RAW);
  content.mutable_chunk()->set_raw_bytes(static_cast<uint32_t>(wrong.size()));
  content.mutable_chunk()->set_data(std::string(AsText(wrong)));
  EXPECT_EQ(ReasonOf(healer_->Accept(device_, request).status()), "CHUNK_INVALID");
  content.set_position(99);
  EXPECT_EQ(ReasonOf(healer_->Accept(device_, request).status()), "CHUNK_INVALID");
  EXPECT_EQ(ReasonOf(healer_->Accept(other_, request).status()), "ORDER_NOT_FOUND");
  EXPECT_EQ(StateOf(one.snapshot), v1::SNAPSHOT_STATE_DAMAGED);
}

TEST_F(HealerTest, MarksAreOwedUntilTheyAreMadeAndHoldInTheTrash) {
  const PagedDatabase first = Make(64 * 2);
  const Backup one = Run(first, nullptr, "", true);
  PagedDatabase second = first;
  second.pages[0] = 1;
  const Backup two = Run(second, &first, one.snapshot, true);
  ASSERT_TRUE(path_->db
                  ->Write([&](sqlite3* db) {
                    return sqlite::Execute(
                        db, "update snapshot set trashed_from = state, state = 3, trashed_at = 1 where id = '" + one.snapshot + "'");
                  })
                  .ok());
  // A crash, or a cancel, between the quarantine and the marks.
  std::vector<catalog::ScrubCatalog::PlacedChunk> bad;
  for (const format::ChunkName& name : ChunksOf(one.snapshot)) {
    const std::string row = " from chunk where name = x'" + name.Hex() + "'";
    bad.push_back({.id = 0,
                   .name = name,
                   .place = {.pack = static_cast<uint64_t>(path_->Count("select pack" + row)),
                             .offset = static_cast<uint64_t>(path_->Count("select offset" + row))}});
  }
  ASSERT_TRUE(parts_->catalog.Quarantine(bad, "test", clock_.Now()).ok());
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(parts_->scrubber->MarkDue([] { return true; }).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(parts_->scrubber->MarkDue([] { return false; }).value(), 2U);
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_DAMAGED);
  EXPECT_EQ(path_->Count("select trashed_from from snapshot where id = '" + one.snapshot + "'"), 2) << "as it comes out of the trash";
  for (int orders = 0; Answer(first); ++orders) ASSERT_LT(orders, 5);
  EXPECT_EQ(StateOf(two.snapshot), v1::SNAPSHOT_STATE_COMMITTED);
  EXPECT_EQ(path_->Count("select trashed_from from snapshot where id = '" + one.snapshot + "'"), 1);
}

}  // namespace
}  // namespace litefleet::heal
