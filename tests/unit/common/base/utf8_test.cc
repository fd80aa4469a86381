#include "common/base/utf8.h"

#include <gtest/gtest.h>

namespace litefleet {
namespace {

TEST(Utf8Test, WhatIsTextStays) {
  for (const char* text : {"", "a", "gr\xc3\xbc\xc3\x9f", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xef\xbf\xbd"})
    EXPECT_EQ(AsUtf8(text), text);
}

TEST(Utf8Test, WhatIsNoneIsReplacedByteByByte) {
  const std::string no = "\xef\xbf\xbd";
  EXPECT_EQ(AsUtf8("a\xff"
                   "b"),
            "a" + no + "b");
  EXPECT_EQ(AsUtf8("\xc3"), no);
  EXPECT_EQ(AsUtf8("\xc0\x80"), no + no) << "overlong";
  EXPECT_EQ(AsUtf8("\xe0\x80\x80"), no + no + no) << "overlong";
  EXPECT_EQ(AsUtf8("\xed\xa0\x80"), no + no + no) << "a surrogate";
  EXPECT_EQ(AsUtf8("\xf4\x90\x80\x80"), no + no + no + no) << "beyond the last";
}

}  // namespace
}  // namespace litefleet
