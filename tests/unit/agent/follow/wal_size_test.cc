// The WAL beside writers that leave the agent less and less room: the three ways of README.md, "Checkpoints".
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

// They change when a WAL is started over.
std::string Salts(const std::string& path) {
  std::ifstream wal(path + "-wal", std::ios::binary);
  std::string salts(8, '\0');
  wal.seekg(16);
  wal.read(salts.data(), static_cast<std::streamsize>(salts.size()));
  return salts;
}

TEST_F(FollowerTest, TheWalStaysSmallBesideAWriterThatNeverCheckpoints) {
  Make();
  Application app(path_, 0);
  app.Run("pragma wal_autocheckpoint=0; insert into t values(2, 'b')");
  checkpoint_bytes_ = 400 << 10;
  Attach();
  for (int i = 0; i < 60; ++i) {
    for (int k = 0; k < 5; ++k)
      app.Run(fmt::format("insert into t values(null, randomblob(20000)); update t set v = randomblob(500) where id = {}", k));
    Settle();
  }
  ExpectShipped();
  EXPECT_EQ(doubts(), 0u);
  EXPECT_LT(std::filesystem::file_size(path_ + "-wal"), 2u * checkpoint_bytes_ + (200u << 10));
}

// It leaves no gap in which the agent could copy the rest: the agent stands aside, and the writer starts its WAL over as it would alone.
// How often the agent then doubts the end of what it left is the machine's: a doubt costs a comparison of pages, and loses nothing.
TEST_F(FollowerTest, AWriterWithoutAnyPauseStartsItsWalOver) {
  Make();
  Application app(path_, 0);
  app.Run("pragma wal_autocheckpoint=100; pragma synchronous=normal; insert into t values(2, 'b')");
  checkpoint_bytes_ = 100 * 4120;
  Attach();
  std::string many;
  for (int i = 0; i < 700; ++i) many += "insert into t values(null, randomblob(900)); update t set v = randomblob(90) where id = 2;";
  uint64_t largest = 0;
  for (int round = 0; round < 3; ++round) {
    app.Begin(many);
    std::atomic<bool> done{false};
    int rc = -1;
    std::thread waits([&] {
      rc = app.End();
      done.store(true);
    });
    while (!done.load()) {
      if (follower_->Glance()) follower_->Step(cancel_);
      largest = std::max<uint64_t>(largest, std::filesystem::file_size(path_ + "-wal"));
    }
    waits.join();
    ASSERT_EQ(rc, SQLITE_OK) << "nothing of the agent's is in its way";
  }
  Settle();
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  // 4,200 commits of two frames and more.
  EXPECT_LT(largest, 4200u * 2 * 4120 / 2) << "it was never started over";
}

// Two of them, neither of which checkpoints: without the write lock there is never a moment in which all has been copied.
TEST_F(FollowerTest, ARestartBoundsTheWalOfWritersWithoutAnyPauseWhereItIsAllowed) {
  Make();
  Application app(path_, 5000), second(path_, 5000);
  app.Run("pragma wal_autocheckpoint=0; pragma synchronous=off; insert into t values(2, 'b')");
  second.Run("pragma wal_autocheckpoint=0; pragma synchronous=off; select count(*) from t");
  checkpoint_bytes_ = 50 * 4120;
  allow_restart_ = true;
  Attach();
  const std::string before = Salts(path_);
  std::string many;
  for (int i = 0; i < 1200; ++i) many += "insert into t values(null, randomblob(900));";
  for (int round = 0; round < 2 || (round < 30 && Salts(path_) == before); ++round) {
    app.Begin(many);
    second.Begin(many);
    std::atomic<int> done{0};
    int rc = -1, second_rc = -1;
    std::thread waits([&] {
      rc = app.End();
      ++done;
    });
    std::thread waits_too([&] {
      second_rc = second.End();
      ++done;
    });
    while (done.load() < 2) {
      if (follower_->Glance()) follower_->Step(cancel_);
    }
    waits.join();
    waits_too.join();
    ASSERT_EQ(rc, SQLITE_OK);
    ASSERT_EQ(second_rc, SQLITE_OK);
  }
  Settle();
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  EXPECT_NE(Salts(path_), before) << "it was never started over";
}

}  // namespace
}  // namespace litefleet::follow
