// The helper at work, and the time that it gets.
#include "common/files/files_process.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "common/base/status.h"

namespace litefleet::files {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class FilesProcessTest : public testing::Test {
 protected:
  FilesProcessTest() {
    std::string pattern = (fs::canonical(fs::temp_directory_path()) / "lf-files-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    rules_.include = {"**"};
    helper_.time = std::chrono::seconds(1);
  }
  ~FilesProcessTest() override { fs::remove_all(root_); }

  std::string root_;
  Rules rules_;
  FilesHelper helper_;
};

TEST_F(FilesProcessTest, WhoTakesThemMayTakeHisTime) {
  for (int i = 0; i < 8; ++i) std::ofstream(root_ + "/" + std::to_string(i)) << std::string(64 << 10, 'x');
  auto pack = PackProcess::Start(helper_, root_, rules_, PackProcess::What::kArchive);
  ASSERT_TRUE(pack.ok()) << pack.status();
  Bytes archive;
  for (;;) {
    const auto piece = (*pack)->Next();
    ASSERT_TRUE(piece.ok()) << piece.status();
    if (piece->empty()) break;
    archive.insert(archive.end(), piece->begin(), piece->end());
    std::this_thread::sleep_for(milliseconds(200));
  }
  bool given = false;
  const auto more = [&]() -> absl::StatusOr<ByteView> { return std::exchange(given, true) ? ByteView() : ByteView(archive); };
  auto unpack = UnpackProcess::Start(helper_, more, 0);
  ASSERT_TRUE(unpack.ok()) << unpack.status();
  int count = 0;
  const absl::Status ran = (*unpack)->Run(
      [&](const Entry&) {
        ++count;
        std::this_thread::sleep_for(milliseconds(200));
        return absl::OkStatus();
      },
      [](ByteView) { return absl::OkStatus(); });
  EXPECT_TRUE(ran.ok()) << ran;
  EXPECT_EQ(count, 8);
}

TEST_F(FilesProcessTest, AHelperThatDoesNothingIsGivenUp) {
  helper_.helper = root_ + "/helper";
  std::ofstream(helper_.helper) << "#!/bin/sh\nexec sleep 60\n";
  chmod(helper_.helper.c_str(), 0755);
  auto pack = PackProcess::Start(helper_, root_, rules_, PackProcess::What::kArchive);
  ASSERT_TRUE(pack.ok()) << pack.status();
  const absl::Status next = (*pack)->Next().status();
  EXPECT_EQ(ReasonOf(next), "FILES_TIMEOUT") << next;
  EXPECT_NE(HintOf(next), "");
}

}  // namespace
}  // namespace litefleet::files
