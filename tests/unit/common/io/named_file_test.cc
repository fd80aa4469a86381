#include "common/io/named_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::io {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr NamedBy kToken{"--token-file", "make one"};

class NamedFileTest : public testing::Test {
 protected:
  NamedFileTest() {
    std::string pattern = testing::TempDir() + "lf-named-XXXXXX";
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  ~NamedFileTest() override { std::filesystem::remove_all(folder_); }
  std::string Path(const std::string& name) const { return folder_ + "/" + name; }
  static std::string Told(const absl::Status& status) {
    return fmt::format("{} {}: {} / {}", static_cast<int>(status.code()), ReasonOf(status), MessageOf(status), HintOf(status));
  }
  static std::string Told(absl::StatusCode code, const std::string& rest) { return fmt::format("{} {}", static_cast<int>(code), rest); }

  std::string folder_;
};

TEST_F(NamedFileTest, TheErrorSaysByWhatTheFileWasNamedAndWhatToDo) {
  std::ofstream(Path("token")) << "text";
  EXPECT_EQ(*ReadNamedFile(Path("token"), kToken), "text");
  EXPECT_EQ(Told(ReadNamedFile(Path("none"), kToken).status()),
            Told(absl::StatusCode::kNotFound, "FILE_NOT_FOUND: --token-file: there is no file " + Path("none") + " / make one"));
  EXPECT_EQ(Told(ReadNamedFile(Path("token/below"), kToken).status()),
            Told(absl::StatusCode::kNotFound, "FILE_NOT_FOUND: --token-file: there is no file " + Path("token/below") + " / make one"));
  EXPECT_EQ(Told(ReadNamedFile(folder_, kToken).status()),
            Told(absl::StatusCode::kInvalidArgument, "FILE_INVALID: --token-file: " + folder_ + " is a directory / name the file in it"));
  EXPECT_EQ(ReasonOf(ReadNamedFile("", kToken).status()), "FILE_INVALID");
  const absl::Status large = ReadNamedFile(Path("token"), kToken, 3).status();
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(MessageOf(large), AllOf(HasSubstr("--token-file: "), HasSubstr(Path("token"))));
}

TEST_F(NamedFileTest, ARelativePathIsShownWithTheDirectoryThatItCountsFrom) {
  const std::string here = std::filesystem::current_path();
  EXPECT_THAT(MessageOf(ReadNamedFile("none-such", kToken).status()), HasSubstr("none-such in " + here));
}

TEST_F(NamedFileTest, WhatMayNotBeReadIsNotMissing) {
  std::ofstream(Path("token")) << "text";
  std::filesystem::create_directory(Path("closed"));
  ASSERT_EQ(chmod(folder_.c_str(), 0755), 0);
  ASSERT_EQ(chmod(Path("token").c_str(), 0600), 0);
  ASSERT_EQ(chmod(Path("closed").c_str(), 0700), 0);
  // As a user without rights.
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0)) _exit(9);
    const bool ours = access(Path("token").c_str(), R_OK) == 0;  // not root: they are this user's
    const auto refused = [](const absl::Status& status) {
      return status.code() == absl::StatusCode::kPermissionDenied && ReasonOf(status) == "NO_PERMISSION" && !HintOf(status).empty();
    };
    if (ours) _exit(0);
    if (!refused(ReadNamedFile(Path("token"), kToken).status())) _exit(1);
    if (!refused(ReadNamedFile(Path("closed/token"), kToken).status())) _exit(2);
    if (!refused(CheckNamedOutput(Path("new"), "--output"))) _exit(3);
    if (!refused(CheckNamedOutput(Path("closed/new"), "--output"))) _exit(4);
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(NamedFileTest, AnOutputNeedsItsDirectory) {
  EXPECT_TRUE(CheckNamedOutput(Path("new"), "--output").ok());
  std::ofstream(Path("file")) << "text";
  for (const std::string& path : {Path("none/new"), Path("file/new")}) {
    const absl::Status status = CheckNamedOutput(path, "--output");
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_EQ(ReasonOf(status), "DIRECTORY_NOT_FOUND") << path;
    EXPECT_THAT(MessageOf(status), HasSubstr("--output: "));
  }
}

}  // namespace
}  // namespace litefleet::io
