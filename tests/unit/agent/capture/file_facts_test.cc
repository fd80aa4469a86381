#include "agent/capture/file_facts.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <utime.h>

#include <filesystem>
#include <fstream>

namespace litefleet::capture {
namespace {

class FileFactsTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/litefleet-facts-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
    path_ = directory_ + "/x.db";
    Write(path_, "content");
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  static void Write(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
  }
  std::optional<FileFacts> Facts(std::chrono::seconds later = std::chrono::seconds(10)) const {
    return FileFactsOf(path_, std::chrono::system_clock::now() + later);
  }

  std::string directory_;
  std::string path_;
};

TEST_F(FileFactsTest, EqualUntilSomethingIsWritten) {
  const auto first = Facts();
  ASSERT_TRUE(first.has_value());
  EXPECT_TRUE(first->settled);
  EXPECT_EQ(Facts()->text, first->text);
  Write(path_ + "-wal", "");
  const auto with_wal = Facts();
  EXPECT_NE(with_wal->text, first->text);
  Write(path_ + "-wal", "frames");
  EXPECT_NE(Facts()->text, with_wal->text);
  std::filesystem::remove(path_ + "-wal");
  EXPECT_EQ(Facts()->text, first->text);
  Write(path_ + "-journal", "x");
  EXPECT_NE(Facts()->text, first->text);
  std::filesystem::remove(path_ + "-journal");
  // Another file of the same content, with the old times.
  const auto time = std::filesystem::last_write_time(path_);
  std::filesystem::copy_file(path_, directory_ + "/y.db");
  std::filesystem::last_write_time(directory_ + "/y.db", time);
  std::filesystem::rename(directory_ + "/y.db", path_);
  EXPECT_NE(Facts()->text, first->text);
}

TEST_F(FileFactsTest, AMomentAfterAWriteNothingIsSettled) {
  EXPECT_FALSE(Facts(std::chrono::seconds(0))->settled);
  EXPECT_FALSE(Facts(std::chrono::seconds(-1))->settled);
  // A clock that was set back: what is written now gets another time, and nobody waits until it is there again.
  EXPECT_TRUE(Facts(std::chrono::seconds(-3600))->settled);
}

TEST_F(FileFactsTest, TheyAreReadAllTheSameAtIntervals) {
  const FileFacts facts = *Facts();
  const SystemTime read_at = std::chrono::system_clock::now();
  EXPECT_TRUE(AreAsRead(facts, facts.text, read_at, read_at));
  EXPECT_TRUE(AreAsRead(facts, facts.text, read_at, read_at + kReadAnyway - std::chrono::milliseconds(1)));
  EXPECT_FALSE(AreAsRead(facts, facts.text, read_at, read_at + kReadAnyway));
  EXPECT_FALSE(AreAsRead(facts, facts.text, read_at, read_at - std::chrono::milliseconds(1))) << "the clock was set back";
  EXPECT_FALSE(AreAsRead(facts, facts.text, SystemTime(), read_at)) << "never read";
  EXPECT_FALSE(AreAsRead(facts, facts.text + "x", read_at, read_at));
  EXPECT_FALSE(AreAsRead(facts, "", read_at, read_at));
  EXPECT_FALSE(AreAsRead({.text = facts.text, .settled = false}, facts.text, read_at, read_at));
}

TEST_F(FileFactsTest, LinksAreFollowedAndOtherThingsRefused) {
  std::filesystem::create_symlink(path_, directory_ + "/link.db");
  Write(path_ + "-wal", "w");
  EXPECT_EQ(FileFactsOf(directory_ + "/link.db", SystemTime())->text, FileFactsOf(path_, SystemTime())->text);
  EXPECT_FALSE(FileFactsOf(directory_, SystemTime()).has_value());
  EXPECT_FALSE(FileFactsOf(directory_ + "/none.db", SystemTime()).has_value());
}

}  // namespace
}  // namespace litefleet::capture
