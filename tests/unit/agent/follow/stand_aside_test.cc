// What comes while the agent stands aside: every state that was committed is had, and none that never was.
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

constexpr uint64_t kFrame = 4096 + 24;

class StandAsideTest : public FollowerTest {
 protected:
  // The connections of the application are made before the agent's: those of a child that is forked later would believe to have its locks.
  // Four tables of pages that no other one shares.
  void Prepare(uint64_t frames, const std::string& more = "") {
    Make();
    app_ = std::make_unique<Application>(path_, 0);
    second_ = std::make_unique<Application>(path_, 0);
    reader_ = std::make_unique<Application>(path_, 0);
    app_->Run(
        "pragma wal_autocheckpoint=0; create table a(v); create table b(v); create table c(v); create table d(v);"
        "insert into a values(zeroblob(3000)); insert into b values(zeroblob(3000)); insert into c values(zeroblob(3000));" +
        more + "; pragma wal_checkpoint(truncate); insert into t values(2, 'b')");
    second_->Run("pragma wal_autocheckpoint=0; select count(*) from t");
    reader_->Run("select count(*) from t");
    checkpoint_bytes_ = frames * kFrame;
    Attach();
  }
  uint64_t WalSize() const { return std::filesystem::file_size(path_ + "-wal"); }
  // They change when a WAL is started over and its first frame was written.
  std::string Salts() const {
    std::ifstream wal(path_ + "-wal", std::ios::binary);
    std::string salts(8, '\0');
    wal.seekg(16);
    wal.read(salts.data(), static_cast<std::streamsize>(salts.size()));
    return salts;
  }
  // Somebody reads what is old, so that rounds come to nothing; then the agent stands aside, and `what` happens in that moment.
  void Aside(std::function<void()> what) {
    reader_->Run("begin; select count(*) from t");
    for (uint64_t bytes = 0; bytes < checkpoint_bytes_ + 10 * kFrame; bytes += 60000)
      app_->Run("insert into t values(null, randomblob(60000))");
    bool rounds = false, stood = false;
    while_aside_ = [&] {
      if (!rounds) return;
      stood = true;
      while_aside_ = nullptr;
      what();
    };
    StepUntil([&] { return follower_->Peek(); });
    follower_->Step(cancel_);
    Settle();  // nothing is kept in memory
    reader_->Run("commit");
    rounds = true;
    StepUntil([&] { return stood; });
    ASSERT_TRUE(stood);
  }
  void StepUntil(const std::function<bool()>& done) {
    for (int i = 0; i < 2000 && !done(); ++i) {
      follower_->Step(cancel_);
      std::this_thread::sleep_for(milliseconds(1));
    }
  }
  // In one transaction, by a cache so small that frames come before the commit.
  static std::string Large(const std::string& table, int pages, const std::string& blob) {
    return fmt::format(
        "with recursive n(i) as (select 1 union all select i + 1 from n where i < {0}) insert into {1} select {2}(3600) from n", pages,
        table, blob);
  }

  std::unique_ptr<Application> app_, second_, reader_;
};

// A transaction too large to be kept commits meanwhile, and its own checkpoint copies all of it: the agent then holds mark 0 with frames
// that nobody has sent, and the next writer starts the WAL over while they are sent.
TEST_F(StandAsideTest, FramesThatAreOverwrittenWhileTheyAreSentAreNoSync) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100, Large("d", 3000, "randomblob")));
  bool overwritten = false, sent = false;
  Aside([&] {
    app_->Run("pragma cache_size=10; update d set v = randomblob(3600); pragma wal_checkpoint(passive)");
    controller_.on_request = [&](const v1::UploadRequest& request) -> absl::Status {
      if (request.message_case() != v1::UploadRequest::kBegin || std::exchange(sent, true)) return absl::OkStatus();
      const std::string before = Salts();
      second_->Run("pragma cache_size=10; " + Large("b", 3500, "zeroblob"));
      overwritten = Salts() != before;
      return absl::OkStatus();
    };
  });
  Settle();
  EXPECT_TRUE(overwritten);
  ExpectShipped();
  EXPECT_EQ(doubts(), 1u);
}

// The WAL was cut off and begun anew by one who has not committed yet: what is behind the place that is known is neither the old
// generation's nor has it the salts of the wal-index.
TEST_F(StandAsideTest, AnEndThatWhoHasNotCommittedYetOverwritesIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    app_->Run("update a set v = randomblob(3000); pragma wal_checkpoint(truncate)");
    second_->Run("pragma cache_size=10; begin immediate; " + Large("d", 300, "randomblob"));
  });
  second_->Run("commit");
  Settle();
  ExpectShipped();
}

// A limit of the journal's size cuts just at the end of a commit, with another one behind it.
TEST_F(StandAsideTest, AnEndThatIsCutOffBetweenTwoCommitsIsInDoubt) {
  ASSERT_NO_FATAL_FAILURE(Prepare(100));
  Aside([&] {
    app_->Run("update a set v = randomblob(3000)");
    const uint64_t size = WalSize();
    app_->Run("update b set v = randomblob(3000)");
    ASSERT_GT(WalSize(), size);
    app_->Run(fmt::format("pragma journal_size_limit={}; pragma wal_checkpoint(passive); update c set v = randomblob(3000)", size));
    ASSERT_EQ(WalSize(), size);
  });
  Settle();
  ExpectShipped();
}

}  // namespace
}  // namespace litefleet::follow
