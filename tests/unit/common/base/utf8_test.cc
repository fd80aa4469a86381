#include "common/base/utf8.h"

#include <gtest/gtest.h>

namespace litefleet {
namespace {

TEST(CleanUtf8Test, WhatIsTextStays) {
  EXPECT_EQ(CleanUtf8("a.conf", 100), "a.conf");
  EXPECT_EQ(CleanUtf8("\u00e4\u20ac\U0001f600", 100), "\u00e4\u20ac\U0001f600");
  EXPECT_EQ(CleanUtf8("", 100), "");
}

TEST(CleanUtf8Test, BytesThatAreNoCharacterAreReplaced) {
  EXPECT_EQ(CleanUtf8("a\xff\xfe z", 100), "a?? z");
  EXPECT_EQ(CleanUtf8("\xc3", 100), "?");                    // cut
  EXPECT_EQ(CleanUtf8("\xc0\xaf", 100), "??");               // longer than it need be
  EXPECT_EQ(CleanUtf8("\xed\xa0\x80", 100), "???");          // a surrogate
  EXPECT_EQ(CleanUtf8("\xe4\xf6\xfc.txt", 100), "???.txt");  // Latin-1
}

TEST(CleanUtf8Test, ItIsCutBetweenCharacters) {
  EXPECT_EQ(CleanUtf8("abc", 2), "ab");
  EXPECT_EQ(CleanUtf8("a\u20ac", 3), "a");
  EXPECT_EQ(CleanUtf8("a\u20ac", 4), "a\u20ac");
  EXPECT_EQ(CleanUtf8("\u00e4\u00e4", 3), "\u00e4");
}

}  // namespace
}  // namespace litefleet
