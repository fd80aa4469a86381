// That what was captured is what the database is, also where somebody writes all the time.
#include <gmock/gmock.h>

#include <string>

#include "common/base/proto_time.h"
#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class ProofTest : public FollowerTest {
 protected:
  ProofTest() {
    prove_every_ = std::chrono::hours(24);
    lease_ = std::chrono::hours(1);  // by a clock that goes with each look the lease would bound how busy the machine may be
  }
  void Prepare(int extents) {
    Make();
    app_ = std::make_unique<Application>(path_, 20'000);
    app_->Run(
        fmt::format("with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into t select null, "
                    "randomblob(260000) from n; pragma wal_checkpoint(truncate); insert into t values(null, 'x')",
                    extents));
    Attach();
  }
  // A day later the next step proves it.
  void StepADayLater() {
    clock_.Advance(std::chrono::hours(25));
    ASSERT_TRUE(follower_->Glance());
    follower_->Step(cancel_);
  }
  SystemTime CheckedAt() const { return FromProtoTime(follower_->status().health.chain_checked_at()); }

  std::unique_ptr<Application> app_;
};

// A commit between each sync and the look of the proof.
TEST_F(ProofTest, ADatabaseThatIsWrittenAllTheTimeIsProven) {
  Prepare(2);
  const SystemTime before = CheckedAt();
  home_.on_begin_compare = [&] { app_->Run("insert into t values(null, 'just then')"); };
  StepADayLater();
  ASSERT_EQ(home_.on_begin_compare, nullptr);
  ASSERT_EQ(home_.chain_checks.size(), 1u);
  EXPECT_EQ(home_.chain_checks[0].root_digest(), controller_.commits().back().root_digest());
  EXPECT_GT(CheckedAt() - before, std::chrono::hours(24));
  EXPECT_EQ(doubts(), 0u);
  Settle();
  ExpectShipped();
}

// Syncs go on meanwhile.
TEST_F(ProofTest, ALargeDatabaseIsProvenBesideAWriter) {
  Prepare(30);
  const size_t before = controller_.commits().size();
  int looks = 0;
  clock_.on_look = [&] {
    if (++looks % 5 == 0) app_->Run("insert into t values(null, 'meanwhile')");
  };
  clock_.Advance(std::chrono::hours(25));
  clock_.EachLook(milliseconds(500));
  follower_->Step(cancel_);
  clock_.EachLook(milliseconds(0));
  ASSERT_EQ(home_.chain_checks.size(), 1u);
  EXPECT_GT(controller_.commits().size(), before + 5);
  EXPECT_EQ(doubts(), 0u);
  EXPECT_FALSE(follower_->status().health.has_chain_overdue_since());
  Settle();
  ExpectShipped();
}

TEST_F(ProofTest, AProofThatIsAlwaysPutOffIsSaid) {
  checkpoint_bytes_ = 4120;
  most_behind_ = 100;
  Prepare(30);
  int looks = 0;
  clock_.on_look = [&] {
    if (++looks % 5 == 0) app_->Run("insert into t values(null, zeroblob(20000))");
  };
  for (int day = 1; day <= 3; ++day) {
    SCOPED_TRACE(day);
    EXPECT_FALSE(follower_->status().health.has_chain_overdue_since());
    clock_.Advance(std::chrono::hours(24));
    clock_.EachLook(milliseconds(500));
    home_.on_begin_compare = [] {};
    for (int i = 0; i < 10 && home_.on_begin_compare != nullptr; ++i) follower_->Step(cancel_);
    clock_.EachLook(milliseconds(0));
    ASSERT_EQ(home_.on_begin_compare, nullptr) << "it was not tried";
    Settle();
  }
  EXPECT_TRUE(home_.chain_checks.empty());
  EXPECT_TRUE(follower_->status().health.has_chain_overdue_since());
  // Nobody writes: it is done, and the alarm is over.
  clock_.on_look = nullptr;
  StepADayLater();
  EXPECT_EQ(home_.chain_checks.size(), 1u);
  EXPECT_FALSE(follower_->status().health.has_chain_overdue_since());
}

// A device that is started every morning is checked all the same.
TEST_F(ProofTest, AStartDoesNotPutItOff) {
  Prepare(2);
  home_.rested.chain_checked_at = clock_.Now() - std::chrono::hours(30);
  Stop();
  Attach();
  EXPECT_EQ(CheckedAt(), FromUnixMillis(ToUnixMillis(*home_.rested.chain_checked_at)));
  clock_.Advance(std::chrono::seconds(61));
  Settle();
  EXPECT_EQ(home_.chain_checks.size(), 1u);
}

TEST_F(ProofTest, AnApplicationsCheckpointDoesNotWaitForIt) {
  Prepare(30);
  int looks = 0;
  bool asked = false;
  clock_.on_look = [&] {
    if (++looks != 20) return;
    app_->Run("insert into t values(null, 'newer')");
    app_->Begin("checkpoint full");
    asked = true;
  };
  clock_.Advance(std::chrono::hours(25));
  clock_.EachLook(milliseconds(20));
  follower_->Step(cancel_);
  clock_.EachLook(milliseconds(0));
  ASSERT_TRUE(asked);
  StepWhile([&] { return !app_->HasEnded(); });
  EXPECT_EQ(app_->End(), SQLITE_OK);
  Settle();
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
}

}  // namespace
}  // namespace litefleet::follow
