// Snapshots of plain files: put in their places, and hostile archives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "absl/cleanup/cleanup.h"
#include "common/base/utf8.h"
#include "common/files/beneath.h"
#include "tests/unit/agent/restore/files_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

void Lose(int capability) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  syscall(SYS_capget, &header, data);
  data[0].effective &= ~(1U << capability);
  syscall(SYS_capset, &header, data);
}

TEST_F(FilesRestoreTest, FilesLinksAndDirectories) {
  const Outcome outcome = RunArchive(Whole());
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.applied);
  EXPECT_EQ(outcome.mode, v1::RESTORE_MODE_REPLACE);
  EXPECT_EQ(Read("a.conf"), "new");
  EXPECT_EQ(Read("sub/-rf"), "option");
  EXPECT_EQ(Read("other"), "stays");
  EXPECT_EQ(fs::read_symlink(data_ + "/sub/link"), "../a.conf");
  EXPECT_EQ(Read("sub/large").size(), 2U << 20);
  struct stat st {};
  ASSERT_EQ(stat((data_ + "/a.conf").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0640U);
  EXPECT_EQ(st.st_mtim.tv_sec, 1'600'000'000);
  EXPECT_EQ(st.st_mtim.tv_nsec, 123'456'789);
  ASSERT_EQ(stat((data_ + "/sub").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0750U);
  EXPECT_EQ(LeftOver(), "");
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("put 3 files and 1 symbolic links in their places, and made 1 directories")));
  // A second time, over what is there.
  fs::permissions(data_ + "/sub", fs::perms::owner_all);
  const Outcome again = Run("01JD0000000000000000000002");
  ASSERT_TRUE(again.status.ok()) << again.status;
  ASSERT_EQ(stat((data_ + "/sub").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0700U) << "a directory that is there stays as it is";
}

TEST_F(FilesRestoreTest, AnArchiveOfNothing) {
  const Outcome outcome = RunArchive({});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  ExpectUntouched();
}

// An archive that no litefleet makes: the whole is refused before anything is changed.
TEST_F(FilesRestoreTest, HostileArchives) {
  const std::string header("SQLite format 3\0", 16);
  const struct {
    std::vector<Item> items;
    const char* reason;
  } cases[] = {
      {{{"a.conf", "new"}, {"../evil", "x"}}, "ARCHIVE_INVALID"},
      {{{"/etc/evil", "x"}}, "ARCHIVE_INVALID"},
      {{Folder("a"), {"a/../../evil", "x"}}, "ARCHIVE_INVALID"},
      {{{"./a.conf", "x"}}, "ARCHIVE_INVALID"},
      {{{"a//b", "x"}}, "ARCHIVE_INVALID"},
      {{{"sub/b", "without its directory"}}, "ARCHIVE_INVALID"},
      {{{"b", "x"}, {"b/c", "in a file"}}, "ARCHIVE_INVALID"},
      {{Link("b", "c"), {"b/c", "in a link"}}, "ARCHIVE_INVALID"},
      {{{"b", "x"}, {"b", "twice"}}, "ARCHIVE_INVALID"},
      {{{"c", "x"}, {"b", "not in order"}}, "ARCHIVE_INVALID"},
      {{Link("b", "/etc/shadow")}, "ARCHIVE_INVALID"},
      {{Folder("d"), Link("d/b", "../../out")}, "ARCHIVE_INVALID"},
      {{{".litefleet-x", "ours"}}, "ARCHIVE_INVALID"},
      {{{"b", header + "x"}}, "ARCHIVE_INVALID"},
      {{{"b", "", 0644, AE_IFCHR, {}, -1}}, "ARCHIVE_INVALID"},
      {{{"b", "", 0644, AE_IFIFO, {}, -1}}, "ARCHIVE_INVALID"},
      {{{"b", "x"}, {"c", "", 0644, AE_IFREG, "/etc/passwd", -1}}, "ARCHIVE_INVALID"},
      {{{std::string(256, 'n'), "x"}}, "ARCHIVE_INVALID"},
      {{Folder("private"), {"private/key", "x"}}, "FILES_NOT_MEANT"},
  };
  for (const auto& each : cases) {
    SCOPED_TRACE(each.items.back().name + " " + each.items.back().content);
    std::ofstream(folder_ + "/evil") << "precious";
    const Outcome outcome = RunArchive(each.items);
    EXPECT_EQ(ReasonOf(outcome.status), each.reason) << outcome.status;
    EXPECT_FALSE(outcome.applied);
    ExpectUntouched();
    EXPECT_EQ(*io::ReadFile(folder_ + "/evil"), "precious");
  }
}

TEST_F(FilesRestoreTest, ADatabaseIsSeenHoweverItsBytesCome) {
  Begin();
  const io::UniqueFd root(files::OpenRoot(data_));
  auto tree = FilesTree::Make(root.get(), target_, ".litefleet-x");
  ASSERT_TRUE(tree.ok()) << tree.status();
  files::Entry entry;
  entry.name = "b";
  entry.size = 100;
  ASSERT_TRUE(tree->Add(entry).ok());
  ASSERT_TRUE(tree->AddContent(AsBytes(std::string_view("SQLite "))).ok());
  EXPECT_EQ(ReasonOf(tree->AddContent(AsBytes(std::string_view("format 3\0more", 13)))), "ARCHIVE_INVALID");
}

// A thousand files of a byte are a thousand blocks.
TEST_F(FilesRestoreTest, TheReserveIsKeptWhileManySmallFilesAreUnpacked) {
  Begin();
  target_.reserve = io::DiskReserve(uint64_t{1} << 60);
  const io::UniqueFd root(files::OpenRoot(data_));
  auto tree = FilesTree::Make(root.get(), target_, ".litefleet-x");
  ASSERT_TRUE(tree.ok()) << tree.status();
  absl::Status status;
  int files = 0;
  for (; status.ok() && files < 2000; ++files) {
    files::Entry entry;
    entry.name = fmt::format("f{:04}", files);
    entry.size = 1;
    status = tree->Add(entry);
    if (status.ok()) status = tree->AddContent(AsBytes(std::string_view("x")));
  }
  EXPECT_EQ(ReasonOf(status), "NOT_ENOUGH_SPACE") << status;
  EXPECT_LE(files, 1100);
}

// A name is any bytes; what is told of it crosses the wire in strings that are UTF-8.
TEST_F(FilesRestoreTest, WhatIsToldIsText) {
  std::string cut = "private";
  while (cut.size() < 199) cut += "x";
  const auto is_text = [](const std::string& text) { return CleanUtf8(text, text.size()) == text; };
  for (const std::string& name : {std::string("b\xe4"), cut + "\u00e4\u00e4"}) {
    target_.files->exclude = {"private/**"};
    Outcome outcome = RunArchive({Folder("private"), {"private/" + name, "x"}});
    EXPECT_EQ(ReasonOf(outcome.status), "FILES_NOT_MEANT");
    EXPECT_TRUE(is_text(MessageOf(outcome.status))) << outcome.status;
    outcome = RunArchive({{name, "", 0644, AE_IFIFO, {}, -1}});  // the helper's words
    EXPECT_EQ(ReasonOf(outcome.status), "ARCHIVE_INVALID");
    EXPECT_TRUE(is_text(MessageOf(outcome.status))) << outcome.status;
    outcome = RunArchive({{name, "x", 02755}});
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(Read(name), "x");
    for (const std::string& step : outcome.steps) EXPECT_TRUE(is_text(step)) << step;
  }
}

TEST_F(FilesRestoreTest, WhatIsNoArchive) {
  for (const std::string& bytes : {std::string(5000, 'x'), std::string("PK\x03\x04"), Archive(Whole()).substr(0, 4000)}) {
    Begin();
    MakeFilesSnapshot(bytes);
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), "ARCHIVE_INVALID") << outcome.status;
    ExpectUntouched();
  }
}

TEST_F(FilesRestoreTest, MoreThanTheDeviceAllows) {
  target_.files->max_file_bytes = 1000;
  EXPECT_EQ(ReasonOf(RunArchive({{"b", std::string(1001, 'x')}}).status), "FILES_TOO_LARGE");
  ExpectUntouched();
  target_.files->max_bytes = 1500;
  EXPECT_EQ(ReasonOf(RunArchive({{"b", std::string(1000, 'x')}, {"c", std::string(501, 'x')}}).status), "FILES_TOO_LARGE");
  ExpectUntouched();
  target_.files->max_files = 2;
  EXPECT_EQ(ReasonOf(RunArchive({{"b", "x"}, {"c", "x"}, {"d", "x"}}).status), "FILES_TOO_LARGE");
  ExpectUntouched();
  target_.files->include = {"*.conf"};
  EXPECT_EQ(ReasonOf(RunArchive({{"a.conf", "x"}, {"b", "x"}}).status), "FILES_NOT_MEANT");
  ExpectUntouched();
}

// A size that is not there: the end of the archive comes first.
TEST_F(FilesRestoreTest, AHugeSizeIsRefusedBeforeItIsWritten) {
  Begin();
  std::string archive = Archive({{"b", "x"}});
  const size_t at = archive.rfind("00000000001", archive.find("ustar", 1024) == std::string::npos ? std::string::npos : archive.size());
  ASSERT_NE(at, std::string::npos);
  archive.replace(at, 11, "77777777777");
  MakeFilesSnapshot(archive);
  EXPECT_FALSE(Run().status.ok());
  ExpectUntouched();
}

TEST_F(FilesRestoreTest, WhatIsInTheirPlacesDecides) {
  const struct {
    std::function<void()> plant;
    const char* reason;
  } cases[] = {
      {[&] { fs::remove(data_ + "/a.conf"), fs::create_directory(data_ + "/a.conf"); }, "TARGET_NOT_FILE"},
      {[&] { Write("sub", "a file"); }, "TARGET_NOT_FILE"},
      {[&] { fs::create_symlink("/tmp", data_ + "/sub"); }, "TARGET_NOT_FILE"},
      {[&] { fs::create_symlink("private", data_ + "/sub"), fs::create_directory(data_ + "/private"); }, "TARGET_NOT_FILE"},
      {[&] {
         fs::remove(data_ + "/a.conf"), fs::create_symlink(folder_ + "/real.db", data_ + "/a.conf");
         target_.databases = {data_ + "/a.conf"};
       },
       "TARGET_IS_DATABASE"},
      {[&] { fs::remove(data_ + "/a.conf"), mkfifo((data_ + "/a.conf").c_str(), 0600); }, "TARGET_NOT_FILE"},
      {[&] { Write("a.conf-journal", "hot"); }, "TARGET_IS_DATABASE"},
      {[&] { fs::create_hard_link(data_ + "/a.conf", folder_ + "/app.db"), target_.databases = {folder_ + "/app.db"}; },
       "TARGET_IS_DATABASE"},
  };
  for (size_t i = 0; i < std::size(cases); ++i) {
    SCOPED_TRACE(i);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    cases[i].plant();
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), cases[i].reason) << outcome.status;
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(LeftOver(), "");
  }
  EXPECT_EQ(Read("a.conf"), "old");
}

// Snapshots have such links, of times when their databases were not configured.
TEST_F(FilesRestoreTest, ALinkToADatabaseIsReplacedByTheSameAlone) {
  for (const bool same : {true, false}) {
    Begin();
    fs::remove(data_ + "/a.conf");
    fs::create_symlink("real.db", data_ + "/a.conf");
    Write("real.db", "precious");
    target_.databases = {data_ + "/a.conf"};
    MakeFilesSnapshot(Archive({Link("a.conf", same ? "real.db" : "other"), {"b", "new"}}));
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), same ? "" : "TARGET_IS_DATABASE") << outcome.status;
    EXPECT_EQ(fs::read_symlink(data_ + "/a.conf"), "real.db");
    EXPECT_EQ(Read("b"), same ? "new" : "nothing");
    EXPECT_EQ(Read("real.db"), "precious");
  }
}

TEST_F(FilesRestoreTest, ADirectoryThatMayNotBeWrittenIsFoundBeforeTheFirstRename) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  fs::create_directory(data_ + "/sub");
  chmod((data_ + "/sub").c_str(), 0555);
  // What root may do beyond its permissions.
  EXPECT_EQ(InAnother([] { Lose(CAP_DAC_OVERRIDE); }), "DIRECTORY_NOT_WRITABLE");
  EXPECT_EQ(Read("a.conf"), "old");
}

TEST_F(FilesRestoreTest, FlagsAreFoundBeforeTheFirstRename) {
  const struct {
    const char* name;
    int flag;
  } cases[] = {{"/sub", FS_APPEND_FL}, {"/sub/-rf", FS_IMMUTABLE_FL}, {"/sub/-rf", FS_APPEND_FL}};
  for (const auto& each : cases) {
    SCOPED_TRACE(each.name);
    Begin();
    MakeFilesSnapshot(Archive(Whole()));
    fs::create_directory(data_ + "/sub");
    Write("sub/-rf", "old");
    const io::UniqueFd fd(open((data_ + each.name).c_str(), O_RDONLY));
    int none = 0, flags = each.flag;
    if (ioctl(fd.get(), FS_IOC_GETFLAGS, &none) != 0 || ioctl(fd.get(), FS_IOC_SETFLAGS, &(flags |= none)) != 0)
      GTEST_SKIP() << "the file system of " << data_ << " has no flags, or they may not be set here";
    const absl::Cleanup clear = [&] { ioctl(fd.get(), FS_IOC_SETFLAGS, &none); };
    const Outcome outcome = Run();
    EXPECT_EQ(ReasonOf(outcome.status), "DIRECTORY_NOT_WRITABLE") << outcome.status;
    EXPECT_THAT(MessageOf(outcome.status), HasSubstr("lsattr"));
    EXPECT_EQ(Read("a.conf"), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(FilesRestoreTest, AStickyDirectoryIsFoundBeforeTheFirstRename) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives a file to another";
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  fs::create_directory(data_ + "/sub");
  Write("sub/-rf", "old");
  ASSERT_EQ(chown((data_ + "/sub/-rf").c_str(), 12345, 12345) + chown((data_ + "/sub").c_str(), 12345, 12345), 0);
  ASSERT_EQ(chmod((data_ + "/sub").c_str(), 01777), 0);
  EXPECT_EQ(InAnother([] { Lose(CAP_FOWNER); }), "DIRECTORY_NOT_WRITABLE");
  EXPECT_EQ(Read("a.conf"), "old");
  fs::remove_all(folder_ + "/state");
  EXPECT_TRUE(Run().status.ok()) << "with it root replaces what it wants";
}

// A quota of a project, for instance, refuses a rename that permissions allow.
TEST_F(FilesRestoreTest, WhatTheKernelRefusesIsFoundBeforeTheFirstRename) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  fs::create_directory(data_ + "/sub");
  // In the way of what asks.
  fs::create_directory(data_ + "/sub/.litefleet-" + kOperation + ".staging-files-probe");
  EXPECT_FALSE(Run().status.ok());
  EXPECT_EQ(Read("a.conf"), "old");
}

// As RestrictSUIDSGID= of systemd does it.
TEST_F(FilesRestoreTest, BitsThatAFilterRefusesAreLeftOutAndTold) {
  Begin();
  chmod((data_ + "/a.conf").c_str(), 06700);
  MakeFilesSnapshot(Archive({{"a.conf", "new", 06755}}));
  const std::string reason = InAnother([] {
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fchmod, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, S_ISUID | S_ISGID, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program{std::size(code), code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
  });
  EXPECT_EQ(reason, "");
  EXPECT_EQ(Read("a.conf"), "new");
  struct stat st {};
  ASSERT_EQ(stat((data_ + "/a.conf").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755U);
  EXPECT_THAT(Run().steps, Contains(HasSubstr("set-group-id bit of 1 files was left out")));
}

TEST_F(FilesRestoreTest, ADirectoryIsThereAsItShouldBeOrNotAtAll) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  ASSERT_TRUE(RunAndCrashAt("files.directory"));
  EXPECT_FALSE(fs::exists(data_ + "/sub"));
  ASSERT_TRUE(Run().status.ok());
  struct stat st {};
  ASSERT_EQ(stat((data_ + "/sub").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0750U);
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(FilesRestoreTest, ALinkAtThePlaceIsReplacedAndNotFollowed) {
  Begin();
  std::ofstream(folder_ + "/precious") << "precious";
  fs::remove(data_ + "/a.conf");
  fs::create_symlink(folder_ + "/precious", data_ + "/a.conf");
  MakeFilesSnapshot(Archive(Whole()));
  ASSERT_TRUE(Run().status.ok());
  EXPECT_FALSE(fs::is_symlink(data_ + "/a.conf"));
  EXPECT_EQ(*io::ReadFile(folder_ + "/precious"), "precious");
}

// Between two steps: the directory of a file becomes a link out of the root.
TEST_F(FilesRestoreTest, ALinkThatIsPlantedMeanwhileIsNotFollowed) {
  fs::create_directory(folder_ + "/outside");
  Begin();
  fs::create_directory(data_ + "/sub");
  MakeFilesSnapshot(Archive(Whole()));
  bool planted = false;
  const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel_, [&](const v1::Progress& progress) {
    if (progress.phase() != "replacing" || std::exchange(planted, true)) return;
    fs::remove(data_ + "/sub");
    fs::create_symlink(folder_ + "/outside", data_ + "/sub");
  });
  EXPECT_TRUE(planted);
  EXPECT_FALSE(outcome.status.ok());
  EXPECT_FALSE(outcome.applied);
  EXPECT_TRUE(fs::is_empty(folder_ + "/outside"));
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(FilesRestoreTest, AStagingDirectoryOfSomebodyElse) {
  fs::create_directory(folder_ + "/outside");
  Begin();
  std::ofstream(folder_ + "/outside/0") << "precious";
  fs::create_symlink(folder_ + "/outside", data_ + "/.litefleet-" + kOperation + ".staging-files");
  MakeFilesSnapshot(Archive(Whole()));
  ASSERT_TRUE(Run().status.ok());
  EXPECT_EQ(*io::ReadFile(folder_ + "/outside/0"), "precious");
  EXPECT_EQ(LeftOver(), "");
}

TEST_F(FilesRestoreTest, NobodyGetsTheRightsOfAnother) {
  std::vector<Item> items = {{"a.conf", "new", 06755}, {"b", "new", 02755}};
  Outcome outcome = RunArchive(items);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  struct stat st {};
  ASSERT_EQ(stat((data_ + "/a.conf").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755U);
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("set-group-id bit of 2 files was left out (the first: a.conf)")));
  // The device itself has given them.
  Begin();
  chmod((data_ + "/a.conf").c_str(), 06700);
  outcome = Run("01JD0000000000000000000002");
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  ASSERT_EQ(stat((data_ + "/a.conf").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 06755U);
}

// The file that is there has them of another owner; the new one would have them of the agent.
TEST_F(FilesRestoreTest, NobodyGetsTheRightsOfTheAgent) {
  if (geteuid() != 0) GTEST_SKIP() << "only root gives a file to another";
  Begin();
  ASSERT_EQ(chown((data_ + "/a.conf").c_str(), 12345, getegid()), 0);
  ASSERT_EQ(chmod((data_ + "/a.conf").c_str(), 04755), 0);
  MakeFilesSnapshot(Archive({{"a.conf", "new", 04755, AE_IFREG, {}, -1, 12345}}));
  EXPECT_EQ(InAnother([] { Lose(CAP_CHOWN); }), "");
  EXPECT_EQ(Read("a.conf"), "new");
  struct stat st {};
  ASSERT_EQ(stat((data_ + "/a.conf").c_str(), &st), 0);
  EXPECT_EQ(st.st_uid, geteuid());
  EXPECT_EQ(st.st_mode & 07777, 0755U);
  const Outcome outcome = Run();
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("set-group-id bit of 1 files was left out (the first: a.conf)")));
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("the owner of 1 files could not be set")));
}

TEST_F(FilesRestoreTest, ANewDirectoryHasItsModeAtTheEnd) {
  Begin();
  MakeFilesSnapshot(
      Archive({Folder("group", 02750), Folder("tight", 0550), Folder("tight/er", 0400), {"tight/er/file", "new"}, Folder("user", 04755)}));
  EXPECT_EQ(InAnother([] { Lose(CAP_DAC_OVERRIDE); }), "");
  const auto mode = [&](const char* name) {
    struct stat st {};
    EXPECT_EQ(stat((data_ + name).c_str(), &st), 0);
    return st.st_mode & 07777;
  };
  EXPECT_EQ(mode("/group"), 02750U);
  EXPECT_EQ(mode("/tight"), 0550U);
  EXPECT_EQ(mode("/tight/er"), 0400U);
  EXPECT_EQ(mode("/user"), 0755U);
  EXPECT_THAT(Run().steps, Contains(HasSubstr("was left out (the first: user)")));
  fs::permissions(data_ + "/tight/er", fs::perms(0700));
  EXPECT_EQ(Read("tight/er/file"), "new");
}

TEST_F(FilesRestoreTest, ANewDirectoryHasItsModeWhereTheRestoreFailsBehindIt) {
  Begin();
  MakeFilesSnapshot(Archive({Folder("tight", 0550), {"tight/file", "new"}, Folder("user", 04755), {"zz", "new"}}));
  const std::string said = folder_ + "/said";
  const pid_t pid = fork();
  if (pid == 0) {
    Lose(CAP_DAC_OVERRIDE);
    const Outcome outcome = Open()->Run(kOperation, order_, target_, cancel_, [&](const v1::Progress& progress) {
      if (progress.phase() == "replacing") fs::create_directories(data_ + "/zz/in the way");
    });
    std::ofstream file(said);
    file << outcome.status << "\n";
    for (const std::string& step : outcome.steps) file << step << "\n";
    file.close();
    _exit(0);
  }
  waitpid(pid, nullptr, 0);
  const std::string text = io::ReadFile(said).value_or("it did not end");
  EXPECT_THAT(text, HasSubstr("3 of 4 files and directories were put in their places, then"));
  EXPECT_THAT(text, HasSubstr("was left out (the first: user)"));
  EXPECT_EQ(Read("tight/file"), "new");
  struct stat st {};
  ASSERT_EQ(stat((data_ + "/tight").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0550U);
}

TEST_F(FilesRestoreTest, OrdersThatDoNotFit) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  const v1::RestoreOrder good = order_;
  const auto reason = [&](const std::function<void()>& change) {
    order_ = good;
    change();
    return ReasonOf(Run().status);
  };
  EXPECT_EQ(reason([&] { order_.set_mode(v1::RESTORE_MODE_LIVE); }), "MODE_UNSUPPORTED");
  fs::remove_all(folder_ + "/state");
  EXPECT_EQ(reason([&] { order_.add_tables("t"); }), "MODE_UNSUPPORTED");
  fs::remove_all(folder_ + "/state");
  EXPECT_EQ(reason([&] { order_.set_content(v1::SNAPSHOT_CONTENT_SQL); }), "CONTENT_DIFFERS");
  fs::remove_all(folder_ + "/state");
  EXPECT_EQ(reason([&] { order_.set_page_size(4096); }), "ORDER_INVALID");
  fs::remove_all(folder_ + "/state");
  EXPECT_EQ(reason([&] { order_.set_snapshot_id(std::string(128 << 10, 'S')); }), "ORDER_INVALID");
  fs::remove_all(folder_ + "/state");
  EXPECT_EQ(reason([&] { order_.set_snapshot_id("no id"); }), "ORDER_INVALID");
  fs::remove_all(folder_ + "/state");
  EXPECT_EQ(reason([&] { fetcher_.spoil = true; }), "ROOT_MISMATCH");
  fetcher_.spoil = false;
  ExpectUntouched();
  fs::remove_all(folder_ + "/state");
  target_.files.reset();
  EXPECT_EQ(reason([] {}), "CONTENT_DIFFERS");
}

TEST_F(FilesRestoreTest, ThePlanSaysWhatStaysAndWhatIsInTheWay) {
  Begin();
  MakeFilesSnapshot(Archive(Whole()));
  auto plan = Open()->Plan(order_, target_);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->obstacles_size(), 0);
  EXPECT_THAT(plan->steps(), Contains(HasSubstr("files that are not in the snapshot stay")));
  target_.path = data_ + "/none";
  plan = Open()->Plan(order_, target_);
  ASSERT_EQ(plan->obstacles_size(), 1);
  EXPECT_EQ(plan->obstacles(0).info().reason(), "ROOT_MISSING");
  EXPECT_EQ(ReasonOf(Run().status), "ROOT_MISSING");
  target_.path = data_;
  target_.reserve = io::DiskReserve(uint64_t{1} << 60);
  EXPECT_EQ(Open()->Plan(order_, target_)->obstacles(0).info().reason(), "NOT_ENOUGH_SPACE");
  v1::UndoOrder undo;
  undo.set_database("conf");
  EXPECT_EQ(Open()->PlanUndo(undo, target_).obstacles(0).info().reason(), "UNDO_MISSING");
}

}  // namespace
}  // namespace litefleet::restore
