#include "common/files/glob.h"

#include <gtest/gtest.h>

namespace litefleet::files {
namespace {

bool Matches(const std::string& pattern, std::string_view name) { return GlobSet({pattern}, {}).Takes(name); }

TEST(Glob, WholeNamesAreCompared) {
  EXPECT_TRUE(Matches("*.conf", "a.conf"));
  EXPECT_TRUE(Matches("*.conf", ".conf"));
  EXPECT_FALSE(Matches("*.conf", "a.conf.bak"));
  EXPECT_FALSE(Matches("*.conf", "sub/a.conf"));
  EXPECT_TRUE(Matches("certs/[a-c]?.pem", "certs/b1.pem"));
  EXPECT_FALSE(Matches("certs/[a-c]?.pem", "certs/d1.pem"));
  EXPECT_TRUE(Matches("*", "-rf"));
  EXPECT_TRUE(Matches("a\\*", "a*"));
  EXPECT_FALSE(Matches("a\\*", "ab"));
}

TEST(Glob, TwoStarsAreAnyDirectories) {
  EXPECT_TRUE(Matches("**", "a"));
  EXPECT_TRUE(Matches("**", "a/b/c"));
  EXPECT_TRUE(Matches("**/x", "x"));
  EXPECT_TRUE(Matches("**/x", "a/b/x"));
  EXPECT_FALSE(Matches("**/x", "a/b/y"));
  EXPECT_TRUE(Matches("a/**", "a/b/c"));
  EXPECT_TRUE(Matches("a/**/b/*/c", "a/b/x/b/y/c"));
  EXPECT_FALSE(Matches("a/**/b/*/c", "a/b/c"));
  EXPECT_TRUE(Matches("**/a/**/b", "a/a/c/b"));
}

// A pattern that goes back again and again would not end within the test's time.
TEST(Glob, ManyStarsEnd) {
  std::string pattern, name;
  for (int i = 0; i < 60; ++i) pattern += "**/a/", name += "a/";
  EXPECT_FALSE(Matches(pattern + "b", name + "c"));
}

TEST(Glob, WhatIsExcludedIsWithAllThatIsBelow) {
  const GlobSet globs({"**"}, {"cache", "**/*.log", "data/tmp/**"});
  EXPECT_TRUE(globs.Takes("a"));
  EXPECT_FALSE(globs.Takes("cache/x/y"));
  EXPECT_FALSE(globs.MayHold("cache"));
  EXPECT_FALSE(globs.Takes("x/y.log"));
  EXPECT_FALSE(globs.Takes("data/tmp/z"));
  EXPECT_TRUE(globs.Takes("data/tmpx"));
}

TEST(Glob, OnlyDirectoriesThatMayHoldSomethingAreLookedInto) {
  const GlobSet globs({"etc/*.conf", "att/**", "**/deep/x"}, {});
  EXPECT_TRUE(globs.MayHold("etc"));
  EXPECT_TRUE(globs.MayHold("att/b/c"));
  EXPECT_TRUE(globs.MayHold("else/where"));  // **/deep/x
  const GlobSet flat({"etc/*.conf"}, {});
  EXPECT_FALSE(flat.MayHold("etc/sub"));
  EXPECT_FALSE(flat.MayHold("usr"));
}

TEST(Glob, PatternsThatAreNone) {
  for (const char* pattern : {"", "/etc/*", "a//b", "a/", "../x", "a/./b", "a/../b", "a**"})
    EXPECT_NE(ProblemOfGlob(pattern), "") << pattern;
  EXPECT_NE(ProblemOfGlob(std::string(1025, 'a')), "");
  EXPECT_NE(ProblemOfGlob(std::string("a\0b", 3)), "");
  for (const char* pattern : {"*", "**", "a/**/b", "-x", "..a"}) EXPECT_EQ(ProblemOfGlob(pattern), "") << pattern;
}

}  // namespace
}  // namespace litefleet::files
