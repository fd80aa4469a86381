#include "common/dump/sql_values.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "fmt/format.h"

namespace litefleet::dump {
namespace {

std::string Written(std::string_view text, bool lossless) {
  std::string written;
  TextOutput out([&](std::string_view piece) {
    written += piece;
    return true;
  });
  PutText(text, lossless, out);
  out.Flush();
  return written;
}

// As the CLI looks for it: one number after the other.
std::string PlainMark(const std::string& text, const std::string& first, const std::string& second) {
  if (text.find(first) == std::string::npos) return first;
  if (text.find(second) == std::string::npos) return second;
  for (int i = 0;; ++i) {
    std::string mark = fmt::format("({}{})", first, i);
    if (text.find(mark) == std::string::npos) return mark;
  }
}

TEST(SqlValuesTest, TheMarkOfALineIsTheLeastThatIsFree) {
  std::mt19937 random(5);
  const std::string pieces[] = {
      "\n", "\\n", "\\012", "(\\n", "0)", "1)", "00)", "10)", "2", ")", "(\\n0)", "(\\n1)", "99999999999999999999)", "x"};
  for (int round = 0; round < 3000; ++round) {
    std::string text = "\n";
    for (unsigned i = random() % 20; i > 0; --i) text += pieces[random() % std::size(pieces)];
    const std::string mark = PlainMark(text, "\\n", "\\012");
    ASSERT_TRUE(Written(text, true).ends_with(fmt::format("','{}',char(10))", mark))) << text;
  }
}

// A text of hostile data, with every number that fits into it: a look for each of them would take a minute.
TEST(SqlValuesTest, ManyMarksCostOnePass) {
  std::string text = "\n\\n\\012";
  int count = 0;
  for (; text.size() < (4U << 20); ++count) text += fmt::format("(\\n{})", count);
  EXPECT_TRUE(Written(text, true).ends_with(fmt::format("','(\\n{})',char(10))", count)));
}

}  // namespace
}  // namespace litefleet::dump
