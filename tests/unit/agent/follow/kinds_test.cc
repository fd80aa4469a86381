// Continuous capture of each kind of database, and of databases whose names look like something else.
#include "tests/unit/agent/capture/kinds.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "tests/unit/agent/follow/follower_fixture.h"

namespace litefleet::follow {
namespace {

class FollowedKindTest : public FollowerTest, public ::testing::WithParamInterface<std::string> {
 protected:
  // What the controller has by now, as a database.
  std::string Shipped() {
    std::filesystem::remove(Path("shipped.db"));
    const std::string content = controller_.Content();
    const ByteView bytes = AsBytes(content);
    return Store(Bytes(bytes.begin(), bytes.end()), "shipped.db");
  }
};

TEST_P(FollowedKindTest, IsWhatTheApplicationHas) {
  const capture::Kind kind = capture::KindOf(GetParam());
  capture::MakeKind(path_, GetParam(), "pragma journal_mode=wal;");
  Application app(path_);
  app.Run("create table more(a); insert into more values(1)");
  Attach();
  const std::string before = Query(Shipped(), kind.question);
  app.Run(kind.change);
  Settle();
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  EXPECT_NE(Query(Shipped(), kind.question), before);
  // Everything once more in another place, and the WAL anew.
  app.Run("vacuum; pragma wal_checkpoint(truncate); insert into more values(zeroblob(9000))");
  Settle();
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  EXPECT_EQ(Query(Shipped(), "pragma integrity_check"), "ok");
  EXPECT_EQ(state(), v1::CAPTURE_STATE_FOLLOWING);
  EXPECT_EQ(doubts(), 0u);
}

std::vector<std::string> FollowedKinds() {
  std::vector<std::string> kinds = capture::Kinds();
  std::erase(kinds, "empty_file");  // it has no WAL
  return kinds;
}

INSTANTIATE_TEST_SUITE_P(Follow, FollowedKindTest, ::testing::ValuesIn(FollowedKinds()), [](const auto& each) { return each.param; });

class FollowedNameTest : public FollowerTest, public ::testing::WithParamInterface<const char*> {
 protected:
  FollowedNameTest() : FollowerTest(GetParam()) {}
};

TEST_P(FollowedNameTest, IsTheNameOfAFile) {
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  app.Run("insert into t values(3, 'c')");
  ASSERT_TRUE(follower_->Glance());
  follower_->Step(cancel_);
  ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  app.Run("close");
  Settle();
  EXPECT_EQ(doubts(), 0u);
}

INSTANTIATE_TEST_SUITE_P(Odd, FollowedNameTest,
                         ::testing::Values("-rf.db", "a b'\".db",
                                           "\xc3\xbc"
                                           "ber.db",
                                           "a?mode=memory&x#y%41.db", "file:x.db", ":memory:"));

// The application opens it by its own name, the agent by a link elsewhere: the WAL lies beside the file, not beside the link.
TEST_F(FollowerTest, ALinkIsFollowedToItsDatabase) {
  std::filesystem::create_directory(Path("links"));
  configured_path_ = Path("links/linked.db");
  std::filesystem::create_symlink("../app.db", configured_path_);
  Make();
  Application app(path_);
  app.Run("insert into t values(2, 'b')");
  Attach();
  for (int i = 3; i < 6; ++i) {
    app.Run(fmt::format("insert into t values({}, randomblob(3000))", i));
    ASSERT_TRUE(follower_->Glance());
    follower_->Step(cancel_);
    ASSERT_NO_FATAL_FAILURE(ExpectShipped());
  }
  EXPECT_EQ(doubts(), 0u);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(Path("links")), {}), 1);
}

}  // namespace
}  // namespace litefleet::follow
