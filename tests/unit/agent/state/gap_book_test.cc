#include "agent/state/gap_book.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "common/base/ids.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::state {
namespace {

SystemTime At(int64_t minute) { return FromUnixMillis(1'795'348'800'000 + minute * 60'000); }
int64_t Minute(const google::protobuf::Timestamp& time) { return (TimestampMillis(time) - 1'795'348'800'000) / 60'000; }

class GapBookTest : public testing::Test {
 protected:
  GapBookTest() : path_(testing::TempDir() + fmt::format("/lf-gaps-{}", getpid())) { std::filesystem::create_directory(path_); }
  ~GapBookTest() override { std::filesystem::remove_all(path_); }

  std::unique_ptr<GapBook> Open() {
    auto book = GapBook::Open(path_, damaged_);
    EXPECT_TRUE(book.ok()) << book.status();
    return *std::move(book);
  }
  static GapBook::Begun Of(int64_t from, const std::string& database = "app", const std::string& reason = "SPOOL_FULL",
                           uint32_t snapshots = 0) {
    return {.database = database, .from = At(from), .reason = reason, .message = "no room", .snapshots = snapshots};
  }
  // "from-until(snapshots)" of each; an open one has no until.
  std::string Text(GapBook& book) {
    std::vector<std::string> parts;
    // What is recorded goes or is not told again: this empties a copy.
    std::vector<std::string> damaged;
    const auto copy = path_ + "-copy";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(path_, copy);
    auto other = GapBook::Open(copy, damaged).value();
    while (const auto gap = other->NextUnrecorded()) {
      parts.push_back(
          fmt::format("{}-{}({})", Minute(gap->from()), gap->has_until() ? std::to_string(Minute(gap->until())) : "", gap->snapshots()));
      EXPECT_TRUE(other->Recorded(*gap).ok());
    }
    std::filesystem::remove_all(copy);
    EXPECT_EQ(book.NextUnrecorded().has_value(), !parts.empty());
    // Those that begin at one time have no order.
    std::sort(parts.begin(), parts.end());
    std::string text;
    for (const std::string& part : parts) text += (text.empty() ? "" : " ") + part;
    return text;
  }

  const std::string path_;
  std::vector<std::string> damaged_;
};

TEST_F(GapBookTest, AnOpenGapIsToldOnceAndAgainWhenItEnds) {
  auto book = Open();
  const std::string id = book->Begin(Of(10)).value();
  const auto told = book->NextUnrecorded();
  ASSERT_TRUE(told.has_value());
  EXPECT_EQ(told->id(), id);
  EXPECT_FALSE(told->has_until());
  ASSERT_TRUE(book->Recorded(*told).ok());
  EXPECT_FALSE(book->NextUnrecorded()) << "the controller has it as it is";
  EXPECT_EQ(book->OpenGaps("app").size(), 1U) << "it has not ended";

  book = Open();
  EXPECT_FALSE(book->NextUnrecorded()) << "also after a restart";
  ASSERT_TRUE(book->End(id, At(30)).ok());
  book = Open();
  const auto ended = book->NextUnrecorded();
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(Minute(ended->until()), 30);
  EXPECT_TRUE(book->OpenGaps("").empty());
  ASSERT_TRUE(book->Recorded(*ended).ok());
  EXPECT_FALSE(book->NextUnrecorded());
  EXPECT_TRUE(std::filesystem::is_empty(path_)) << "nothing is kept of it";
}

TEST_F(GapBookTest, AnAnswerToWhatItWasBeforeDoesNotForgetWhatItBecame) {
  auto book = Open();
  const std::string id = book->Begin(Of(10)).value();
  const v1::CoverageGap open = *book->NextUnrecorded();
  ASSERT_TRUE(book->End(id, At(20)).ok());
  ASSERT_TRUE(book->Recorded(open).ok());
  ASSERT_TRUE(book->NextUnrecorded().has_value()) << "its end was not told yet";
  EXPECT_EQ(Text(*book), "10-20(0)");
}

TEST_F(GapBookTest, OneOfAKindIsOpenAtATime) {
  auto book = Open();
  const std::string id = book->Begin(Of(10, "app", "SPOOL_FULL", 1)).value();
  EXPECT_EQ(book->Begin(Of(15, "app", "SPOOL_FULL", 2)).value(), id);
  EXPECT_NE(book->Begin(Of(15, "app", "LEASE_EXPIRED")).value(), id);
  EXPECT_NE(book->Begin(Of(15, "other")).value(), id);
  EXPECT_EQ(Text(*book), "10-(3) 15-(0) 15-(0)");
  EXPECT_EQ(book->OpenGaps("app").size(), 2U);
  ASSERT_TRUE(book->EndOf("app", "SPOOL_FULL", At(25)).ok());
  ASSERT_TRUE(book->EndOf("app", "SPOOL_FULL", At(99)).ok()) << "nothing is open any more";
  EXPECT_EQ(Text(*book), "10-25(3) 15-(0) 15-(0)");
}

TEST_F(GapBookTest, AnOpenOneBeginsWithTheEarliest) {
  auto book = Open();
  const std::string id = book->Begin(Of(10)).value();
  ASSERT_TRUE(book->Recorded(*book->NextUnrecorded()).ok());
  EXPECT_EQ(book->Begin(Of(5)).value(), id);
  EXPECT_EQ(Text(*Open()), "5-(0)") << "and that is told";
}

TEST_F(GapBookTest, GapsThatTouchAreOne) {
  auto book = Open();
  ASSERT_TRUE(book->Add(Of(10, "app", "SPOOL_FULL", 1), At(20), {}).ok());
  ASSERT_TRUE(book->Add(Of(10, "app", "SPOOL_FULL", 1), At(30), {}).ok());
  ASSERT_TRUE(book->Add(Of(30, "app", "SPOOL_FULL", 1), At(40), {}).ok());
  EXPECT_EQ(Text(*book), "10-40(3)");
  ASSERT_TRUE(book->Add(Of(41, "app", "SPOOL_FULL", 1), At(50), {}).ok());
  ASSERT_TRUE(book->Add(Of(20, "other", "SPOOL_FULL", 1), At(40), {}).ok());
  ASSERT_TRUE(book->Add(Of(20, "app", "AGENT_DOWN"), At(40), {}).ok());
  EXPECT_EQ(Text(*book), "10-40(3) 20-40(0) 20-40(1) 41-50(1)");
}

TEST_F(GapBookTest, AClockThatWasSetBackDoesNotTurnAGapAround) {
  auto book = Open();
  const std::string id = book->Begin(Of(10)).value();
  ASSERT_TRUE(book->End(id, At(5)).ok());
  EXPECT_EQ(Text(*book), "10-10(0)");
}

TEST_F(GapBookTest, IsBounded) {
  auto book = Open();
  const int many = static_cast<int>(GapBook::kMaxPerDatabase) * 3;
  for (int i = 0; i < many; ++i) ASSERT_TRUE(book->Add(Of(10 * i, "app", "SPOOL_FULL", 1), At(10 * i + 5), {}).ok());
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) files += entry.is_regular_file() ? 1 : 0;
  EXPECT_EQ(files, GapBook::kMaxPerDatabase);
  const std::string text = Text(*book);
  EXPECT_EQ(text.substr(0, text.find('(')), "0-645") << "the oldest became one";
  EXPECT_NE(text.find("950-955(1)"), std::string::npos);
}

TEST_F(GapBookTest, WhatCannotBeReadIsMovedAside) {
  const std::string id = Open()->Begin(Of(10)).value();
  std::ofstream(path_ + "/" + id) << "\xff\xff\xff";
  const auto book = Open();
  EXPECT_EQ(damaged_.size(), 1U);
  EXPECT_FALSE(book->NextUnrecorded());
  EXPECT_TRUE(std::filesystem::exists(path_ + "/" + id + ".damaged"));
}

// A directory stands for a sector that fails: it can be opened, and not read.
TEST_F(GapBookTest, WhatTheDiskDoesNotGiveBackIsMovedAsideToo) {
  const std::string id = Open()->Begin(Of(10)).value();
  std::filesystem::create_directory(path_ + "/01JDAAAAAAAAAAAAAAAAAAAAAA");
  std::ofstream(path_ + "/01JDBBBBBBBBBBBBBBBBBBBBBB") << std::string(100 << 10, 'x');
  const auto book = Open();
  EXPECT_EQ(damaged_.size(), 2U);
  EXPECT_EQ(book->OpenGaps("app").size(), 1U);
  EXPECT_TRUE(std::filesystem::exists(path_ + "/01JDAAAAAAAAAAAAAAAAAAAAAA.damaged"));
}

TEST_F(GapBookTest, ACutLeavesTheOldOneOrTheNew) {
  const std::string id = Open()->Begin(Of(10)).value();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", "gaps.written", 1);
    auto book = Open();
    book->End(id, At(20)).IgnoreError();
    _exit(1);  // it should not come here
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the crash point was not passed";
  auto book = Open();
  EXPECT_EQ(Text(*book), "10-20(0)");
}

TEST_F(GapBookTest, AClockThatIsSetDoesNotMakeAGapADecadeLong) {
  FakeClock clock;
  const auto open = [&] { return std::move(GapBook::Open(path_, damaged_, &clock).value()); };
  auto book = open();
  const SystemTime began = clock.Now();
  const std::string id =
      book->Begin({.database = "app", .from = began, .reason = "SPOOL_FULL", .message = "", .from_since_boot = clock.SinceBoot()}).value();
  clock.Advance(std::chrono::minutes(5));
  clock.JumpSystem(std::chrono::hours(24 * 365 * 10));
  book = open();
  ASSERT_TRUE(book->End(id, clock.Now()).ok());
  book = open();
  const v1::CoverageGap told = book->OnThisClock(*book->NextUnrecorded());
  EXPECT_EQ(TimestampMillis(told.until()) - TimestampMillis(told.from()), 300'000);
  EXPECT_EQ(FromProtoTime(told.until()), clock.Now());
  ASSERT_TRUE(book->Recorded(*book->NextUnrecorded()).ok()) << "it is recorded as the book has it";
  EXPECT_FALSE(book->NextUnrecorded());
}

// The clock stood still while the machine was off, eight hours long.
TEST_F(GapBookTest, WhatIsRememberedFromABootBeforeIsNotMovedWithTheClock) {
  FakeClock clock;
  const auto book = std::move(GapBook::Open(path_, damaged_, &clock).value());
  const SystemTime off = clock.Now();
  clock.Advance(std::chrono::seconds(30));
  const GapBook::Begun begun{.database = "app", .from = off, .reason = "AGENT_DOWN", .message = ""};
  const std::string id = book->Begin(begun).value();
  const SystemTime until = clock.Now();
  ASSERT_TRUE(book->Add({.database = "b", .from = off, .reason = "AGENT_DOWN", .message = ""}, until, clock.SinceBoot()).ok());
  clock.JumpSystem(std::chrono::hours(8));
  EXPECT_EQ(book->Begin(begun).value(), id);
  clock.Advance(std::chrono::minutes(5));
  ASSERT_TRUE(book->End(id, clock.Now()).ok());
  for (int i = 0; i < 2; ++i) {
    const v1::CoverageGap gap = *book->NextUnrecorded(), told = book->OnThisClock(gap);
    EXPECT_EQ(FromProtoTime(told.from()), off);
    EXPECT_EQ(FromProtoTime(told.until()), gap.id() == id ? clock.Now() : until + std::chrono::hours(8));
    ASSERT_TRUE(book->Recorded(gap).ok());
  }
}

// A machine without a battery, half a century behind. It ends after its clock was set, and before.
TEST_F(GapBookTest, WhatIsRememberedIsNotOfAClockThatIsNotSet) {
  constexpr std::chrono::hours kBehind(24 * 365 * 56);
  for (const bool ends_before : {false, true}) {
    FakeClock clock;
    const auto book = std::move(GapBook::Open(path_, damaged_, &clock).value());
    const SystemTime off = clock.Now();
    clock.Advance(std::chrono::hours(1));
    clock.JumpSystem(-kBehind);
    const std::string id = book->Begin({.database = "app", .from = off, .reason = "RUN_FAILED", .message = ""}).value();
    EXPECT_EQ(FromProtoTime(book->OnThisClock(*book->NextUnrecorded(), kBehind).from()), off) << "told before the clock is set";
    if (ends_before) {
      ASSERT_TRUE(book->End(id, clock.Now()).ok());
      const v1::CoverageGap told = book->OnThisClock(*book->NextUnrecorded(), kBehind);
      EXPECT_EQ(FromProtoTime(told.from()), off);
      EXPECT_EQ(FromProtoTime(told.until()), off + std::chrono::hours(1));
    }
    clock.JumpSystem(kBehind);
    if (!ends_before) {
      ASSERT_TRUE(book->End(id, clock.Now()).ok());
    }
    const v1::CoverageGap told = book->OnThisClock(*book->NextUnrecorded());
    EXPECT_EQ(FromProtoTime(told.from()), off);
    EXPECT_EQ(FromProtoTime(told.until()), off + std::chrono::hours(1));
    ASSERT_TRUE(book->Recorded(*book->NextUnrecorded()).ok());
  }
}

TEST_F(GapBookTest, TellsOfChanges) {
  auto book = Open();
  int told = 0;
  book->OnChange([&] { ++told; });
  const std::string id = book->Begin(Of(10)).value();
  ASSERT_TRUE(book->End(id, At(12)).ok());
  ASSERT_TRUE(book->Add(Of(20), At(21), {}).ok());
  EXPECT_EQ(told, 3);
}

}  // namespace
}  // namespace litefleet::state
