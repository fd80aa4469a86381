// Cancels while the disk is at work: what hears them, and what is behind the point of no return. And a disk that refuses what it was given.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/fakes/hooked_syncs.h"
#include "tests/fakes/hooked_vfs.h"
#include "tests/unit/agent/restore/files_fixture.h"
#include "tests/unit/agent/restore/text_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

// For a sync of so much that it has several stretches.
constexpr int kManyRows = 60'000;
constexpr uint64_t kSeveralStretches = 20 << 20;

class SlowDiskTest : public TextFixture {
 protected:
  void TearDown() override {
    g_before_stretch = nullptr;
    TextFixture::TearDown();
  }
  // An application that is killed before it has folded anything.
  static void LeaveWal(const std::string& path) {
    const pid_t pid = fork();
    if (pid == 0) {
      auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE);
      static_cast<void>(sqlite::Execute(db->get(), "pragma wal_autocheckpoint=0; update t set v = v || 'x'"));
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(io::Exists(path + "-wal"));
  }
  Outcome Run(const std::string& operation, const CancelToken& cancel, std::function<void(const v1::Progress&)> progress = {}) {
    return Open()->Run(operation, order_, target_, cancel, [&](const v1::Progress& now) {
      if (progress) progress(now);
    });
  }
  // A disk on which a checkpoint would take long from its tenth page on, when the cancel comes.
  std::function<void()> CancelAtTenth(CancelToken& cancel) {
    return [this, &cancel] {
      if (++writes_ < 10) return;
      cancel.Cancel();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    };
  }

  std::atomic<uint64_t> writes_{0};
};

TEST_F(SlowDiskTest, TheFoldBeforeAReplaceHearsACancelAndLeavesTheLogAsItWas) {
  Make(path_, "old", "wal", 5000);
  LeaveWal(path_);
  const uint64_t frames = std::filesystem::file_size(path_ + "-wal") / 4120;
  ASSERT_GT(frames, 200u);
  MakeTextSnapshot(Text("new"));
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  CancelToken cancel;
  {
    const fakes::HookedVfs slow(CancelAtTenth(cancel));
    const Outcome outcome = Run(kOperation, cancel);
    EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
  }
  EXPECT_GE(writes_, 10u);
  EXPECT_LT(writes_, frames / 2) << "it was folded to its end";
  EXPECT_EQ(std::filesystem::file_size(path_ + "-wal") / 4120, frames);
  EXPECT_EQ(LeftOver(), "");
  EXPECT_EQ(Label(path_), "old");
  ASSERT_TRUE(Open()->Forget(kOperation).ok());
  const Outcome again = Run("01JD0000000000000000000002", CancelToken());
  EXPECT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(Label(path_), "new");
}

// The restore is committed, so that it has succeeded; what is left to do is the application's.
TEST_F(SlowDiskTest, ACancelAfterTheCommitEndsTheCheckpointAndSucceeds) {
  Make(path_, "old", "wal", 100);
  MakeSnapshot("wal", 5000);
  order_.set_mode(v1::RESTORE_MODE_LIVE);
  Application application(path_, Application::kIdle);
  CancelToken cancel;
  {
    const fakes::HookedVfs slow(CancelAtTenth(cancel));
    const Outcome outcome = Run(kOperation, cancel);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_TRUE(outcome.applied);
    EXPECT_THAT(outcome.steps, Contains(HasSubstr("was not folded to its end")));
  }
  EXPECT_TRUE(cancel.cancelled());
  EXPECT_LT(writes_, order_.page_count() / 2);
  EXPECT_EQ(application.Stop(), 0);
  EXPECT_EQ(Label(path_), "new");
}

TEST_F(SlowDiskTest, TheSyncOfALargeStagingFileHearsACancel) {
  MakeSnapshot("wal", kManyRows);
  ASSERT_GT(uint64_t{order_.page_size()} * order_.page_count(), kSeveralStretches);
  order_.set_mode(v1::RESTORE_MODE_NEW);
  CancelToken cancel;
  bool checked = false;
  int stretches = 0;
  g_before_stretch = [&](std::string_view path) {
    if (!checked || !path.ends_with(".staging")) return;
    cancel.Cancel();
    ++stretches;
  };
  const Outcome outcome = Run(kOperation, cancel, [&](const v1::Progress& now) { checked = now.phase() == "checking"; });
  EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
  EXPECT_EQ(stretches, 1);
  EXPECT_EQ(LeftOver(), "");
  EXPECT_FALSE(io::Exists(path_));
}

// In rollback mode all of it is taken, and synced, while writers wait.
TEST_F(SlowDiskTest, TheUndoCopyIsWrittenBackWhileItIsTakenAndItsSyncHearsACancel) {
  Make(path_, "old", "delete", kManyRows);
  const uint64_t bytes = std::filesystem::file_size(path_);
  ASSERT_GT(bytes, kSeveralStretches);
  MakeSnapshot("delete", 100);
  order_.set_mode(v1::RESTORE_MODE_LIVE);
  // One after the other: the first stretch of the copying, and the first one of the sync.
  int stretches = 0;
  g_before_stretch = [&](std::string_view path) {
    if (path.ends_with(".undo")) ++stretches;
  };
  ASSERT_TRUE(Run(kOperation, CancelToken()).status.ok());
  const int all = stretches;
  EXPECT_GE(all, 4);
  for (const int at : {1, all}) {
    SCOPED_TRACE(at);
    StartAnew("delete", kManyRows);
    stretches = 0;
    CancelToken cancel;
    g_before_stretch = [&](std::string_view path) {
      if (path.ends_with(".undo") && ++stretches == at) cancel.Cancel();
    };
    const Outcome outcome = Run(kOperation, cancel);
    EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
    EXPECT_EQ(stretches, at);
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

// The kernel says of a write-back that failed to whoever waits for it, once, and the sync at the end is well.
class RefusingDiskTest : public SlowDiskTest {
 protected:
  void TearDown() override {
    g_wait_error = nullptr;
    SlowDiskTest::TearDown();
  }
  // The first wait for a file of that name fails.
  void RefuseOnce(const std::string& suffix) {
    refused_ = false;
    g_wait_error = [this, suffix](std::string_view path) {
      if (refused_ || !path.ends_with(suffix)) return 0;
      refused_ = true;
      return EIO;
    };
  }
  bool refused_ = false;
};

TEST_F(RefusingDiskTest, ALiveRestoreFailsAndTheOldStateStays) {
  for (const auto& [journal, suffix] :
       {std::pair("delete", ".undo"), std::pair("wal", ".undo"), std::pair("delete", ".staging"), std::pair("wal", ".staging")}) {
    SCOPED_TRACE(fmt::format("{} {}", journal, suffix));
    MakeSnapshot("delete", kManyRows);
    StartAnew(journal, kManyRows);
    order_.set_mode(v1::RESTORE_MODE_LIVE);
    RefuseOnce(suffix);
    const Outcome outcome = Run(kOperation, CancelToken());
    g_wait_error = nullptr;
    EXPECT_TRUE(refused_);
    EXPECT_EQ(ReasonOf(outcome.status), "IO_ERROR") << outcome.status;
    EXPECT_FALSE(outcome.applied);
    EXPECT_EQ(Label(path_), "old");
    EXPECT_EQ(LeftOver(), "");
  }
}

TEST_F(RefusingDiskTest, WhatIsFetchedInOrderIsNotPlaced) {
  MakeSnapshot("delete", kManyRows);
  order_.set_mode(v1::RESTORE_MODE_NEW);
  RefuseOnce(".staging");
  const Outcome outcome = Run(kOperation, CancelToken());
  EXPECT_TRUE(refused_);
  EXPECT_EQ(ReasonOf(outcome.status), "IO_ERROR") << outcome.status;
  EXPECT_FALSE(io::Exists(path_));
  EXPECT_EQ(LeftOver(), "");
}

// Not only at its sync: the checks between take minutes, and to a run after this one all of it is in the page cache.
TEST_F(RefusingDiskTest, AStagingFileTellsAtOnce) {
  const auto place = TargetPlace::Resolve(path_);
  ASSERT_TRUE(place.ok()) << place.status();
  const Bytes pages(format::kExtentBytes);
  const format::ChunkName name = format::NameChunkOf(4096, pages);
  // The first wait is that of the end where there are 20 MiB, and one between where there are 28.
  for (const uint32_t mebibytes : {20U, 28U}) {
    SCOPED_TRACE(mebibytes);
    const uint32_t extents = mebibytes * 4;
    RefuseOnce(".staging");
    auto staging = StagingFile::Create(*place, TargetPlace::StagingName(kOperation), 4096, extents * 64);
    ASSERT_TRUE(staging.ok()) << staging.status();
    format::RootBuilder root(4096, extents * 64);
    absl::Status told;
    while (told.ok() && (*staging)->next_extent() < extents) {
      EXPECT_FALSE(refused_);
      told = (*staging)->Append({(*staging)->next_extent(), name, pages, 0});
      root.Add(name);
    }
    EXPECT_EQ(told.ok(), mebibytes == 20U) << told;
    if (told.ok()) told = (*staging)->Finish(root.Finish());
    EXPECT_TRUE(refused_);
    EXPECT_EQ(ReasonOf(told), "IO_ERROR") << told;
    ASSERT_TRUE(place->Remove((*staging)->name()).ok());
  }
}

class FilesOnARefusingDiskTest : public FilesRestoreTest {
 protected:
  void TearDown() override {
    g_wait_error = nullptr;
    FilesRestoreTest::TearDown();
  }
};

TEST_F(FilesOnARefusingDiskTest, NoFileIsReplaced) {
  bool refused = false;
  g_wait_error = [&](std::string_view path) {
    if (refused || path.find(".staging-files/") == std::string_view::npos) return 0;
    refused = true;
    return EIO;
  };
  const Outcome outcome = RunArchive({{"a.conf", "new"}, {"large", std::string(40 << 20, 'l')}});
  EXPECT_TRUE(refused);
  EXPECT_EQ(ReasonOf(outcome.status), "IO_ERROR") << outcome.status;
  ExpectUntouched();
}

// The helper is at work on a constraint that does not end.
TEST_F(SlowDiskTest, ACancelEndsTheCheckThatRuns) {
  {
    auto db = sqlite::Open(fetcher_.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    ASSERT_TRUE(db.ok());
    ASSERT_TRUE(sqlite::Execute(db->get(),
                                "create table u(a, check(length(hex(hex(zeroblob(a)))) > 0)); pragma ignore_check_constraints=on;"
                                "with recursive c(n) as (select 1 union all select n+1 from c where n < 2000) insert into u select "
                                "1000000 from c; create table pad(b); insert into pad select zeroblob(100000) from u limit 20;")
                    .ok());
  }
  Order();
  Make(path_, "old", "wal", 100);
  order_.set_mode(v1::RESTORE_MODE_REPLACE);
  CancelToken cancel;
  // When the kernel says that it runs.
  std::thread canceller([&] {
    const auto helper_runs = [] {
      for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const std::string stat = io::ReadFile(entry.path().string() + "/stat").value_or("");
        if (stat.find("(litefleet-check)") == std::string::npos) continue;
        if (stat.find(fmt::format(") R {} ", getpid())) != std::string::npos) return true;
      }
      return false;
    };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!helper_runs() && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    cancel.Cancel();
  });
  const Outcome outcome = Run(kOperation, cancel);
  canceller.join();
  EXPECT_TRUE(absl::IsCancelled(outcome.status)) << outcome.status;
  EXPECT_EQ(Label(path_), "old");
  EXPECT_EQ(LeftOver(), "");
}

}  // namespace
}  // namespace litefleet::restore
