// Names of databases that look like something else, and links that somebody who may write to the directory has planted there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/restore/text_fixture.h"

namespace litefleet::restore {
namespace {

class NamesTest : public RestoreFixture, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    path_ = data_ + "/" + GetParam();
    target_.path = path_;
  }
};

TEST_P(NamesTest, AreNamesOfFilesInEveryForm) {
  MakeSnapshot("wal", 300);
  ASSERT_TRUE(Run("01JD0000000000000000000001").status.ok());
  EXPECT_EQ(Label(path_), "new");
  std::filesystem::remove(path_);
  Make(path_, "old", "wal", 300);
  for (const auto& [operation, mode] : {std::pair("01JD0000000000000000000002", v1::RESTORE_MODE_LIVE),
                                        std::pair("01JD0000000000000000000003", v1::RESTORE_MODE_REPLACE)}) {
    order_.set_mode(mode);
    const Outcome outcome = Run(operation);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Label(path_), "new");
    EXPECT_TRUE(io::Exists(outcome.undo)) << outcome.undo;
    v1::UndoOrder undo;
    const Outcome undone = Open()->Undo(std::string(operation) + "-u", undo, target_, cancel_, [](const v1::Progress&) {});
    ASSERT_TRUE(undone.status.ok()) << undone.status;
    EXPECT_EQ(Label(path_), "old");
  }
  EXPECT_EQ(LeftOver(), "");
}

INSTANTIATE_TEST_SUITE_P(Odd, NamesTest,
                         ::testing::Values("-rf.db", "--help", "a b'\".db",
                                           "\xc3\xbc"
                                           "ber.db",
                                           "a?mode=memory&x#y%41.db", "file:x.db", ":memory:", "app.db-wal.db", "..db", "$(x).db"));

class PlantedTest : public TextFixture {
 protected:
  void SetUp() override {
    TextFixture::SetUp();
    victim_ = folder_ + "/victim";
    ASSERT_TRUE(io::WriteFileAtomic(victim_, std::string(1 << 20, 'v')).ok());
  }
  void ExpectUntouched() const {
    EXPECT_TRUE(*io::ReadFile(victim_, 1 << 21) == std::string(1 << 20, 'v'));
    struct stat st {};
    ASSERT_EQ(stat(victim_.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u);
    EXPECT_EQ(st.st_nlink, 1u);
  }
  std::string victim_;
};

struct Planted {
  const char* what;
  v1::RestoreMode mode;
  bool text = false;
  bool tables = false;
};
class PlantedLinksTest : public PlantedTest, public ::testing::WithParamInterface<Planted> {};

// They are in the place of files of ours, and go for them.
TEST_P(PlantedLinksTest, AtTheNamesThatARestoreMakesAreNotFollowed) {
  const Planted& c = GetParam();
  if (c.mode != v1::RESTORE_MODE_NEW) Make(path_, "old", "wal", 300);
  if (c.text) {
    MakeTextSnapshot(Text("new", 300));
  } else {
    MakeSnapshot("wal", 300);
  }
  if (c.tables) order_.add_tables("t");
  if (c.tables) order_.add_tables("label");
  if (c.tables) order_.add_tables("log");
  order_.set_mode(c.mode);
  const std::string ours = data_ + "/.litefleet-" + kOperation, kept = path_ + ".litefleet-undo";
  std::vector<std::string> planted = {ours + ".staging-load"};
  for (const std::string& name : {ours + ".staging", ours + ".undo", kept}) {
    planted.push_back(name);
    for (const std::string_view suffix : kCompanions) planted.push_back(name + std::string(suffix));
  }
  for (const std::string& name : planted) std::filesystem::create_symlink(victim_, name);
  const Outcome outcome = Run();
  ExpectUntouched();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.mode, c.mode);
  EXPECT_FALSE(std::filesystem::is_symlink(path_));
  EXPECT_EQ(Label(path_), "new");
  for (const std::string_view suffix : kCompanions) EXPECT_FALSE(std::filesystem::is_symlink(kept + std::string(suffix))) << suffix;
  EXPECT_FALSE(std::filesystem::is_symlink(kept));
  if (c.mode != v1::RESTORE_MODE_NEW) {
    EXPECT_EQ(Label(kept), "old");
  }
  ExpectUntouched();
}

INSTANTIATE_TEST_SUITE_P(Restore, PlantedLinksTest,
                         ::testing::Values(Planted{"new", v1::RESTORE_MODE_NEW}, Planted{"live", v1::RESTORE_MODE_LIVE},
                                           Planted{"replace", v1::RESTORE_MODE_REPLACE}, Planted{"text_new", v1::RESTORE_MODE_NEW, true},
                                           Planted{"text_live", v1::RESTORE_MODE_LIVE, true},
                                           Planted{"tables_new", v1::RESTORE_MODE_NEW, false, true},
                                           Planted{"tables_live", v1::RESTORE_MODE_LIVE, false, true}),
                         [](const auto& each) { return each.param.what; });

TEST_F(PlantedTest, WhatIsNoFileIsNoTarget) {
  MakeSnapshot("wal", 300);
  ASSERT_TRUE(io::MakeDirectory(path_, 0755).ok());
  EXPECT_EQ(ReasonOf(Run("01JD0000000000000000000001").status), "NOT_REGULAR_FILE");
  std::filesystem::remove(path_);
  ASSERT_EQ(mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(ReasonOf(Run("01JD0000000000000000000002").status), "NOT_REGULAR_FILE");
  std::filesystem::remove(path_);
  std::filesystem::create_symlink(path_, path_);
  EXPECT_EQ(ReasonOf(Run("01JD0000000000000000000003").status), "TOO_MANY_LINKS");
  target_.path = "relative.db";
  EXPECT_EQ(ReasonOf(Run("01JD0000000000000000000004").status), "INVALID_PATH");
  target_.path = data_ + "/absent/app.db";
  EXPECT_EQ(ReasonOf(Run("01JD0000000000000000000005").status), "DIRECTORY_MISSING");
}

}  // namespace
}  // namespace litefleet::restore
