// Snapshots deleted, pruned and uploaded in random order, with kills: every one that was acknowledged and not deleted restores to its root.
#include "controller/prune/pruner.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "fmt/format.h"
#include "tests/fakes/closed_files.h"
#include "tests/fakes/volatile_files.h"
#include "tests/unit/controller/prune/prune_fixture.h"

namespace litefleet::prune {
namespace {

using fakes::FakeDatabase;
using std::chrono::hours;

TEST_F(PrunerTest, GoesThroughTheTrashTwiceAndKeepsWhatIsShared) {
  Rig rig(*path_, clock_);
  const std::string old = Take(1);
  const std::string other = Take(4);
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(old), false, "operator:x", clock_.Now()).ok());
  EXPECT_EQ(ReasonOf(path_->ReadBack(old).status()), "SNAPSHOT_IN_TRASH");
  auto report = rig.Run(clock_.Now());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->snapshots_removed(), 0) << "its grace is not over";
  clock_.Advance(hours(24 * 8));
  PruneOptions dry;
  dry.dry_run = true;
  const auto would = rig.Run(clock_.Now(), dry);
  report = rig.Run(clock_.Now());
  ASSERT_TRUE(report.ok() && would.ok());
  EXPECT_EQ(report->snapshots_removed(), 1);
  EXPECT_EQ(report->chunks_trashed(), 4);
  EXPECT_EQ(would->chunks_trashed(), report->chunks_trashed()) << "a dry run says what is then done";
  EXPECT_EQ(would->bytes_trashed(), report->bytes_trashed());
  EXPECT_EQ(report->chunks_swept(), 0);
  EXPECT_EQ(Chunks("state = 2"), 4);
  clock_.Advance(hours(25));
  report = rig.Run(clock_.Now());
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->chunks_swept(), 4);
  EXPECT_EQ(report->chunks_rescued(), 0);
  EXPECT_EQ(path_->Count("select count(*) from chunk_trash"), 0);
  EXPECT_EQ(path_->Count("select count(*) from device_chunk d where not exists (select 1 from chunk c where c.id = d.chunk)"), 0);
  EXPECT_TRUE(path_->ReadBack(other).ok());
  EXPECT_EQ(ReasonOf(path_->ReadBack(old).status()), "SNAPSHOT_NOT_FOUND");
}

TEST_F(PrunerTest, ADedupHitTakesAChunkOutOfTheTrashWithTheClaim) {
  Rig rig(*path_, clock_);
  const std::string old = Take(1);
  Take(4);
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(old), false, "operator:x", clock_.Now()).ok());
  PruneOptions options = AtOnce();
  options.sweeps = 1;
  ASSERT_TRUE(rig.Run(clock_.Now(), options).ok());
  ASSERT_EQ(Chunks("state = 2"), 4);
  const std::string again = Take(1);
  EXPECT_EQ(Chunks("state = 2"), 0);
  const auto report = rig.Run(clock_.Now(), options);
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->chunks_swept(), 0);
  EXPECT_TRUE(path_->ReadBack(again).ok());
}

TEST_F(PrunerTest, WhatIsReadIsNotRemoved) {
  Rig rig(*path_, clock_);
  const std::string first = Take(1);
  Take(4);
  auto reader = path_->readers->Open(SnapshotId(first), {});
  ASSERT_TRUE(reader.ok());
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(first), false, "operator:x", clock_.Now()).ok());
  auto report = rig.Run(clock_.Now(), AtOnce());
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->snapshots_held(), 1);
  format::ChunkDecompressor decompressor;
  size_t chunks = 0;
  for (;; ++chunks) {
    auto chunk = (*reader)->Next();
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    if (!chunk->has_value()) break;
    ASSERT_TRUE(restore::Unpack(**chunk, (*reader)->geometry().page_size, decompressor).ok());
  }
  EXPECT_GT(chunks, 0u);
  reader->reset();
  report = rig.Run(clock_.Now(), AtOnce());
  EXPECT_EQ(report->snapshots_removed(), 1);
}

TEST_F(PrunerTest, APackIsRewrittenUnderAReader) {
  path_.reset();
  path_ = std::make_unique<ingest::DataPath>(directory_, clock_, ingest::IngestLimits{}, /*seal_bytes=*/600'000);
  Rig rig(*path_, clock_);
  std::vector<std::string> ids;
  for (unsigned i = 0; i < 12; ++i) ids.push_back(Take(i));
  auto reader = path_->readers->Open(SnapshotId(ids[11]), {});
  format::ChunkDecompressor decompressor;
  ASSERT_TRUE(reader.ok() && (*reader)->Next().ok());
  for (unsigned i = 0; i < 11; ++i) ASSERT_TRUE(rig.deletions.Trash(SnapshotId(ids[i]), true, "operator:x", clock_.Now()).ok());
  PruneOptions options = AtOnce();
  options.rewrite_percent = 1;
  const auto report = rig.Run(clock_.Now(), options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->packs_removed() + report->packs_rewritten(), 0);
  EXPECT_EQ(report->packs_damaged(), 0);
  for (;;) {
    auto chunk = (*reader)->Next();
    ASSERT_TRUE(chunk.ok()) << chunk.status();
    if (!chunk->has_value()) break;
    ASSERT_TRUE(restore::Unpack(**chunk, (*reader)->geometry().page_size, decompressor).ok());
  }
  EXPECT_TRUE(path_->ReadBack(ids[11]).ok());
  EXPECT_EQ(path_->Count("select count(*) from pack_removal"), 0);
}

// Asked at each record, and not between two packs alone, which have 128 MiB. What was copied until then is dead; another run does it all.
TEST_F(PrunerTest, ACancelEndsTheRewriteOfAPack) {
  const std::string gone = Take(0);
  const std::string kept = Take(3);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  Rig rig(*path_, clock_);
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(gone), true, "operator:x", clock_.Now()).ok());
  PruneOptions options = AtOnce();
  options.rewrite_percent = 1;
  int asked = 0;
  const auto cancelled_at = [&](int when) {
    asked = 0;
    return rig.Make().Run(options, clock_.Now(), [&](std::string_view phase, double) {
      if (phase != "rewriting packs" || ++asked != when) return absl::OkStatus();
      return absl::CancelledError("cancelled");
    });
  };
  // The first question is before the pack; behind it come its records, to be counted and then to be copied.
  int when = 2;
  for (;; ++when) {
    const auto report = cancelled_at(when);
    if (report.ok()) break;
    EXPECT_TRUE(absl::IsCancelled(report.status())) << report.status();
    EXPECT_EQ(asked, when) << "nothing was done after it";
    EXPECT_TRUE(path_->ReadBack(kept).ok()) << when;
  }
  EXPECT_GT(when, 8);
  EXPECT_TRUE(path_->ReadBack(kept).ok());
}

// A trash may hold a hundred thousand snapshots, and they millions of chunks: asked before each transaction, not before all of them.
TEST_F(PrunerTest, ACancelEndsTheRemovalOfSnapshotsAndTheSweep) {
  const std::string gone = Take(0);
  const std::string kept = Take(3);
  Rig rig(*path_, clock_);
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(gone), true, "operator:x", clock_.Now()).ok());
  const auto cancelled_in = [&](std::string_view wanted, int when) {
    int asked = 0;
    const auto report = rig.Make().Run(AtOnce(), clock_.Now(), [&](std::string_view phase, double) {
      return phase == wanted && ++asked == when ? absl::CancelledError("cancelled") : absl::OkStatus();
    });
    EXPECT_TRUE(absl::IsCancelled(report.status())) << wanted << ": " << report.status();
  };
  cancelled_in("removing snapshots", 2);  // the first question is before anything
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 2) << "nothing was removed";
  cancelled_in("removing chunks", 1);
  EXPECT_EQ(path_->Count("select count(*) from snapshot"), 1);
  EXPECT_GT(Chunks("state = 2"), 0) << "nothing was swept";
  ASSERT_TRUE(rig.Run(clock_.Now(), AtOnce()).ok());
  EXPECT_EQ(Chunks("state = 2"), 0);
  EXPECT_TRUE(path_->ReadBack(kept).ok());
}

// The open pack is sealed where enough of it was swept, by a later run where the one that swept it was cut off before that.
TEST_F(PrunerTest, WhatARunHasSweptThatWasCutOffGoesWithTheNext) {
  Rig rig(*path_, clock_);
  Pruner same = rig.Make();
  for (const bool restarted : {false, true}) {
    SCOPED_TRACE(restarted);
    std::vector<std::string> gone;
    for (unsigned i = 0; i < 4; ++i) gone.push_back(Take(30 + 3 * i));
    const std::string kept = Take(0);
    for (const std::string& id : gone) ASSERT_TRUE(rig.deletions.Trash(SnapshotId(id), true, "operator:x", clock_.Now()).ok());
    int asked = 0;
    const auto cut_off = same.Run(AtOnce(), clock_.Now(), [&](std::string_view phase, double) {
      return phase == "removing chunks" && ++asked == 2 ? absl::CancelledError("cancelled") : absl::OkStatus();
    });
    EXPECT_TRUE(absl::IsCancelled(cut_off.status())) << cut_off.status();
    ASSERT_EQ(Chunks("state = 2"), 0) << "it was swept";
    ASSERT_FALSE(path_->store->Packs().back().sealed);
    const auto bytes = [&] {
      uint64_t all = 0;
      for (const store::PackInfo& pack : path_->store->Packs()) all += pack.size;
      return all;
    };
    const uint64_t before = bytes();
    const auto next = restarted ? rig.Run(clock_.Now(), AtOnce())
                                : same.Run(AtOnce(), clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_EQ(next->chunks_swept(), 0);
    EXPECT_GT(next->bytes_removed(), next->bytes_copied());
    EXPECT_LT(bytes(), before * 2 / 3);
    EXPECT_TRUE(path_->ReadBack(kept).ok());
    const size_t packs = path_->store->Packs().size();
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(rig.Run(clock_.Now(), AtOnce()).ok());  // each as after a restart
    EXPECT_EQ(path_->store->Packs().size(), packs) << "nothing is left to be sealed";
  }
}

// What can be read of a damaged pack moves out of it; the pack goes when nothing points to the rest, or when the devices do not have it.
// What the rewrite of one copies is not dead to the next.
TEST_F(PrunerTest, APackOfMarksIsNotCopiedByEachPrune) {
  Rig rig(*path_, clock_);
  Pruner pruner = rig.Make();
  const auto prune = [&] {
    const auto report = pruner.Run(AtOnce(), clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(v1::PruneReport());
  };
  Take(0);  // as long as its pack stays, so do the marks
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  for (unsigned i = 0; i < 20; ++i) {
    const auto outcome = Upload(fakes::FakeDatabase::Make(4096, 2, 100 + i), other_);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    ASSERT_TRUE(rig.deletions.Trash(SnapshotId(outcome.snapshot_id), true, "operator:x", clock_.Now()).ok());
  }
  const v1::PruneReport first = prune();
  EXPECT_EQ(first.snapshots_removed(), 20);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  EXPECT_GT(prune().bytes_copied() + first.bytes_copied(), 0) << "the marks moved out of what was dead around them";
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    const v1::PruneReport report = prune();
    EXPECT_EQ(report.bytes_copied(), 0);
    EXPECT_EQ(report.packs_rewritten() + report.packs_removed(), 0);
  }
}

// A disk on which the removal of a file can go wrong.
class RefusedRemovalTest : public PrunerTest {
 protected:
  enum class At { kNowhere, kFile, kDirectory };
  void SetUp() override {
    disk_ = &files_;
    PrunerTest::SetUp();
  }
  At refuse_ = At::kNowhere;  // the next removal
  bool for_good_ = false;     // and all that follow
  bool removing_ = false;     // its directory is to be synced
  fakes::VolatileFiles files_{1, 0, [this](fakes::FileCall call) {
                                if (call == fakes::FileCall::kRemove) removing_ = refuse_ == At::kDirectory;
                                const bool refused = (call == fakes::FileCall::kRemove && refuse_ == At::kFile) ||
                                                     (call == fakes::FileCall::kSyncDirectory && std::exchange(removing_, false));
                                if (refused && !for_good_) refuse_ = At::kNowhere;
                                return refused ? fakes::FileFault::kIo : fakes::FileFault::kNone;
                              }};
};

// The rows of such a pack go without a restart, and nothing is done twice for it.
TEST_F(RefusedRemovalTest, IsFinishedByTheNextRun) {
  PruneOptions options = AtOnce();
  options.rewrite_percent = 1;
  for (const At refused : {At::kDirectory, At::kFile}) {
    SCOPED_TRACE(static_cast<int>(refused));
    const unsigned seed = refused == At::kDirectory ? 0 : 30;
    const std::string gone = Take(seed);
    const std::string kept = Take(seed + 3);
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    const uint64_t pack = path_->store->Packs().back().id;
    Rig rig(*path_, clock_);
    ASSERT_TRUE(rig.deletions.Trash(SnapshotId(gone), true, "operator:x", clock_.Now()).ok());
    refuse_ = refused;
    const absl::Status ended = rig.Run(clock_.Now(), options).status();
    EXPECT_EQ(ReasonOf(ended), "IO_ERROR") << ended;
    EXPECT_EQ(rig.catalog.Removals().value(), std::vector{pack});
    options.dry_run = true;
    ASSERT_TRUE(rig.Run(clock_.Now(), options).ok());
    EXPECT_EQ(rig.catalog.Removals()->size(), 1U) << "a dry run removes nothing";
    options.dry_run = false;
    const auto report = rig.Run(clock_.Now(), options);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(rig.catalog.Removals()->size(), 0U);
    EXPECT_EQ(path_->Count(fmt::format("select count(*) from pack where id = {}", pack)), 0);
    EXPECT_TRUE(path_->ReadBack(kept).ok());
  }
}

// As of a file system that is read-only, or a file that root has made immutable: no younger pack goes before it, but all else is done, and
// the controller starts.
TEST_F(RefusedRemovalTest, ForGoodHoldsUpNothingElse) {
  PruneOptions options = AtOnce();
  options.rewrite_percent = 1;
  const std::string gone = Take(0);
  const std::string next = Take(3);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const uint64_t pack = path_->store->Packs().back().id;
  Rig rig(*path_, clock_);
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(gone), true, "operator:x", clock_.Now()).ok());
  for_good_ = true;
  refuse_ = At::kFile;
  EXPECT_EQ(ReasonOf(rig.Run(clock_.Now(), options).status()), "IO_ERROR");
  ASSERT_EQ(rig.catalog.Removals().value(), std::vector{pack});
  EXPECT_TRUE(rig.Make().Recover().ok());
  ASSERT_TRUE(rig.deletions.Trash(SnapshotId(next), true, "operator:x", clock_.Now()).ok());
  EXPECT_EQ(ReasonOf(rig.Run(clock_.Now(), options).status()), "IO_ERROR") << "an operator has to know";
  EXPECT_EQ(ReasonOf(path_->ReadBack(next).status()), "SNAPSHOT_NOT_FOUND");
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 0);
  EXPECT_EQ(rig.catalog.Removals().value(), std::vector{pack});
  refuse_ = At::kNowhere;
  ASSERT_TRUE(rig.Run(clock_.Now(), options).ok());
  EXPECT_EQ(rig.catalog.Removals()->size(), 0U);
}

class DamagedPackTest : public PrunerTest {
 protected:
  void SetUp() override {
    PrunerTest::SetUp();
    rig_ = std::make_unique<Rig>(*path_, clock_);
    pruner_ = std::make_unique<Pruner>(rig_->Make());
    hurt_ = Take(0);
    bad_ = path_->Count("select id from chunk order by id limit 1");
    sound_ = Take(3);
    Trash(Take(6));
    ASSERT_TRUE(path_->store->SealOpenPack().ok());
    pack_ = path_->Count("select max(pack) from chunk");
    const std::string place = fmt::format(" from chunk where id = {}", bad_);
    const auto offset = path_->Count("select offset" + place);
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/store/packs")) {
      if (std::stoll(entry.path().stem().string(), nullptr, 16) != pack_) continue;
      std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(offset + 100);
      file.put('\x55');
      file.put('\x5a');
    }
    ASSERT_TRUE(
        path_->db->Write([&](sqlite3* db) { return sqlite::Execute(db, fmt::format("insert into scrub_pack values ({}, 5)", pack_)); })
            .ok());
  }
  void TearDown() override {
    pruner_.reset();
    rig_.reset();
    PrunerTest::TearDown();
  }
  void Trash(const std::string& id) { ASSERT_TRUE(rig_->deletions.Trash(SnapshotId(id), true, "operator:x", clock_.Now()).ok()); }
  v1::PruneReport Prune() {
    PruneOptions options = AtOnce();
    options.rewrite_percent = 1;
    const auto report = pruner_->Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    EXPECT_TRUE(report.ok()) << report.status();
    EXPECT_TRUE(path_->ReadBack(sound_).ok());
    return report.value_or(v1::PruneReport());
  }
  int64_t InPack() { return Chunks(fmt::format("pack = {}", pack_)); }
  bool IsThere() {
    const auto packs = path_->store->Packs();
    return std::any_of(packs.begin(), packs.end(), [&](const auto& pack) { return static_cast<int64_t>(pack.id) == pack_; });
  }
  void Quarantine(int64_t asked) {
    ASSERT_TRUE(path_->db
                    ->Write([&](sqlite3* db) {
                      return sqlite::Execute(db, fmt::format("update chunk set state = 3 where id = {0}; insert into quarantine (chunk, "
                                                             "found_at, reason, marked) values ({0}, 1, 'x', 1); insert into wanted "
                                                             "(database, chunk, state) values (1, {0}, {1})",
                                                             bad_, asked));
                    })
                    .ok());
  }

  std::unique_ptr<Rig> rig_;
  std::unique_ptr<Pruner> pruner_;
  std::string hurt_, sound_;
  int64_t bad_ = 0, pack_ = 0;
};

TEST_F(DamagedPackTest, WhatCanBeReadMovesOutAndTheRestWaitsForItsSnapshots) {
  v1::PruneReport report = Prune();
  EXPECT_EQ(report.packs_damaged(), 1);
  EXPECT_GT(report.bytes_copied(), 0);
  EXPECT_TRUE(IsThere());
  EXPECT_EQ(InPack(), 1) << "all but the one that cannot be read";
  EXPECT_EQ(path_->Count("select count(*) from scrub_pack"), 0) << "scrub is to look";
  report = Prune();
  EXPECT_EQ(report.packs_damaged(), 1);
  EXPECT_EQ(report.bytes_copied(), 0) << "not again and again";
  Trash(hurt_);
  report = Prune();
  EXPECT_EQ(report.packs_damaged(), 0);
  EXPECT_FALSE(IsThere());
}

TEST_F(DamagedPackTest, NothingGoesWhileDevicesAreAsked) {
  Quarantine(1);
  const int64_t before = InPack();
  v1::PruneReport report = Prune();
  EXPECT_EQ(report.packs_damaged(), 1);
  EXPECT_LT(InPack(), before) << "what was deleted was swept";
  EXPECT_GT(InPack(), 1) << "nothing moved";
  EXPECT_TRUE(IsThere());
  ASSERT_TRUE(path_->db->Write([](sqlite3* db) { return sqlite::Execute(db, "update wanted set state = 2"); }).ok());
  report = Prune();
  EXPECT_EQ(report.packs_damaged(), 0) << "no device has it";
  EXPECT_GT(report.bytes_copied(), 0);
  EXPECT_FALSE(IsThere());
  EXPECT_EQ(path_->ReadBack(hurt_).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(DamagedPackTest, OneThatIsAnotherDoesNotEndTheRun) {
  for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/store/packs")) {
    if (std::stoll(entry.path().stem().string(), nullptr, 16) != pack_) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    std::array<std::byte, format::kPackHeaderBytes> header;
    format::EncodePackHeader({.features = 0, .pack_id = 77, .tag = 5, .created_at_ms = 0}, header);
    file.write(AsText(header).data(), static_cast<std::streamsize>(header.size()));
  }
  path_->store->ForgetCached(static_cast<uint64_t>(pack_));
  Trash(hurt_);
  Trash(sound_);
  PruneOptions options = AtOnce();
  options.rewrite_percent = 1;
  const auto report = pruner_->Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->snapshots_removed(), 3);
  EXPECT_EQ(report->packs_damaged(), 1);
  EXPECT_TRUE(IsThere()) << "nobody can say what stands in it";
}

class ClosedPackTest : public PrunerTest {
 protected:
  void SetUp() override {
    disk_ = &files_;
    PrunerTest::SetUp();
  }
  fakes::ClosedFiles files_;
};

TEST_F(ClosedPackTest, OneThatMayNotBeOpenedDoesNotEndTheRun) {
  Rig rig(*path_, clock_);
  const std::string mine = Take(0);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  const std::string other = Take(30);
  ASSERT_TRUE(path_->store->SealOpenPack().ok());
  for (const std::string& id : {mine, other}) ASSERT_TRUE(rig.deletions.Trash(SnapshotId(id), true, "operator:x", clock_.Now()).ok());
  ASSERT_TRUE(rig.marks.WriteDue().ok());
  files_.closed = {"0000000000000001.pack"};
  path_->store->ForgetCached(1);
  PruneOptions options = AtOnce();
  options.rewrite_percent = 1;
  auto report = rig.Run(clock_.Now(), options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->packs_damaged(), 1);
  const auto there = [&](uint64_t id) {
    const auto packs = path_->store->Packs();
    return std::any_of(packs.begin(), packs.end(), [&](const auto& pack) { return pack.id == id; });
  };
  EXPECT_TRUE(there(1));
  EXPECT_FALSE(there(2)) << "the others go";
  files_.closed.clear();
  report = rig.Run(clock_.Now(), options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->packs_damaged(), 0);
  EXPECT_FALSE(there(1));
}

class PruneKillTest : public PrunerTest, public testing::WithParamInterface<const char*> {};

struct Report {
  char snapshot[27];
  unsigned seed;
  bool deleted;
};

TEST_P(PruneKillTest, WhatWasAcknowledgedAndNotDeletedRestores) {
  path_.reset();
  std::map<std::string, unsigned> alive;
  std::map<std::string, unsigned> deleted;
  for (int round = 1; round <= 3; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      setenv("LITEFLEET_CRASH_AT", (std::string(GetParam()) + ":" + std::to_string(round)).c_str(), 1);
      ingest::DataPath path(directory_, clock_, ingest::IngestLimits{}, /*seal_bytes=*/600'000);
      Rig rig(path, clock_);
      if (!rig.Make().Recover().ok()) _exit(3);
      std::mt19937 random(static_cast<unsigned>(round));
      std::vector<std::string> mine;
      PruneOptions options = AtOnce();
      options.rewrite_percent = 20;
      for (unsigned i = 0; i < 40; ++i) {
        const unsigned seed = static_cast<unsigned>(round) * 100 + i;
        const auto outcome = fakes::RunUpload(*path.ingest, device_, DatabaseOf(seed), {.session_id = NewSession()});
        if (!outcome.status.ok()) _exit(4);
        Report report{{}, seed, false};
        std::memcpy(report.snapshot, outcome.snapshot_id.data(), 26);
        if (write(pipe_fds[1], &report, sizeof report) != sizeof report) _exit(5);
        mine.push_back(outcome.snapshot_id);
        if (mine.size() > 3) {
          const size_t at = random() % (mine.size() - 1);
          // Told before it is done: whether it is then there is left open.
          std::memcpy(report.snapshot, mine[at].data(), 26);
          report.deleted = true;
          if (write(pipe_fds[1], &report, sizeof report) != sizeof report) _exit(5);
          if (!rig.deletions.Trash(SnapshotId(mine[at]), true, "operator:x", clock_.Now()).ok()) _exit(6);
          mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(at));
        }
        if (i % 4 == 3 && !rig.Run(clock_.Now(), options).ok()) _exit(7);
      }
      _exit(0);
    }
    close(pipe_fds[1]);
    Report report;
    while (read(pipe_fds[0], &report, sizeof report) == sizeof report) {
      report.deleted ? alive.erase(report.snapshot), deleted[report.snapshot] = report.seed : alive[report.snapshot] = report.seed;
    }
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "ended by itself: " << WEXITSTATUS(status);
    Open();
    Rig rig(*path_, clock_);
    ASSERT_TRUE(rig.Make().Recover().ok());
    const auto after = rig.Run(clock_.Now(), AtOnce());
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(after->chunks_rescued(), 0);
    for (const auto& [id, seed] : alive) {
      const auto bytes = path_->ReadBack(id);
      ASSERT_TRUE(bytes.ok()) << id << " " << bytes.status();
      EXPECT_TRUE(*bytes == ingest::WholeOf(DatabaseOf(seed)));
    }
    path_.reset();
  }
}

INSTANTIATE_TEST_SUITE_P(Points, PruneKillTest,
                         testing::Values("delete.after_trash", "delete.after_mark", "prune.after_remove", "prune.after_begin",
                                         "prune.after_trash", "prune.after_sweep", "prune.after_copy", "prune.after_switch",
                                         "prune.after_unlink"));

}  // namespace
}  // namespace litefleet::prune
