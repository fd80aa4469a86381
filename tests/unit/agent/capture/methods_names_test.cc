// Databases whose names look like something else, and links to them, by each method.
#include <filesystem>
#include <set>
#include <string>

#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/unit/agent/capture/methods_fixture.h"

namespace litefleet::capture {
namespace {

class OddNamesTest : public MethodsTest {
 protected:
  std::set<std::string> NamesIn(const std::string& directory) const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(Path(directory))) names.insert(entry.path().filename().string());
    return names;
  }
};

TEST_P(OddNamesTest, AreNamesOfFiles) {
  const bool linked = GetParam().state == "linked";
  std::filesystem::create_directories(Path("links"));
  size_t number = 0;
  for (const std::string name : {"-rf.db", "--help", "a b'\".db", "\xc3\xbc\x62\x65r.db", "a?mode=memory&x#y%41.db", "file:x.db",
                                 ":memory:", "$(x).db", "two\nlines.db"}) {
    SCOPED_TRACE(name);
    const std::string database = Path("place/" + name);
    path_ = linked ? Path("links/" + name) : database;
    if (linked) std::filesystem::create_symlink("../place/" + name, path_);
    // The newest state is in the WAL, beside the database and not beside the link.
    Child application([&](const auto& ready, const auto& stop) {
      Connection db(database);
      db.Run("pragma wal_autocheckpoint=0;" + Mode() + kSixHundredRows + Set(7));
      ready();
      while (!stop()) usleep(2000);
      return 0;
    });
    const std::set<std::string> before = NamesIn("place");
    const std::string stored = fmt::format("stored-{}.db", ++number);
    ASSERT_EQ(Take(stored), "") << said_;
    EXPECT_EQ(StateOf(stored), "7");
    EXPECT_EQ(wal_, Wal());
    EXPECT_EQ(NamesIn("place"), before) << "nothing is left beside it";
    EXPECT_EQ(application.Stop(), 0);
  }
  EXPECT_EQ(NamesIn("links").size(), linked ? number : 0u);
}

std::vector<Cell> NamesCells() {
  std::vector<Cell> cells;
  for (const char* method : {"online", "file", "dump"}) {
    for (const char* mode : {"delete", "wal"}) {
      for (const char* state : {"named", "linked"}) cells.push_back({method, mode, state});
    }
  }
  return cells;
}

INSTANTIATE_TEST_SUITE_P(Odd, OddNamesTest, testing::ValuesIn(NamesCells()), NameOf);

}  // namespace
}  // namespace litefleet::capture
