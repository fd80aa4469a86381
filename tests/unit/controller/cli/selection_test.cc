#include "controller/cli/selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

std::set<std::string> Names(int from, int to) {
  std::set<std::string> names;
  for (int i = from; i < to; ++i) names.insert(fmt::format("kiosk-{}/orders", i));
  return names;
}

std::string Said(std::string_view then, const std::set<std::string>& now) {
  const absl::Status status = CheckSelection(then, now, "site=oslo");
  EXPECT_EQ(ReasonOf(status), "SELECTION_CHANGED");
  return MessageOf(status);
}

TEST(Selection, TheSameSetIsGoneOnWith) {
  for (const int count : {1, 2, 6, 300, 5000}) {
    const std::string word = SelectionWord(Names(0, count));
    EXPECT_TRUE(CheckSelection(word, Names(0, count), "site=oslo").ok()) << count;
    EXPECT_LT(word.size(), 720u);
    EXPECT_THAT(word, testing::MatchesRegex("[0-9]+-[0-9a-f]{12}\\.[-_0-9A-Za-z]+"));
  }
}

TEST(Selection, ThoseThatCameAreNamed) {
  std::set<std::string> now = Names(0, 6);
  const std::string then = SelectionWord(now);
  now.insert("other/a");
  EXPECT_THAT(
      Said(then, now),
      HasSubstr("'site=oslo' matched 6 databases when the command began, and matches 7 now, of which at least 1 came since: other/a"));
  // One has gone and another came.
  now.erase("kiosk-3/orders");
  EXPECT_THAT(Said(then, now), EndsWith("matches 6 now, of which at least 1 came since: other/a"));
  for (int i = 0; i < 7; ++i) now.insert(fmt::format("late-{}/b", i));
  EXPECT_THAT(Said(then, now),
              EndsWith("matches 13 now, of which at least 8 came since: late-0/b, late-1/b, late-2/b, late-3/b, late-4/b and 3 more"));
}

TEST(Selection, NobodyIsNamedWhereNobodyCame) { EXPECT_THAT(Said(SelectionWord(Names(0, 6)), Names(0, 5)), EndsWith("and matches 5 now")); }

// Of thousands some are taken for old ones, and nobody that was there for a new one.
TEST(Selection, OfThousandsSomeAreNamed) {
  const std::string then = SelectionWord(Names(0, 2000));
  EXPECT_THAT(Said(then, Names(0, 2100)), HasSubstr("of which at least 100 came since: kiosk-20"));
  EXPECT_THAT(Said(then, Names(100, 2000)), EndsWith("and matches 1900 now"));
}

TEST(Selection, WordsOfAnOlderProgramAndOddOnesTellNumbers) {
  const std::string word = SelectionWord(Names(0, 6));
  const std::string old = word.substr(0, word.find('.'));
  EXPECT_TRUE(CheckSelection(old, Names(0, 6), "site=oslo").ok());
  EXPECT_THAT(Said(old, Names(0, 8)), EndsWith("matches 8 now, of which at least 2 came since"));
  EXPECT_THAT(Said("6-000000000000", Names(0, 6)), EndsWith("matches 6 now, and not the same ones"));
  for (const std::string odd : {"", ".", "x", "7-000000000000.", "7-000000000000.%%%", "-1-0.AA", "99999999999999999999999-0.AAAA"})
    EXPECT_THAT(Said(odd, Names(0, 3)), Not(HasSubstr("and more"))) << odd;
}

}  // namespace
}  // namespace litefleet::cli
