// Names of databases that look like something else, and links that somebody who may write to the directory has planted there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/agent/restore/restore_fixture.h"

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

class PlantedTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    victim_ = folder_ + "/victim";
    ASSERT_TRUE(io::WriteFileAtomic(victim_, std::string(1 << 20, 'v')).ok());
  }
  void ExpectUntouched(const std::string& what) const {
    EXPECT_EQ(*io::ReadFile(victim_, 1 << 21), std::string(1 << 20, 'v')) << what;
    struct stat st {};
    ASSERT_EQ(stat(victim_.c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u) << what;
  }
  std::string victim_;
};

TEST_F(PlantedTest, LinksAtTheNamesThatARestoreMakesAreNotFollowed) {
  for (const v1::RestoreMode mode : {v1::RESTORE_MODE_NEW, v1::RESTORE_MODE_LIVE, v1::RESTORE_MODE_REPLACE}) {
    std::filesystem::remove_all(data_);
    std::filesystem::remove_all(folder_ + "/state");
    ASSERT_TRUE(io::MakeDirectory(data_, 0755).ok());
    if (mode != v1::RESTORE_MODE_NEW) Make(path_, "old", "wal", 300);
    MakeSnapshot("wal", 300);
    order_.set_mode(mode);
    for (const std::string& name : {data_ + "/.litefleet-" + kOperation + ".staging", data_ + "/.litefleet-" + kOperation + ".undo",
                                    path_ + ".litefleet-undo", path_ + ".litefleet-undo-wal"})
      std::filesystem::create_symlink(victim_, name);
    const Outcome outcome = Run();
    ExpectUntouched(v1::RestoreMode_Name(mode));
    if (outcome.status.ok()) {
      EXPECT_EQ(Label(path_), "new");
    }
  }
}

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
