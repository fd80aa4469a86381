// Renames on a file system that knows no RENAME_NOREPLACE: a second name, then the removal of the first, and perhaps an end between them.
#include "agent/restore/target_place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "agent/restore/apply.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

class TargetPlaceTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    auto place = TargetPlace::Resolve(path_);
    ASSERT_TRUE(place.ok()) << place.status();
    place_.emplace(*std::move(place));
    state_.set_operation_id(kOperation);
  }
  void Write(const std::string& name, const std::string& content) const {
    ASSERT_TRUE(io::WriteFileAtomic(data_ + "/" + name, content).ok());
  }
  // As the end of the process between the two leaves it.
  void RenameHalf(const std::string& from, const std::string& to) const {
    std::filesystem::create_hard_link(data_ + "/" + from, data_ + "/" + to);
  }
  std::string Content(const std::string& name) const { return io::ReadFile(data_ + "/" + name).value_or("gone"); }
  static std::string Aside(const char* suffix) { return ".litefleet-" + kOperation + ".undo" + suffix; }

  std::optional<TargetPlace> place_;
  storage::v1::RestoreState state_;
};

TEST_F(TargetPlaceTest, AHalfRenameIsFinished) {
  Write("a", "content");
  RenameHalf("a", "b");
  const absl::Status renamed = place_->RenameNew("a", "b");
  EXPECT_TRUE(renamed.ok()) << renamed;
  EXPECT_EQ(Content("a"), "gone");
  EXPECT_EQ(Content("b"), "content");
}

TEST_F(TargetPlaceTest, AnotherFileIsNotReplaced) {
  Write("a", "content");
  Write("b", "content");
  EXPECT_EQ(ReasonOf(place_->RenameNew("a", "b")), "FILE_EXISTS");
  EXPECT_EQ(Content("a"), "content");
  EXPECT_EQ(Content("b"), "content");
  // Nor is what leads to the same one.
  std::filesystem::create_symlink("a", data_ + "/c");
  EXPECT_EQ(ReasonOf(place_->RenameNew("a", "c")), "FILE_EXISTS");
  EXPECT_EQ(Content("a"), "content");
}

TEST_F(TargetPlaceTest, ALogThatIsInItsPlaceHasComeBack) {
  for (const char* suffix : {"-wal", "-journal"}) {
    Write(std::string("app.db") + suffix, "log");
    RenameHalf(std::string("app.db") + suffix, Aside(suffix));
    state_.add_undo_parts(suffix);
  }
  Write(Aside("-shm"), "index");
  state_.add_undo_parts("-shm");
  PutCompanionsBack(*place_, state_);
  EXPECT_THAT(state_.steps(), IsEmpty());
  EXPECT_EQ(Content("app.db-wal"), "log");
  EXPECT_EQ(Content("app.db-journal"), "log");
  EXPECT_EQ(Content("app.db-shm"), "index");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(TargetPlaceTest, AKeptLogThatIsInItsPlaceHasBeenPutBack) {
  Write("app.db.litefleet-undo-wal", "log");
  RenameHalf("app.db.litefleet-undo-wal", "app.db-wal");
  state_.mutable_undoes()->add_parts("");
  state_.mutable_undoes()->add_parts("-wal");
  ASSERT_TRUE(PlaceUndoCompanions(*place_, state_).ok());
  EXPECT_THAT(state_.steps(), Contains("put the kept app.db-wal back"));
  EXPECT_EQ(Content("app.db-wal"), "log");
  EXPECT_EQ(Content("app.db.litefleet-undo-wal"), "gone");
}

}  // namespace
}  // namespace litefleet::restore
