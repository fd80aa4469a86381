#include "agent/spool/snapshot_spool.h"

#include <fstream>

#include "common/base/ids.h"
#include "common/io/file.h"
#include "tests/unit/agent/spool/spool_fixture.h"

namespace litefleet::spool {
namespace {

using SnapshotSpoolTest = SpoolTest;

TEST_F(SnapshotSpoolTest, WhatIsSpooledArrivesInItsOrderWithItsTimes) {
  BackUp();
  std::vector<int64_t> taken;
  for (int i = 0; i < 6; ++i) {
    Change(200 + static_cast<uint32_t>(dice_() % 100));
    const Taken one = TakeNow();
    ASSERT_TRUE(one.status.ok()) << one.status;
    taken.push_back(ToUnixMillis(one.taken_at));
  }
  EXPECT_EQ(spool_->UsageOf("app").snapshots, 6U);
  Reopen();
  EXPECT_EQ(spool_->Total().snapshots, 6U);
  clock_.Advance(std::chrono::hours(2));
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_, taken);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_TRUE(Gaps().empty());
  const auto commits = controller_->commits();
  ASSERT_EQ(commits.size(), 7U);
  for (size_t i = 0; i < 6; ++i) {
    EXPECT_EQ(TimestampMillis(commits[i + 1].taken_at()), taken[i]);
    EXPECT_EQ(commits[i + 1].age().seconds(), 7200 + 60 * static_cast<int64_t>(5 - i)) << "by the boot clock";
  }
  // The ledger is where the controller is: the next backup sends what changed since then.
  const int64_t before = controller_->received_chunks();
  Change(200, 1);
  BackUp();
  EXPECT_LE(controller_->received_chunks() - before, 2);
}

TEST_F(SnapshotSpoolTest, WhatHooksSaidStaysWithItsSnapshot) {
  BackUp();
  const auto runs = [](int code) {
    v1::HookRun run;
    run.set_hook("after-backup");
    run.set_exit_code(code);
    return std::vector<v1::HookRun>{run};
  };
  const auto codes = [&] {
    std::vector<int> all;
    for (const SpooledSnapshot& snapshot : spool_->List("app")) {
      const std::vector<v1::HookRun> kept = spool_->HooksOf(snapshot);
      all.push_back(kept.size() == 1 ? kept[0].exit_code() : -1);
    }
    return all;
  };
  for (int i = 0; i < 4; ++i) {
    Change(200 + static_cast<uint32_t>(i));
    ASSERT_TRUE(TakeNow().status.ok());
    if (i == 1) continue;
    ASSERT_TRUE(spool_->KeepHooks(*spool_->Newest("app"), runs(i)).ok());
  }
  Reopen();
  EXPECT_EQ(codes(), (std::vector<int>{0, -1, 2, 3}));
  // What is merged away takes them along.
  ASSERT_TRUE(spool_->MergeOldest("app", kSpoolFull, {}).ok());
  ASSERT_TRUE(spool_->MergeOldest("app", kSpoolFull, {}).ok());
  EXPECT_EQ(codes(), (std::vector<int>{2, 3}));
  // A cut between snapshot and hooks leaves nothing for ever, and nothing that is damaged is believed.
  const std::string orphan = directory_ + "/spooled/app/00000000000000ff.hooks";
  std::ofstream(orphan) << "x";
  const std::string last = spool_->List("app").back().path;
  std::ofstream(last.substr(0, last.size() - 8) + ".hooks") << "\x08\xff";
  Reopen();
  EXPECT_FALSE(io::Exists(orphan));
  EXPECT_EQ(codes(), (std::vector<int>{2, -1}));
  ASSERT_TRUE(DrainNow().ok());
  for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/spooled/app")) {
    const std::string ending = entry.path().extension();
    EXPECT_TRUE(ending != ".hooks" && ending != ".spooled") << entry.path();
  }
}

TEST_F(SnapshotSpoolTest, AFirstBackupIsSpooledWhole) {
  ASSERT_TRUE(TakeNow().status.ok());
  Change(180);
  ASSERT_TRUE(TakeNow().status.ok());
  EXPECT_TRUE(spool_->List("app")[0].full());
  EXPECT_FALSE(spool_->List("app")[1].full());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_.size(), 2U);
  ASSERT_TRUE(ledger_->state().has_value());
  EXPECT_EQ(ledger_->state()->page_count, 180U);
}

TEST_F(SnapshotSpoolTest, WhatDidNotChangeIsNotSpooledAgain) {
  BackUp();
  const Taken none = TakeNow();
  ASSERT_TRUE(none.status.ok());
  EXPECT_EQ(none.id, "");
  Change(200);
  ASSERT_FALSE(TakeNow().id.empty());
  EXPECT_EQ(TakeNow().id, "");
  EXPECT_EQ(spool_->Total().snapshots, 1U);
}

TEST_F(SnapshotSpoolTest, MergedDeltasAreWhatTheyWereOneAfterTheOther) {
  for (int round = 0; round < 12; ++round) {
    Change(100 + static_cast<uint32_t>(dice_() % 200), 20);
    BackUp();
    const int count = 2 + static_cast<int>(dice_() % 5);
    for (int i = 0; i < count; ++i) {
      Change(50 + static_cast<uint32_t>(dice_() % 300), static_cast<int>(dice_() % 30));
      ASSERT_TRUE(TakeNow().status.ok());
    }
    const size_t merges = spool_->List("app").empty() ? 0 : dice_() % spool_->List("app").size();
    const uint32_t before = spool_->Total().snapshots;
    for (size_t i = 0; i < merges; ++i) ASSERT_TRUE(spool_->MergeOldest("app", kSpoolFull, io::DiskReserve(0)).ok());
    EXPECT_EQ(spool_->Total().snapshots, before - merges);
    if (merges > 0) {
      EXPECT_EQ(spool_->List("app")[0].header.merged(), merges);
    }
    if (dice_() % 2 == 0) Reopen();
    const auto gaps = Gaps();
    EXPECT_EQ(gaps.size(), merges > 0 ? 1U : 0U) << "gaps that touch are one";
    if (merges > 0) {
      EXPECT_EQ(gaps[0].snapshots(), merges);
    }
    ASSERT_TRUE(DrainNow().ok());
    EXPECT_EQ(spool_->Total().snapshots, 0U);
  }
}

TEST_F(SnapshotSpoolTest, ASmallSpoolMergesAndSaysSo) {
  BackUp();
  const uint64_t cap = 130 << 10;  // half of a page's bytes compress
  const int64_t base = acknowledged_at_ms_;
  for (int i = 0; i < 20; ++i) {
    Change(60, 4);
    const Taken taken = TakeNow(cap);
    ASSERT_TRUE(taken.status.ok()) << taken.status;
    ASSERT_FALSE(taken.id.empty());
    EXPECT_LE(static_cast<uint64_t>(spool_->Total().bytes), cap);
  }
  EXPECT_LT(spool_->Total().snapshots, 20U);
  const auto chain = spool_->List("app");
  ASSERT_FALSE(chain.empty());
  uint32_t merged = 0;
  for (const SpooledSnapshot& snapshot : chain) merged += snapshot.header.merged();
  EXPECT_EQ(merged + chain.size(), 20U);
  const auto gaps = Gaps();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].reason(), "SPOOL_FULL");
  EXPECT_EQ(gaps[0].snapshots(), merged);
  EXPECT_EQ(TimestampMillis(gaps[0].from()), base);
  EXPECT_EQ(TimestampMillis(gaps[0].until()), chain[0].header.taken_at_ms());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

TEST_F(SnapshotSpoolTest, AFullSpoolMergesWhatOtherDatabasesHaveTheOldestFirst) {
  BackUp();
  for (const char* other : {"log", "mail"}) {
    for (int i = 0; i < 6; ++i) ASSERT_TRUE(TakeOther(other, 30, 20).status.ok());
  }
  ASSERT_EQ(spool_->UsageOf("log").snapshots, 6U);
  Change(60, 40);
  // What there is and half of what comes.
  const auto cap = static_cast<uint64_t>(spool_->Total().bytes) + (30 << 10);
  std::optional<SnapshotSpool::Use> uploads(spool_->Hold("log"));
  ASSERT_TRUE(TakeNow(cap).status.ok());
  EXPECT_EQ(spool_->UsageOf("log").snapshots, 6U) << "one that is in use is left alone";
  EXPECT_LT(spool_->UsageOf("mail").snapshots, 6U);
  EXPECT_LE(static_cast<uint64_t>(spool_->Total().bytes), cap);
  uploads.reset();
  Change(60, 55);
  ASSERT_TRUE(TakeNow(static_cast<uint64_t>(spool_->Total().bytes) + (30 << 10)).status.ok());
  EXPECT_LT(spool_->UsageOf("log").snapshots, 6U);
  bool log = false;
  for (const v1::CoverageGap& gap : Gaps()) log |= gap.database() == "log" && gap.reason() == kSpoolFull && gap.has_until();
  EXPECT_TRUE(log) << "what was merged is a gap of its database";
  check_content_ = false;
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

TEST_F(SnapshotSpoolTest, OfSeveralOtherDatabasesTheOneWithTheOldestStatesGivesWay) {
  BackUp();
  // The first by name has the newer ones.
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(TakeOther("mail", 30, 20).status.ok());
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(TakeOther("log", 30, 20).status.ok());
  Change(60, 40);
  // More room than that is made by what `mail` has alone.
  ASSERT_TRUE(TakeNow(static_cast<uint64_t>(spool_->Total().bytes) + (30 << 10)).status.ok());
  EXPECT_LT(spool_->UsageOf("mail").snapshots, 6U);
  EXPECT_EQ(spool_->UsageOf("log").snapshots, 2U);
  for (const v1::CoverageGap& gap : Gaps()) EXPECT_EQ(gap.database(), "mail");
}

TEST_F(SnapshotSpoolTest, ChunksAreCompressedAtTheLevelThatIsConfigured) {
  std::string text;
  while (text.size() < size_t{200} * kPage) text += fmt::format("{} items of kind {}\n", dice_() % 1000, dice_() % 50);
  text.resize(size_t{200} * kPage);
  content_ = text;
  level_ = 1;
  const Taken fast = TakeNow();
  ASSERT_TRUE(fast.status.ok() && DrainNow().ok());
  ledger_->Remove().IgnoreError();
  level_ = 19;
  const Taken small = TakeNow();
  ASSERT_TRUE(small.status.ok()) << small.status;
  EXPECT_LT(small.bytes * 100, fast.bytes * 90);
}

TEST_F(SnapshotSpoolTest, WhatDoesNotFitLeavesWhatThereIs) {
  BackUp();
  Change(200, 3);
  ASSERT_TRUE(TakeNow(100 << 10).status.ok());
  Change(200, 150);  // more than a spool of this size holds, whatever is merged
  const Taken large = TakeNow(100 << 10);
  EXPECT_EQ(ReasonOf(large.status), "SPOOL_FULL");
  EXPECT_EQ(spool_->Total().snapshots, 1U);
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_.size(), 1U);
}

TEST_F(SnapshotSpoolTest, WhatFitsInThePlaceOfAllTakesIt) {
  BackUp();
  const std::string first = content_;
  Change(200, 20);
  ASSERT_TRUE(TakeNow(60 << 10).status.ok());
  content_ = first;  // it is nearly what the controller has again
  Change(200, 18);
  const Taken taken = TakeNow(60 << 10);
  ASSERT_TRUE(taken.status.ok()) << taken.status;
  const auto chain = spool_->List("app");
  ASSERT_EQ(chain.size(), 1U);
  EXPECT_EQ(chain[0].header.merged(), 1U);
  EXPECT_EQ(chain[0].header.base_spooled_id(), "");
  EXPECT_EQ(Gaps().size(), 1U);
  Reopen();
  ASSERT_TRUE(DrainNow().ok());
}

TEST_F(SnapshotSpoolTest, OldStatesGoIntoTheNextAndTheLastOneGoes) {
  BackUp();
  for (int i = 0; i < 4; ++i) {
    Change(200);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  const io::DiskReserve none(0);
  ASSERT_TRUE(spool_->Expire("app", std::chrono::milliseconds(0), none).ok()) << "no age, no end";
  EXPECT_EQ(spool_->Total().snapshots, 4U);
  // A clock that is set a year ahead expires nothing: the boot clock says how old they are.
  clock_.JumpSystem(std::chrono::hours(24 * 365));
  ASSERT_TRUE(spool_->Expire("app", std::chrono::hours(1), none).ok());
  EXPECT_EQ(spool_->Total().snapshots, 4U);
  clock_.JumpSystem(-std::chrono::hours(24 * 365));
  clock_.Advance(std::chrono::minutes(60) - std::chrono::seconds(90));
  ASSERT_TRUE(spool_->Expire("app", std::chrono::hours(1), none).ok());
  EXPECT_EQ(spool_->Total().snapshots, 2U);
  auto gaps = Gaps();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(gaps[0].reason(), "SPOOL_EXPIRED");
  EXPECT_EQ(gaps[0].snapshots(), 2U);
  clock_.Advance(std::chrono::hours(2));
  ASSERT_TRUE(spool_->Expire("app", std::chrono::hours(1), none).ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 1U) << "until there is a state again";
  Change(200);
  const Taken next = TakeNow();
  ASSERT_TRUE(next.status.ok()) << next.status;
  ASSERT_TRUE(spool_->EndGaps("app", next.taken_at).ok());
  EXPECT_TRUE(gaps_->OpenGaps("app").empty());
  ASSERT_TRUE(DrainNow().ok());
}

TEST_F(SnapshotSpoolTest, WhatCannotBeReadIsMovedAsideWithWhatIsBuiltOnIt) {
  BackUp();
  for (int i = 0; i < 3; ++i) {
    Change(200);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  const auto chain = spool_->List("app");
  std::ofstream(chain[1].path, std::ios::trunc) << "rubbish";
  Reopen();
  EXPECT_EQ(spool_->Total().snapshots, 1U);
  EXPECT_EQ(said_.size(), 2U);
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 1U);
  EXPECT_EQ(gaps_->OpenGaps("app")[0].reason(), "SPOOLED_DAMAGED");
  EXPECT_EQ(FromProtoTime(gaps_->OpenGaps("app")[0].from()), chain[0].taken_at());
  EXPECT_TRUE(std::filesystem::exists(chain[1].path + ".damaged"));
  EXPECT_TRUE(std::filesystem::exists(chain[2].path + ".damaged"));
  Change(200);
  const Taken next = TakeNow();
  ASSERT_TRUE(next.status.ok()) << "what is left can be gone on from";
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
  const auto gaps = Gaps();
  ASSERT_EQ(gaps.size(), 1U);
  EXPECT_EQ(FromProtoTime(gaps[0].from()), chain[0].taken_at()) << "also when that had arrived";
  EXPECT_EQ(FromProtoTime(gaps[0].until()), next.taken_at);
}

TEST_F(SnapshotSpoolTest, AChunkThatWentBadIsNeverUploaded) {
  BackUp();
  Change(200, 40);
  ASSERT_TRUE(TakeNow().status.ok());
  const std::string path = spool_->List("app")[0].path;
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(path) / 2));
    file.put('\x55');
    file.put('\x55');
  }
  const int64_t commits = static_cast<int64_t>(controller_->commits().size());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(static_cast<int64_t>(controller_->commits().size()), commits);
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 1U);
}

TEST_F(SnapshotSpoolTest, WithoutItsBaseWhatIsSpooledIsAGap) {
  BackUp();
  for (int i = 0; i < 2; ++i) {
    Change(200);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  controller_ = std::make_unique<fakes::FakeUploadController>();  // one that knows nothing
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  const auto open = gaps_->OpenGaps("app");
  ASSERT_EQ(open.size(), 1U);
  EXPECT_EQ(open[0].reason(), "SPOOL_BASE_GONE");
  EXPECT_EQ(open[0].snapshots(), 2U);
}

TEST_F(SnapshotSpoolTest, WithoutTheLedgerItIsUploadedAllTheSame) {
  BackUp();
  for (int i = 0; i < 3; ++i) {
    Change(200);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  ASSERT_TRUE(ledger_->Remove().ok());
  std::filesystem::remove(spool_->LedgerFile("app"));
  Reopen();
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_.size(), 3U);
  EXPECT_TRUE(controller_->Content() == content_);
}

TEST_F(SnapshotSpoolTest, ALedgerThatIsLostMeanwhileIsMadeAnewFromTheFiles) {
  BackUp();
  for (int i = 0; i < 3; ++i) {
    Change(200 + 10 * static_cast<uint32_t>(i));
    ASSERT_TRUE(TakeNow().status.ok());
  }
  for (const char* ending : {"", "-log"}) std::filesystem::remove(spool_->LedgerFile("app") + ending);
  Change(210, 1);
  ASSERT_TRUE(TakeNow().status.ok());
  EXPECT_LT(spool_->List("app")[3].bytes, 50U << 10) << "what changed, and not all of it";
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_.size(), 4U);
}

TEST_F(SnapshotSpoolTest, ALinkThatIsCutLeavesTheRest) {
  BackUp();
  for (int i = 0; i < 4; ++i) {
    Change(200);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  int commits = 0;
  controller_->on_request = [&](const v1::UploadRequest& request) {
    if (!request.has_commit() || ++commits < 3) return absl::OkStatus();
    controller_->connected = false;
    return Error(absl::StatusCode::kUnavailable, "CUT", "cut");
  };
  EXPECT_EQ(ReasonOf(DrainNow()), "CONTROLLER_OFFLINE");
  EXPECT_EQ(spool_->Total().snapshots, 2U);
  controller_->connected = true;
  controller_->on_request = nullptr;
  Change(200);
  ASSERT_TRUE(TakeNow().status.ok()) << "the schedule goes on meanwhile";
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(order_.size(), 5U);
}

TEST_F(SnapshotSpoolTest, AfterABootItsAgeIsNotKnown) {
  ASSERT_TRUE(TakeNow().status.ok());
  const SpooledSnapshot snapshot = spool_->List("app")[0];
  {
    // The same, of another boot.
    const auto file = SpoolFileReader::Open(snapshot.path).value();
    storage::v1::SpooledHeader header = snapshot.header;
    header.set_boot_id("another");
    const auto writer = SpoolFileWriter::Create(snapshot.path, header, {.max_bytes = 64 << 20, .reserve = io::DiskReserve(0)}).value();
    while (const auto chunk = file->Next().value()) ASSERT_TRUE(writer->Add(*chunk).ok());
    ASSERT_TRUE(writer->Finish(file->commit(), 1).ok());
  }
  Reopen();
  ASSERT_TRUE(DrainNow().ok());
  ASSERT_EQ(controller_->commits().size(), 1U);
  EXPECT_FALSE(controller_->commits()[0].has_age());
}

// ---- cuts

struct Cut {
  const char* point;
  const char* scenario;  // take, merge, replace, drain
};

class SpoolCutTest : public SpoolTest, public testing::WithParamInterface<Cut> {};

TEST_P(SpoolCutTest, LeavesAChainThatArrives) {
  BackUp();
  Change(200);
  BackUp();  // the child's controller counts from one, and gives no id twice
  const std::string scenario = GetParam().scenario;
  for (int i = 0; i < 3; ++i) {
    Change(200, 8);
    ASSERT_TRUE(TakeNow().status.ok());
  }
  // In the child: a copy of everything, which is killed.
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    controller_.release();  // its thread is not here
    controller_ = std::make_unique<fakes::FakeUploadController>();
    setenv("LITEFLEET_CRASH_AT", GetParam().point, 1);
    if (scenario == "take") Change(200, 8), TakeNow();
    if (scenario == "merge") spool_->MergeOldest("app", kSpoolFull, io::DiskReserve(0)).IgnoreError();
    if (scenario == "drain") {
      check_content_ = false;
      // A controller of its own: it gets all pages first.
      const auto base = SpoolFileReader::Open(spool_->List("app")[0].path).value()->header().base_snapshot_id();
      controller_->on_request = [](const v1::UploadRequest&) { return absl::OkStatus(); };
      controller_->Know(base, std::string(size_t{200} * kPage, '\0'));
      DrainNow().IgnoreError();
    }
    _exit(1);  // it should not come here
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the crash point was not passed";
  Reopen();
  const auto chain = spool_->List("app");
  ASSERT_FALSE(chain.empty());
  for (size_t i = 1; i < chain.size(); ++i) EXPECT_EQ(chain[i].header.base_spooled_id(), chain[i - 1].id());
  if (scenario == "take") {
    // The clock of the child went with it: what it took has the time of the next one.
    EXPECT_EQ(chain.size() >= 3 && chain.size() <= 4, true);
    if (chain.size() == 4) {
      Change(200, 8);
      wanted_[chain[3].header.taken_at_ms()] = content_;
    }
  }
  if (scenario == "merge") {
    const bool begun = std::string(GetParam().point) != "spooled.writing";
    EXPECT_EQ(chain.size(), begun ? 2U : 3U);
    EXPECT_EQ(Gaps().size(), begun ? 1U : 0U) << "what was lost is known";
  }
  if (scenario == "drain") {
    // The controller that acknowledged is gone in this test: what is left is what was not removed.
    EXPECT_EQ(chain.size(), std::string(GetParam().point) == "spooled.removed" ? 2U : 3U);
    if (std::string(GetParam().point) == "spooled.removed") {
      EXPECT_EQ(spool_->ReadState("app").acknowledged_spooled_id(), chain[0].header.base_spooled_id());
      return;
    }
    if (const auto state = spool_->ReadState("app"); state.acknowledged_spooled_id() == chain[0].id()) {
      // It is not uploaded again: this controller has what that of the child had.
      controller_->Know(state.acknowledged_snapshot_id(), wanted_[chain[0].header.taken_at_ms()]);
      check_content_ = false;
    }
  }
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_EQ(order_.size(), check_content_ ? chain.size() : 0U);
  // And the spool goes on.
  Change(200, 4);
  ASSERT_TRUE(TakeNow().status.ok());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
}

INSTANTIATE_TEST_SUITE_P(Points, SpoolCutTest,
                         testing::Values(Cut{"spooled.writing", "take"}, Cut{"spooled.renamed", "take"},
                                         Cut{"ledger.before_commit", "take"}, Cut{"ledger.committed", "take"}, Cut{"spooled.taken", "take"},
                                         Cut{"spooled.writing", "merge"}, Cut{"spooled.merged", "merge"}, Cut{"gaps.written", "merge"},
                                         Cut{"spooled.gap", "merge"}, Cut{"spooled.dropped", "merge"}, Cut{"spooled.acknowledged", "drain"},
                                         Cut{"spooled.recorded", "drain"}, Cut{"ledger.before_commit", "drain"},
                                         Cut{"spooled.ledger", "drain"}, Cut{"spooled.removed", "drain"}),
                         [](const auto& cut) {
                           std::string name = fmt::format("{}_{}", cut.param.scenario, cut.param.point);
                           for (char& c : name) c = c == '.' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace litefleet::spool
