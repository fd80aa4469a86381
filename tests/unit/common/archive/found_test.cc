#include "common/archive/found.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

namespace litefleet::archive {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

// What moves while a directory is listed, at the moment at which it moves.
class FoundTest : public testing::Test {
 protected:
  FoundTest() {
    std::string pattern = (fs::canonical(fs::temp_directory_path()) / "lf-found-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    rules_.include = {"**"};
  }
  ~FoundTest() override { fs::remove_all(root_); }

  void Write(const std::string& name) {
    fs::create_directories(fs::path(root_ + "/" + name).parent_path());
    std::ofstream(root_ + "/" + name) << "x";
  }
  void Rename(const std::string& from, const std::string& to) { fs::rename(root_ + "/" + from, root_ + "/" + to); }
  std::vector<std::string> Names() {
    const int root = open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    walked_ = Walk(root, rules_, [&](const std::string& directory, std::vector<std::string>& names) {
      if (hook_) hook_(directory, names);
    });
    close(root);
    EXPECT_EQ(walked_.reason, "") << walked_.text;
    std::vector<std::string> names;
    for (const Found& found : walked_.found) names.push_back(found.entry.name);
    return names;
  }
  std::string Told(const char* note) { return walked_.remarks[note].Text(); }
  static void Drop(std::vector<std::string>& names, const std::string& name) { std::erase(names, name); }

  std::string root_;
  files::Rules rules_;
  ListHook hook_;
  Walked walked_;
};

// One that was replaced by a rename while the directory was read.
TEST_F(FoundTest, ANameThatComesTwiceIsThereOnce) {
  Write("x");
  Write("sub/x");
  hook_ = [](const std::string& directory, std::vector<std::string>& names) {
    names.emplace_back("x");
    if (directory.empty()) names.emplace_back("sub");
  };
  EXPECT_THAT(Names(), ElementsAre("sub", "sub/x", "x"));
  EXPECT_THAT(walked_.remarks, IsEmpty());
}

// Renamed to a name before those that were read, from one behind them.
TEST_F(FoundTest, ANameThatNeverCameIsFoundAtTheNextReading) {
  Write("sub/a");
  Write("sub/y");
  int lists = 0;
  hook_ = [&](const std::string& directory, std::vector<std::string>& names) {
    if (directory != "sub" || lists++ > 0) return;
    Rename("sub/y", "sub/z");
    Drop(names, "y");
  };
  EXPECT_THAT(Names(), ElementsAre("sub", "sub/a", "sub/z"));
  EXPECT_THAT(walked_.remarks, IsEmpty());
}

TEST_F(FoundTest, AFileThatIsRenamedAfterItWasLookedAtIsThereUnderItsNewName) {
  Write("sub/a");
  Write("sub/tmp/b");
  int lists = 0;
  hook_ = [&](const std::string& directory, std::vector<std::string>&) {
    if (directory == "sub" && ++lists == 1) Write("sub/c");  // so that it is read again
    if (directory == "sub" && lists == 2) Rename("sub/tmp", "sub/new");
  };
  EXPECT_THAT(Names(), ElementsAre("sub", "sub/a", "sub/c", "sub/new", "sub/new/b"));
  EXPECT_THAT(walked_.remarks, IsEmpty());
}

TEST_F(FoundTest, NamesThatNeverKeepStillAreTold) {
  Write("sub/a");
  Write("sub/y");
  bool moved = false;
  hook_ = [&](const std::string& directory, std::vector<std::string>& names) {
    if (directory != "sub") return;
    moved = !moved;
    Rename(moved ? "sub/y" : "sub/z", moved ? "sub/z" : "sub/y");
    // Seen under the one name or the other, or not at all.
    names = moved ? std::vector<std::string>{"a"} : std::vector<std::string>{"a", "y"};
  };
  Names();
  EXPECT_EQ(Told(files::kMovedNote), "sub");
}

// What is not meant, and what SQLite makes for a transaction, says nothing about the rest.
TEST_F(FoundTest, WhatIsLeftOutMayComeAndGo) {
  Write("sub/a");
  Write("sub/app.db");
  rules_.exclude = {"**/*.tmp"};
  int lists = 0;
  hook_ = [&](const std::string& directory, std::vector<std::string>& names) {
    if (directory != "sub") return;
    Write("sub/" + std::to_string(++lists) + ".tmp");
    if (lists % 2 == 0) names.emplace_back("app.db-journal");
  };
  Names();
  EXPECT_GT(lists, 1) << "it was read again";
  EXPECT_EQ(Told(files::kMovedNote), "");
}

// "a" was listed before the file came to it, "b" after the file had gone.
TEST_F(FoundTest, AFileThatMovesIntoADirectoryThatWasListedBeforeIsTold) {
  Write("a/x");
  Write("b/y");
  bool done = false;
  hook_ = [&](const std::string& directory, std::vector<std::string>& names) {
    if (directory != "b" || std::exchange(done, true)) return;
    Rename("b/y", "a/y");
    Drop(names, "y");
  };
  EXPECT_THAT(Names(), ElementsAre("a", "a/x", "b"));
  EXPECT_EQ(Told(files::kMovedNote), "a");
}

}  // namespace
}  // namespace litefleet::archive
