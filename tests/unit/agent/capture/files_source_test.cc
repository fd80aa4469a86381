// Plain files as text, through the helper process: what is told, and what counts as unchanged.
#include "agent/capture/files_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <utility>

#include "common/base/status.h"

namespace litefleet::capture {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

class FilesSourceTest : public testing::Test {
 protected:
  FilesSourceTest() {
    std::string pattern = (fs::canonical(fs::temp_directory_path()) / "lf-files-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    options_.root = root_;
    options_.rules.include = {"**"};
    options_.clock = &clock_;
    options_.notes = [this](const std::vector<std::string>& notes) { notes_ = notes; };
  }
  ~FilesSourceTest() override { fs::remove_all(root_); }
  void Write(const std::string& name, const std::string& content) const { std::ofstream(root_ + "/" + name, std::ios::binary) << content; }
  absl::Status Read() {
    bytes_.clear();
    auto source = OpenFilesSource(options_);
    if (!source.ok()) return source.status();
    for (;;) {
      const auto piece = (*source)->Next();
      if (!piece.ok()) return piece.status();
      if (piece->empty()) break;
      bytes_ += AsText(*piece);
    }
    EXPECT_EQ((*source)->read_bytes(), static_cast<int64_t>(bytes_.size()));
    damage_ = (*source)->damage();
    return (*source)->Close();
  }
  std::string Facts() {
    const auto facts = FactsOfFiles(options_);
    EXPECT_TRUE(facts.ok()) << facts.status();
    return facts.ok() ? facts->text : "";
  }

  RealClock clock_;
  std::string root_;
  FilesOptions options_;
  std::vector<std::string> notes_;
  std::string bytes_;
  std::string damage_;
};

TEST_F(FilesSourceTest, TheArchiveAndWhatIsTold) {
  Write("a", std::string(300'000, 'a'));
  Write("app.db", std::string("SQLite format 3\0", 16));
  ASSERT_TRUE(Read().ok());
  EXPECT_NE(bytes_.find(std::string(1000, 'a')), std::string::npos);
  EXPECT_THAT(notes_, Contains(HasSubstr("app.db")));
  EXPECT_EQ(damage_, "") << "what was left out for good is no doubt";
  const std::string first = bytes_;
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(bytes_, first);
}

// As where the root is not mounted: the snapshot is no good one.
TEST_F(FilesSourceTest, AnArchiveOfNothingIsInDoubt) {
  ASSERT_TRUE(Read().ok());
  EXPECT_THAT(damage_, HasSubstr("no file is what include means"));
  EXPECT_THAT(damage_, HasSubstr(root_));
}

TEST_F(FilesSourceTest, RefusalsHaveAReasonAndAHint) {
  Write("a", std::string(3000, 'a'));
  options_.rules.max_bytes = 2000;
  absl::Status status = Read();
  EXPECT_EQ(ReasonOf(status), "FILES_TOO_LARGE");
  EXPECT_THAT(MessageOf(status), HasSubstr(root_));
  EXPECT_NE(HintOf(status), "");
  options_.root = root_ + "/none";
  status = Read();
  EXPECT_EQ(ReasonOf(status), "ROOT_MISSING");
  EXPECT_FALSE(FactsOfFiles(options_).ok());
  options_.helper.helper = "/none";
  EXPECT_EQ(ReasonOf(Read()), "CHECK_HELPER_FAILED");
}

TEST_F(FilesSourceTest, ACancelEndsIt) {
  Write("a", std::string(1 << 20, 'a'));
  options_.helper.cancelled = [] { return true; };
  EXPECT_TRUE(absl::IsCancelled(Read()));
}

// In the middle of a file, when some of the archive has been handed on.
TEST_F(FilesSourceTest, ACancelEndsAnArchiveThatIsRead) {
  Write("a", std::string(8 << 20, 'a'));
  std::atomic<bool> cancelled{false};
  options_.helper.cancelled = [&] { return cancelled.load(); };
  auto source = OpenFilesSource(options_);
  ASSERT_TRUE(source.ok()) << source.status();
  absl::StatusOr<ByteView> piece = (*source)->Next();
  ASSERT_TRUE(piece.ok()) << piece.status();
  ASSERT_FALSE(piece->empty());
  cancelled = true;
  while (piece.ok() && !piece->empty()) piece = (*source)->Next();
  EXPECT_TRUE(absl::IsCancelled(piece.status())) << piece.status();
  EXPECT_LT((*source)->read_bytes(), 8 << 20);
}

TEST_F(FilesSourceTest, FactsTellWhatChanged) {
  Write("a", "one");
  Write("b", "two");
  std::string before = Facts();
  EXPECT_EQ(Facts(), before);
  const auto differs = [&](const std::function<void()>& change) {
    change();
    return std::exchange(before, Facts()) != before;
  };
  EXPECT_TRUE(differs([&] { Write("a", "eno"); }));
  EXPECT_TRUE(differs([&] { chmod((root_ + "/a").c_str(), 0600); }));
  EXPECT_TRUE(differs([&] { fs::rename(root_ + "/a", root_ + "/c"); }));
  EXPECT_TRUE(differs([&] { fs::remove(root_ + "/b"); }));
  EXPECT_TRUE(differs([&] { fs::create_symlink("c", root_ + "/l"); }));
  EXPECT_TRUE(differs([&] { fs::create_directory(root_ + "/d"); }));
  EXPECT_TRUE(differs([&] { options_.rules.exclude = {"nothing"}; })) << "it is another question";
  EXPECT_FALSE(differs([&] { std::ifstream(root_ + "/c").get(); })) << "to be read is no change";
  EXPECT_FALSE(FactsOfFiles(options_)->settled) << "they were written just now";
}

}  // namespace
}  // namespace litefleet::capture
