#include "common/archive/pack.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <grp.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <thread>

#include "common/archive/unpack.h"
#include "common/files/entry.h"

namespace litefleet::archive {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
namespace fs = std::filesystem;

std::chrono::steady_clock::time_point InAWhile() { return std::chrono::steady_clock::now() + std::chrono::milliseconds(1500); }

class PackTest : public testing::Test {
 protected:
  PackTest() {
    std::string pattern = (fs::canonical(fs::temp_directory_path()) / "lf-pack-XXXXXX").string();
    root_ = mkdtemp(pattern.data());
    options_.root = root_;
    options_.rules.include = {"**"};
  }
  ~PackTest() override { fs::remove_all(root_); }

  void Write(const std::string& name, const std::string& content, mode_t mode = 0644) {
    fs::create_directories(fs::path(root_ + "/" + name).parent_path());
    std::ofstream(root_ + "/" + name, std::ios::binary) << content;
    chmod((root_ + "/" + name).c_str(), mode);
  }
  Packed Run() {
    bytes_.clear();
    return Pack(options_, [&](std::string_view piece) {
      if (during_) std::exchange(during_, nullptr)();
      bytes_ += piece;
      return true;
    });
  }
  // Content by name, a trailing slash for directories, an arrow for links.
  std::map<std::string, std::string> Content(std::string* problem = nullptr) {
    std::map<std::string, std::string> found;
    files::FrameReader reader;
    std::string last, why;
    std::string_view left = bytes_;
    why = Unpack(
        [&](std::string_view& piece) {
          piece = left.substr(0, 1000);
          left.remove_prefix(piece.size());
          return true;
        },
        [&](std::string_view frame) {
          reader.Add(frame);
          bool nonsense = false;
          while (const auto next = reader.Take(nonsense)) {
            if (next->type == 'E') {
              entries_[next->entry.name] = next->entry;
              last = next->entry.name;
              if (next->entry.kind == files::EntryKind::kDirectory) last += "/";
              if (next->entry.kind == files::EntryKind::kLink) last += " -> " + next->entry.link;
              found[last];
            }
            if (next->type == 'D') found[last] += next->data;
          }
          return !nonsense;
        });
    if (problem != nullptr) *problem = why;
    if (problem == nullptr) {
      EXPECT_EQ(why, "");
    }
    return found;
  }

  std::string root_;
  PackOptions options_;
  std::string bytes_;
  std::function<void()> during_;
  std::map<std::string, files::Entry> entries_;
};

TEST_F(PackTest, WhatIsMeantWithItsDirectories) {
  Write("a.conf", "one", 0640);
  Write("sub/deep/b.conf", std::string(5000, 'b'));
  Write("sub/c.txt", "not meant");
  Write("other/d.txt", "not meant");
  options_.rules.include = {"**/*.conf"};
  const Packed packed = Run();
  ASSERT_EQ(packed.end, PackEnd::kOk) << packed.text;
  EXPECT_THAT(packed.notes, IsEmpty());
  const std::map<std::string, std::string> wanted = {
      {"a.conf", "one"}, {"sub/", ""}, {"sub/deep/", ""}, {"sub/deep/b.conf", std::string(5000, 'b')}};
  EXPECT_EQ(Content(), wanted);
  struct stat st {};
  stat((root_ + "/a.conf").c_str(), &st);
  EXPECT_EQ(entries_["a.conf"].mode, 0640U);
  EXPECT_EQ(entries_["a.conf"].uid, st.st_uid);
  EXPECT_EQ(entries_["a.conf"].seconds, st.st_mtim.tv_sec);
  EXPECT_EQ(entries_["a.conf"].nanoseconds, st.st_mtim.tv_nsec);
}

TEST_F(PackTest, TheSameFilesAreTheSameBytes) {
  for (int i = 0; i < 50; ++i) Write("d" + std::to_string(i % 7) + "/f" + std::to_string(i), std::string(i * 100, 'x'));
  Write("-rf", "x");
  Write("\xc3\xa4 umlaut", "x");
  Write("\xff\xfe no text\n", "x");
  Write(std::string(200, 'l') + "/" + std::string(200, 'm'), "long");
  ASSERT_EQ(Run().end, PackEnd::kOk);
  const std::string first = bytes_;
  // Read meanwhile, which changes the times of access.
  std::ifstream(root_ + "/-rf").get();
  utimensat(AT_FDCWD, root_.c_str(), nullptr, 0);
  ASSERT_EQ(Run().end, PackEnd::kOk);
  EXPECT_EQ(bytes_, first);
  const auto content = Content();
  EXPECT_EQ(content.count("\xff\xfe no text\n"), 1U);
  EXPECT_EQ(content.at(std::string(200, 'l') + "/" + std::string(200, 'm')), "long");
  options_.list_only = true;
  ASSERT_EQ(Run().end, PackEnd::kOk);
  const std::string list = bytes_;
  ASSERT_EQ(Run().end, PackEnd::kOk);
  EXPECT_EQ(bytes_, list);
  chmod((root_ + "/-rf").c_str(), 0600);
  ASSERT_EQ(Run().end, PackEnd::kOk);
  EXPECT_NE(bytes_, list);
}

TEST_F(PackTest, LinksAreKeptAndNeverFollowed) {
  Write("sub/file", "x");
  fs::create_symlink("sub/file", root_ + "/in");
  fs::create_symlink("../in", root_ + "/sub/up");
  fs::create_symlink("nowhere", root_ + "/dangling");
  fs::create_symlink("/etc", root_ + "/absolute");
  fs::create_symlink("../..", root_ + "/sub/out");
  fs::create_symlink("sub", root_ + "/directory");
  const Packed packed = Run();
  ASSERT_EQ(packed.end, PackEnd::kOk) << packed.text;
  EXPECT_THAT(packed.notes, Contains(HasSubstr("symbolic links out of the root: absolute, sub/out")));
  const std::map<std::string, std::string> wanted = {{"dangling -> nowhere", ""}, {"directory -> sub", ""},
                                                     {"in -> sub/file", ""},      {"sub/", ""},
                                                     {"sub/file", "x"},           {"sub/up -> ../in", ""}};
  EXPECT_EQ(Content(), wanted);
}

TEST_F(PackTest, ARootThatIsALinkIsRefused) {
  fs::create_directory(root_ + "/real");
  fs::create_symlink("real", root_ + "/alias");
  options_.root = root_ + "/alias";
  EXPECT_EQ(Run().reason, "ROOT_NOT_DIRECTORY");
  options_.root = root_ + "/none";
  EXPECT_EQ(Run().reason, "ROOT_MISSING");
}

TEST_F(PackTest, NeitherDatabasesNorDevices) {
  const std::string header("SQLite format 3\0", 16);
  Write("app.db", header + std::string(4096, 'x'));
  Write("odd", "encrypted, but a WAL is beside it");
  Write("odd-wal", "frames");
  Write("old-journal", "no database of that name");
  Write(".litefleet-x", "ours");
  Write("empty", "");
  mkfifo((root_ + "/pipe").c_str(), 0600);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{AF_UNIX, {}};
  root_.copy(address.sun_path, sizeof(address.sun_path) - 10);
  strcat(address.sun_path, "/socket");
  ASSERT_EQ(bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  close(fd);
  const Packed packed = Run();
  ASSERT_EQ(packed.end, PackEnd::kOk) << packed.text;
  EXPECT_THAT(packed.notes, Contains(HasSubstr("[[database]]): app.db, odd, odd-wal")));
  EXPECT_THAT(packed.notes, Contains(HasSubstr("sockets, pipes or devices: pipe, socket")));
  const std::map<std::string, std::string> wanted = {{"empty", ""}, {"old-journal", "no database of that name"}};
  EXPECT_EQ(Content(), wanted);
}

// What no restore may replace.
TEST_F(PackTest, NoConfiguredDatabaseAndNoLinkToOne) {
  Write("new.db", "");
  Write("sub/later.db", "");
  Write("a", "x");
  fs::create_symlink("sub/later.db", root_ + "/link.db");
  fs::create_symlink("a", root_ + "/link");
  options_.rules.databases = {root_ + "/new.db", root_ + "/link.db", root_ + "/none.db"};
  const Packed packed = Run();
  ASSERT_EQ(packed.end, PackEnd::kOk) << packed.text;
  EXPECT_THAT(packed.notes,
              Contains(HasSubstr("SQLite databases or belong to one (configure each as a [[database]]): link.db, new.db, sub/later.db")));
  const std::map<std::string, std::string> wanted = {{"a", "x"}, {"link -> a", ""}, {"sub/", ""}};
  EXPECT_EQ(Content(), wanted);
}

TEST_F(PackTest, CapsRefuseTheWholeAndNameWhatIsTooMuch) {
  Write("small", "x");
  Write("large", std::string(3000, 'x'));
  options_.rules.max_file_bytes = 2000;
  Packed packed = Run();
  EXPECT_EQ(packed.end, PackEnd::kRefused);
  EXPECT_EQ(packed.reason, "FILES_TOO_LARGE");
  EXPECT_THAT(packed.text, HasSubstr("large (3000 bytes)"));
  EXPECT_EQ(bytes_, "");
  options_.rules.max_file_bytes = 3000;
  options_.rules.max_bytes = 3000;
  packed = Run();
  EXPECT_EQ(packed.reason, "FILES_TOO_LARGE");
  EXPECT_THAT(packed.text, HasSubstr("3001 bytes"));
  EXPECT_THAT(packed.text, HasSubstr("large (3000 bytes), small (1 bytes)"));
  options_.rules.max_bytes = 3001;
  EXPECT_EQ(Run().end, PackEnd::kOk);
  options_.rules.max_files = 2;
  EXPECT_EQ(Run().end, PackEnd::kOk);
  options_.rules.max_files = 1;
  EXPECT_EQ(Run().reason, "TOO_MANY_FILES");
  options_.rules.exclude = {"large"};
  EXPECT_EQ(Run().end, PackEnd::kOk);
}

TEST_F(PackTest, DirectoriesWithoutEnd) {
  std::string path = root_;
  for (int i = 0; i <= files::kMostDepth + 1; ++i) path += "/d";
  fs::create_directories(path);
  EXPECT_EQ(Run().reason, "TOO_MANY_FILES");
}

// A mount of the same file system has the device of the root.
TEST_F(PackTest, WhatIsMountedIntoTheRootIsLeftOut) {
  Write("a", "x");
  Write("from/b", "x");
  Write("dir/under", "x");
  Write("sub/file", "x");
  options_.rules.exclude = {"from/**"};
  const auto mounted = [&](const std::string& from, const std::string& to) {
    return mount((root_ + from).c_str(), (root_ + to).c_str(), nullptr, MS_BIND, nullptr) == 0;
  };
  const pid_t pid = fork();
  if (pid == 0) {
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 || !mounted("/from", "/dir") || !mounted("/a", "/sub/file")) _exit(77);
    const Packed packed = Run();
    std::string all;
    for (const std::string& note : packed.notes) all += note + "; ";
    const std::map<std::string, std::string> wanted = {{"a", "x"}, {"sub/", ""}};
    auto content = Content();
    content.erase("from/");
    const bool right =
        packed.end == PackEnd::kOk && all.find("another file system: dir, sub/file") != std::string::npos && content == wanted;
    if (!right) std::cerr << packed.reason << " " << packed.text << " " << all << "\n";
    _exit(right ? 0 : 1);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "nothing can be mounted here";
  EXPECT_EQ(status, 0);
}

TEST_F(PackTest, WhatCannotBeReadIsRefusedByName) {
  Write("a", "x");
  Write("secret", "x", 0000);
  chmod(root_.c_str(), 0755);
  // Root reads everything: somebody else packs.
  const pid_t pid = fork();
  if (pid == 0) {
    if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0)) _exit(2);
    const Packed packed = Run();
    const bool right = packed.reason == "FILES_UNREADABLE" && packed.text.find("secret") != std::string::npos;
    if (!right) std::cerr << packed.reason << " " << packed.text << "\n";
    _exit(right ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(PackTest, NothingThatIsMeantIsToldAndIsAnArchive) {
  options_.rules.include = {"*.none"};
  const Packed packed = Run();
  EXPECT_EQ(packed.end, PackEnd::kOk);
  EXPECT_THAT(packed.notes, Contains(HasSubstr("no file is what include means")));
  EXPECT_THAT(Content(), IsEmpty());
}

// A large file is read while it is sent; the first piece of the archive comes before its content does.
class ChangingTest : public PackTest {
 protected:
  ChangingTest() {
    Write("a", std::string(3 << 20, 'a'));
    Write("z", "small");
  }
};

TEST_F(ChangingTest, IsAskedForAgain) {
  during_ = [&] { std::ofstream(root_ + "/a", std::ios::app) << "more"; };
  const Packed packed = Run();
  EXPECT_EQ(packed.end, PackEnd::kChanged);
  EXPECT_EQ(packed.reason, "SOURCE_CHANGED");
  EXPECT_THAT(packed.text, HasSubstr("a changed"));
}

TEST_F(ChangingTest, IsTakenAsItWasReadAndTold) {
  options_.tolerant = true;
  during_ = [&] { std::ofstream(root_ + "/a", std::ios::app) << "more"; };
  const Packed packed = Run();
  ASSERT_EQ(packed.end, PackEnd::kOk) << packed.text;
  ASSERT_EQ(packed.notes.size(), 1U);
  EXPECT_TRUE(files::TellsOfChange(packed.notes[0])) << packed.notes[0];
  const auto content = Content();
  EXPECT_EQ(content.at("a"), std::string(3 << 20, 'a'));
  EXPECT_EQ(content.at("z"), "small");
}

// What is packed is what a restore counts.
TEST_F(ChangingTest, OnesThatGrowBeyondTheLimitAreRefused) {
  for (const bool tolerant : {false, true}) {
    options_.tolerant = tolerant;
    Write("z", "small");
    options_.rules.max_bytes = (3 << 20) + 1000;
    during_ = [&] { Write("z", std::string(1001, 'z')); };
    const Packed packed = Run();
    EXPECT_EQ(packed.end, PackEnd::kRefused);
    EXPECT_EQ(packed.reason, "FILES_TOO_LARGE");
    EXPECT_THAT(packed.text, HasSubstr("grew to more than max_bytes"));
  }
}

TEST_F(ChangingTest, OneThatShrinksIsNeverTaken) {
  options_.tolerant = true;
  during_ = [&] { fs::resize_file(root_ + "/a", 1 << 20); };
  EXPECT_EQ(Run().end, PackEnd::kChanged);
}

// That it cannot be opened does not say that it is not there.
TEST_F(ChangingTest, OneThatCannotBeOpenedIsNotTakenForRemoved) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  for (const bool tolerant : {false, true}) {
    options_.tolerant = tolerant;
    during_ = [&] {
      const rlimit none{0, before.rlim_max};
      setrlimit(RLIMIT_NOFILE, &none);
    };
    const Packed packed = Run();
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_EQ(packed.end, PackEnd::kRefused);
    EXPECT_EQ(packed.reason, "FILES_UNREADABLE");
    EXPECT_THAT(packed.text, HasSubstr("z: "));
  }
}

TEST_F(ChangingTest, OneThatGoesAndOneThatBecomesALink) {
  for (const bool tolerant : {false, true}) {
    SCOPED_TRACE(tolerant);
    options_.tolerant = tolerant;
    Write("y", "was here");
    Write("z", "small");
    during_ = [&] {
      fs::remove(root_ + "/y");
      fs::remove(root_ + "/z");
      fs::create_symlink("/etc/passwd", root_ + "/z");
    };
    const Packed packed = Run();
    fs::remove(root_ + "/z");
    EXPECT_EQ(packed.end, tolerant ? PackEnd::kOk : PackEnd::kChanged);
    if (!tolerant) continue;
    EXPECT_THAT(packed.notes, Contains(HasSubstr("removed meanwhile: y, z")));
    EXPECT_EQ(Content().size(), 1U);
  }
}

TEST_F(PackTest, AFileThatIsRenamedDuringTheWalkIsFoundOrTold) {
  Write("sub/y", "x");
  // Looked at between the names and the file.
  for (int i = 0; i < 100; ++i) Write("sub/" + std::to_string(i), "x");
  std::atomic<bool> stop{false};
  std::thread renamer([&] {
    const std::string y = root_ + "/sub/y", z = root_ + "/sub/z";
    while (!stop) {
      rename(y.c_str(), z.c_str());
      rename(z.c_str(), y.c_str());
    }
  });
  options_.list_only = true;
  int missed = 0, found = 0;
  for (int i = 0; i < 40; ++i) {
    const Packed packed = Run();
    EXPECT_EQ(packed.end, PackEnd::kOk) << packed.text;
    const bool has = bytes_.find("sub/y") != std::string::npos || bytes_.find("sub/z") != std::string::npos;
    const bool told = std::any_of(packed.notes.begin(), packed.notes.end(), files::TellsOfChange);
    found += has ? 1 : 0;
    missed += has || told ? 0 : 1;
    EXPECT_EQ(std::count(bytes_.begin(), bytes_.end(), '\n'), has ? 102 : 101) << "each once";
  }
  stop = true;
  renamer.join();
  EXPECT_EQ(missed, 0);
  EXPECT_GT(found, 0);
}

// Small ones are read again until they keep still, and a large one is not begun before it does.
class TornTest : public PackTest, public testing::WithParamInterface<size_t> {};

TEST_P(TornTest, NoFileIsEver) {
  const size_t size = GetParam();
  Write("counter", std::string(size, '0'));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (char digit = '0'; !stop; digit = digit == '9' ? '0' : static_cast<char>(digit + 1)) {
      const int fd = open((root_ + "/counter").c_str(), O_WRONLY);
      const std::string content(size, digit);
      for (size_t at = 0; at < size; at += size / 10)
        static_cast<void>(pwrite(fd, content.data() + at, size / 10, static_cast<off_t>(at)) < 0);
      close(fd);
      std::this_thread::sleep_for(std::chrono::milliseconds(digit % 3 == 0 ? 60 : 2));
    }
  });
  const auto whole = [&] {
    const std::string content = Content().at("counter");
    return content == std::string(size, content[0]);
  };
  for (const auto until = InAWhile(); std::chrono::steady_clock::now() < until;) {
    const bool taken = Run().end == PackEnd::kOk;
    EXPECT_TRUE(!taken || whole());
  }
  stop = true;
  writer.join();
  ASSERT_EQ(Run().end, PackEnd::kOk) << "it keeps still";
  EXPECT_TRUE(whole());
}

TEST_F(PackTest, ALargeFileIsNotBegunInTheTickOfAWrite) {
  Write("a", std::string(2 << 20, 'a'));
  timespec begun{};
  during_ = [&] { clock_gettime(CLOCK_REALTIME, &begun); };
  ASSERT_EQ(Run().end, PackEnd::kOk);
  struct stat st {};
  ASSERT_EQ(stat((root_ + "/a").c_str(), &st), 0);
  const double since =
      static_cast<double>(begun.tv_sec - st.st_ctim.tv_sec) + static_cast<double>(begun.tv_nsec - st.st_ctim.tv_nsec) / 1e9;
  EXPECT_GT(since, 0.02);
}

INSTANTIATE_TEST_SUITE_P(SmallAndLarge, TornTest, testing::Values(200'000, 2'000'000));

TEST_F(PackTest, NobodyTakesIt) {
  Write("a", std::string(3 << 20, 'a'));
  const Packed packed = Pack(options_, [](std::string_view) { return false; });
  EXPECT_EQ(packed.end, PackEnd::kFailed);
}

}  // namespace
}  // namespace litefleet::archive
