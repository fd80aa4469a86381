#include "common/files/entry.h"

#include <gtest/gtest.h>

#include "common/files/rules.h"

namespace litefleet::files {
namespace {

TEST(Entry, Names) {
  for (const char* name : {"a", "-rf", "--help", "a b", "a\nb", "..a", "a/b/c", "\xff\xfe"}) EXPECT_TRUE(IsEntryName(name)) << name;
  for (const char* name : {"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/..", "a/../b", "./a", ".litefleet-x", "a/.litefleet-x/b"})
    EXPECT_FALSE(IsEntryName(name)) << name;
  EXPECT_FALSE(IsEntryName(std::string("a\0b", 3)));
  EXPECT_FALSE(IsEntryName(std::string(256, 'a')));
  EXPECT_TRUE(IsEntryName(std::string(255, 'a')));
  std::string deep = "a";
  for (int i = 1; i < kMostDepth; ++i) deep += "/a";
  EXPECT_TRUE(IsEntryName(deep));
  EXPECT_FALSE(IsEntryName(deep + "/a"));
}

TEST(Entry, LinksThatStayInside) {
  EXPECT_TRUE(StaysInside("a", "b"));
  EXPECT_TRUE(StaysInside("a/b", "../c"));
  EXPECT_TRUE(StaysInside("a/b/c", "../../x/./y"));
  EXPECT_TRUE(StaysInside("a/b", "./../c"));
  EXPECT_FALSE(StaysInside("a", "../b"));
  EXPECT_FALSE(StaysInside("d/x", "s/../../y")) << "s may be a link to the root";
  EXPECT_FALSE(StaysInside("a", "b/../c"));
  EXPECT_FALSE(StaysInside("a/b", "../../c"));
  EXPECT_FALSE(StaysInside("a/b", "x/../../../a"));
  EXPECT_FALSE(StaysInside("a", "/etc/passwd"));
  EXPECT_FALSE(StaysInside("a", ""));
}

TEST(Entry, ADirectoryComesBeforeWhatIsInItAndThatBeforeTheRest) {
  EXPECT_TRUE(ComesBefore("a", "a/b"));
  EXPECT_TRUE(ComesBefore("a/b", "a.c"));
  EXPECT_TRUE(ComesBefore("a/z", "a!"));
  EXPECT_TRUE(ComesBefore("a", "\xff"));
  EXPECT_FALSE(ComesBefore("a", "a"));
  EXPECT_FALSE(ComesBefore("b", "a/b"));
}

TEST(Frames, ComeBackInAnyPieces) {
  const Entry entry{EntryKind::kLink, "a/b\n", "../c", 0777, 7, 4'000'000'000, -5, 999'999'999, 0};
  const std::string all = EntryFrame(entry) + FrameHead('D', 3) + "xyz" + FrameHead('Z', 0);
  for (size_t step = 1; step <= all.size(); ++step) {
    FrameReader reader;
    bool nonsense = false;
    std::string types, data;
    for (size_t at = 0; at < all.size(); at += step) {
      reader.Add(std::string_view(all).substr(at, step));
      while (const auto frame = reader.Take(nonsense)) {
        types += frame->type;
        if (frame->type == 'E') {
          EXPECT_EQ(frame->entry, entry);
        }
        if (frame->type == 'D') data += frame->data;
      }
    }
    EXPECT_FALSE(nonsense);
    EXPECT_EQ(types, "EDZ") << step;
    EXPECT_EQ(data, "xyz");
    EXPECT_TRUE(reader.empty());
  }
}

TEST(Frames, NonsenseIsNonsenseForGood) {
  std::string long_name = EntryFrame({});
  long_name[5 + 33] = '\x7f';
  const std::string cases[] = {FrameHead('X', 0), FrameHead('D', 0),       FrameHead('D', kMostFrameData + 1),
                               FrameHead('Z', 1), FrameHead('E', 1 << 20), FrameHead('E', 3) + "abc",
                               long_name};
  for (const std::string& bytes : cases) {
    FrameReader reader;
    bool nonsense = false;
    reader.Add(bytes);
    EXPECT_FALSE(reader.Take(nonsense).has_value());
    EXPECT_TRUE(nonsense);
    reader.Add(FrameHead('Z', 0));
    nonsense = false;
    EXPECT_FALSE(reader.Take(nonsense).has_value());
    EXPECT_TRUE(nonsense);
  }
}

}  // namespace
}  // namespace litefleet::files
