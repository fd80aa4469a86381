// For tests of the method file: one database, on a file system that shares blocks (an XFS image) or not, and copies of it.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_FILE_SOURCE_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_FILE_SOURCE_FIXTURE_H_

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "agent/capture/file_source.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "gmock/gmock.h"
#include "tests/fakes/loop_mount.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {

inline int OpenDescriptors() {
  return static_cast<int>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator()));
}

inline constexpr char kRows[] =
    "create table t(id integer primary key, x blob); create index i on t(x);"
    "with recursive n(i) as (select 1 union all select i + 1 from n where i < 2000) insert into t select i, randomblob(300) from n";

class FileSourceTest : public CaptureTest, public testing::WithParamInterface<const char*> {
 protected:
  static void TearDownTestSuite() {
    if (Mount() == nullptr) return;
    const std::string directory = Mount()->directory();
    Mount().reset();
    std::filesystem::remove(directory);
  }
  static std::unique_ptr<LoopMount>& Mount() {
    static std::unique_ptr<LoopMount> mount;
    return mount;
  }
  bool Shares() const { return GetParam() == std::string("shared"); }

  void SetUp() override {
    place_ = Path("place");
    if (Shares()) {
      if (Mount() == nullptr) {
        char pattern[] = "/tmp/lf-xfs-XXXXXX";
        ASSERT_NE(mkdtemp(pattern), nullptr);
        Mount() = std::make_unique<LoopMount>(pattern, kXfs);
      }
      if (!Mount()->mounted()) GTEST_SKIP() << Mount()->why();
      place_ = Mount()->directory() + "/" + testing::UnitTest::GetInstance()->current_test_info()->name();
      std::replace(place_.begin() + static_cast<std::ptrdiff_t>(Mount()->directory().size()) + 1, place_.end(), '/', '-');
    }
    std::filesystem::create_directories(place_);
    std::filesystem::create_directories(Path("scratch"));
    path_ = place_ + "/app.db";
  }
  void TearDown() override {
    std::error_code ignored;
    if (Shares()) std::filesystem::remove_all(place_, ignored);
  }

  FileOptions Options() const {
    FileOptions options;
    options.database = CaptureTest::Options(path_);
    options.scratch = Path("scratch");
    options.may_share = Shares();
    return options;
  }
  static Copy ReadCopy(const FileCopy& taken) {
    Copy copy;
    auto source = taken.Open();
    if (!source.ok()) return {.status = source.status(), .info = {}, .damage = {}, .bytes = {}};
    copy.info = (*source)->info();
    copy.damage = (*source)->damage();
    uint32_t expected = 0;
    for (;;) {
      auto next = (*source)->Next();
      copy.status = next.status();
      if (!next.ok() || !next->has_value()) break;
      EXPECT_EQ((*next)->extent, expected++);
      copy.bytes.insert(copy.bytes.end(), (*next)->data.begin(), (*next)->data.end());
    }
    if (copy.status.ok()) {
      EXPECT_EQ(copy.bytes.size(), uint64_t{copy.info.page_size} * copy.info.page_count);
    }
    return copy;
  }
  // Shared memory aside, where readers have their marks.
  std::string Files() const {
    std::string kept;
    std::istringstream listing(Listing(place_));
    for (std::string line; std::getline(listing, line);) kept += line.find("-shm ") == std::string::npos ? line + "\n" : "";
    return kept;
  }
  // Takes a copy, and sees that it leaves everything as it was.
  Copy Take(FileCopy::Way way, FileOptions options) {
    const std::string before = Files();
    const int descriptors = OpenDescriptors();
    Copy copy;
    {
      const auto taken = FileCopy::Take(options);
      copy.status = taken.status();
      if (taken.ok()) {
        EXPECT_EQ((*taken)->way(), way) << (*taken)->Describe();
        EXPECT_EQ((*taken)->shared(), Shares());
        copy = ReadCopy(**taken);
      }
    }
    EXPECT_EQ(OpenDescriptors(), descriptors);
    EXPECT_EQ(Files(), before);
    EXPECT_TRUE(std::filesystem::is_empty(Path("scratch")));
    return copy;
  }
  Copy Take(FileCopy::Way way) { return Take(way, Options()); }

  // An application was killed in a transaction part of which is in the file. What there was before it.
  Bytes KillInATransaction() const {
    Sql(path_, kRows);
    Bytes before = FileBytes(path_);
    Child([&](const auto& ready, const auto& stop) {
      Connection db(path_);
      db.Run("pragma cache_size=5; begin; update t set x = randomblob(280)");
      ready();
      while (!stop()) usleep(1000);
      return 0;
    }).Kill();
    return before;
  }
  // At the end of the journal, as SQLite does it.
  void NameSuperJournal(const std::string& super) const {
    std::string record;
    uint32_t sum = 0;
    const auto put = [&](uint32_t value) {
      for (int shift = 24; shift >= 0; shift -= 8) record += static_cast<char>(value >> shift);
    };
    put(0x40000000u / 4096 + 1);
    record += super;
    for (const char c : super) sum += static_cast<unsigned char>(c);
    put(static_cast<uint32_t>(super.size()));
    put(sum);
    record += "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";
    std::ofstream(path_ + "-journal", std::ios::binary | std::ios::app) << record;
  }
  std::string Check(const Bytes& bytes) const { return Query(Store(bytes, "check.db"), "pragma integrity_check"); }

  std::string place_;
  std::string path_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_FILE_SOURCE_FIXTURE_H_
