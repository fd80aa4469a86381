// Between the acknowledgement of a snapshot and its removal: whatever ends it there, what is behind it arrives.
#include <fstream>

#include "tests/unit/agent/spool/spool_fixture.h"

namespace litefleet::spool {
namespace {

class SpoolAcknowledgedTest : public SpoolTest {
 protected:
  void SetUp() override {
    BackUp();
    Change(200);
    BackUp();  // the controller of a child counts from one, and gives no id twice
    for (int i = 0; i < 3; ++i) {
      Change(200, 8);
      ASSERT_TRUE(TakeNow().status.ok());
    }
    chain_ = spool_->List("app");
    ASSERT_EQ(chain_.size(), 3U);
  }
  // The second acknowledgement cannot be written.
  absl::Status DrainUntilTheDiskIsFull() {
    DrainJob job;
    job.database = "app";
    job.ledger = ledger_.get();
    job.give_up_at = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    job.offline_after = std::chrono::milliseconds(30);
    job.acknowledged = [this](const SpooledSnapshot& snapshot, const std::string&, const v1::Progress&) {
      return snapshot.id() == chain_[1].id() ? ErrnoError(ENOSPC, "write results") : absl::OkStatus();
    };
    return Drain(*spool_, job, options_, *controller_, rate_, cancel_);
  }
  std::vector<std::string> Ids() const {
    std::vector<std::string> ids;
    for (const SpooledSnapshot& snapshot : spool_->List("app")) ids.push_back(snapshot.id());
    return ids;
  }
  void ExpectTheRestArrives() {
    check_content_ = false;
    ASSERT_TRUE(DrainNow().ok());
    EXPECT_EQ(spool_->Total().snapshots, 0U);
    EXPECT_TRUE(controller_->Content() == content_) << "the last one";
    EXPECT_TRUE(Gaps().empty());
    // And the spool goes on.
    Change(200, 4);
    ASSERT_TRUE(TakeNow().status.ok());
    EXPECT_FALSE(spool_->List("app")[0].full()) << "what the controller has is known";
    ASSERT_TRUE(DrainNow().ok());
    EXPECT_TRUE(controller_->Content() == content_);
  }

  std::vector<SpooledSnapshot> chain_;
};

TEST_F(SpoolAcknowledgedTest, AFullDiskLosesNothing) {
  EXPECT_EQ(ReasonOf(DrainUntilTheDiskIsFull()), "DISK_FULL");
  EXPECT_EQ(Ids(), (std::vector<std::string>{chain_[1].id(), chain_[2].id()}));
  EXPECT_EQ(spool_->ReadState("app").acknowledged_spooled_id(), chain_[1].id());
  const size_t commits = controller_->commits().size();
  EXPECT_EQ(ReasonOf(DrainUntilTheDiskIsFull()), "DISK_FULL") << "again";
  EXPECT_EQ(controller_->commits().size(), commits) << "it is not uploaded twice";
  ExpectTheRestArrives();
}

TEST_F(SpoolAcknowledgedTest, NorDoesAStart) {
  EXPECT_EQ(ReasonOf(DrainUntilTheDiskIsFull()), "DISK_FULL");
  Reopen();
  EXPECT_TRUE(said_.empty());
  EXPECT_EQ(Ids(), (std::vector<std::string>{chain_[1].id(), chain_[2].id()}));
  ExpectTheRestArrives();
}

TEST_F(SpoolAcknowledgedTest, ItIsMergedIntoNothing) {
  EXPECT_EQ(ReasonOf(DrainUntilTheDiskIsFull()), "DISK_FULL");
  ASSERT_TRUE(spool_->MergeOldest("app", kSpoolFull, io::DiskReserve(0)).ok());
  EXPECT_EQ(Ids(), (std::vector<std::string>{chain_[2].id()}));
  EXPECT_EQ(spool_->List("app")[0].header.base_spooled_id(), chain_[1].id());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
  EXPECT_TRUE(Gaps().empty()) << "the controller has them all";
}

TEST_F(SpoolAcknowledgedTest, ItDoesNotExpire) {
  EXPECT_EQ(ReasonOf(DrainUntilTheDiskIsFull()), "DISK_FULL");
  clock_.Advance(std::chrono::hours(24));
  Change(200, 8);
  ASSERT_TRUE(TakeNow().status.ok());
  ASSERT_TRUE(spool_->Expire("app", std::chrono::hours(1), io::DiskReserve(0)).ok());
  ASSERT_EQ(Ids().size(), 1U);
  const auto gaps = gaps_->OpenGaps("");
  EXPECT_TRUE(gaps.empty());
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_TRUE(controller_->Content() == content_);
  const auto all = Gaps();
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(FromProtoTime(all[0].from()), chain_[1].taken_at()) << "the third is what is missing";
}

class SpoolAcknowledgedCutTest : public SpoolAcknowledgedTest, public testing::WithParamInterface<const char*> {};

TEST_P(SpoolAcknowledgedCutTest, WhatIsBehindItArrives) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    controller_.release();  // its thread is not here
    controller_ = std::make_unique<fakes::FakeUploadController>();
    controller_->Know(chain_[0].header.base_snapshot_id(), std::string(size_t{200} * kPage, '\0'));
    check_content_ = false;
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    DrainNow().IgnoreError();
    _exit(1);  // it should not come here
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the crash point was not passed";
  Reopen();
  const storage::v1::SpoolState state = spool_->ReadState("app");
  ASSERT_EQ(state.acknowledged_spooled_id(), chain_[1].id());
  EXPECT_EQ(Ids(), (std::vector<std::string>{chain_[1].id(), chain_[2].id()}));
  // The controller of the child is gone: this one has what that had.
  controller_->Know(state.acknowledged_snapshot_id(), wanted_[chain_[1].header.taken_at_ms()]);
  ExpectTheRestArrives();
}

INSTANTIATE_TEST_SUITE_P(Points, SpoolAcknowledgedCutTest,
                         testing::Values("spooled.recorded:2", "ledger.before_commit:2", "ledger.committed:2", "spooled.ledger:2"),
                         [](const auto& point) {
                           std::string name = point.param;
                           for (char& c : name) c = c == '.' || c == ':' ? '_' : c;
                           return name;
                         });

// ---- what the disk does not give back

// A directory stands for a sector that fails: it can be opened, and not read.
TEST_F(SpoolAcknowledgedTest, WhatTheDiskDoesNotGiveBackIsMovedAside) {
  std::filesystem::rename(chain_[1].path, directory_ + "/kept");
  std::filesystem::create_directory(chain_[1].path);
  EXPECT_EQ(ReasonOf(SpoolFileReader::Open(chain_[1].path).status()), "SPOOLED_DAMAGED");
  Reopen();
  EXPECT_EQ(said_.size(), 2U);
  EXPECT_EQ(Ids(), (std::vector<std::string>{chain_[0].id()}));
  EXPECT_TRUE(std::filesystem::exists(chain_[1].path + ".damaged"));
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 1U);
}

TEST_F(SpoolAcknowledgedTest, WhatIsLostSinceTheStartIsGivenUp) {
  const auto file = SpoolFileReader::Open(chain_[2].path).value();
  std::filesystem::resize_file(chain_[2].path, 600);
  absl::StatusOr<std::optional<StoredChunk>> chunk = file->Next();
  EXPECT_EQ(ReasonOf(chunk.status()), "SPOOLED_DAMAGED");
  ASSERT_TRUE(DrainNow().ok());
  EXPECT_EQ(spool_->Total().snapshots, 0U);
  EXPECT_EQ(gaps_->OpenGaps("app").size(), 1U);
}

// The newest one: nothing but the gap tells of it.
TEST_F(SpoolAcknowledgedTest, ACutBesideAFileThatIsMovedAsideLosesNoGap) {
  std::ofstream(chain_[2].path, std::ios::trunc) << "rubbish";
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    controller_.release();  // its thread is not here
    setenv("LITEFLEET_CRASH_AT", "gaps.written", 1);
    Reopen();
    _exit(1);  // it should not come here
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the crash point was not passed";
  EXPECT_TRUE(std::filesystem::exists(chain_[2].path)) << "the gap comes first";
  Reopen();
  EXPECT_TRUE(std::filesystem::exists(chain_[2].path + ".damaged"));
  ASSERT_EQ(gaps_->OpenGaps("app").size(), 1U);
  EXPECT_EQ(FromProtoTime(gaps_->OpenGaps("app")[0].from()), chain_[1].taken_at());
}

}  // namespace
}  // namespace litefleet::spool
