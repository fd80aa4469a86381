// Every call of the file system fails once, one after the other, under uploads, deletion, prune and pack rewrite, in the files of the store
// and in those of the catalog: the error has a reason, nothing that was acknowledged is lost, and the store goes on when the fault is gone,
// also after a power cut, which takes of the store and of the catalog what was not synced.
#include <gtest/gtest.h>

#include <atomic>

#include "common/base/sanitizer.h"
#include "common/base/status.h"
#include "controller/prune/mark_writer.h"
#include "controller/prune/pruner.h"
#include "fmt/format.h"
#include "tests/fakes/faulty_vfs.h"
#include "tests/fakes/paged_device.h"
#include "tests/fakes/volatile_files.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet {
namespace {

using fakes::FileCall;
using fakes::FileFault;
using fakes::PagedDatabase;

struct Kind {
  const char* name;
  FileFault fault;
  int lasts;     // calls
  bool catalog;  // in its files, by SQLite's VFS; else in those of the store
  int step = 1;  // from one call that fails to the next
};

class Story {
 public:
  Story(const std::string& directory, const Kind& kind, int at)
      : directory_(directory),
        kind_(kind),
        at_(at),
        files_(1, 0, [this](FileCall) { return kind_.catalog ? FileFault::kNone : Decide(); }),
        vfs_(
            "/catalog.db", [this](FileCall) { return kind_.catalog ? Decide() : FileFault::kNone; }, static_cast<unsigned>(at),
            /*writeback=*/at % 3 * 40) {
    for (unsigned i = 0; i < 75; ++i) now_.pages.push_back(i);
  }
  // How many calls there were while faults could come.
  int Run() {
    Open();
    armed_ = true;
    BackUp();
    for (unsigned i = 0; i < 3; ++i) {
      for (unsigned page = i; page < now_.count(); page += 5) now_.pages[page] = 1000 * (i + 1) + page;
      BackUp();
      if (i == 1 && !alive_.empty()) Delete(alive_.begin()->first);
    }
    Prune(/*must=*/false);
    armed_ = false;
    now_.pages[3] = 77;
    EXPECT_TRUE(BackUp()) << "the fault is gone";
    Prune(/*must=*/true);
    Look("beside it");
    vfs_.Cut();
    Close();
    vfs_.Forget();
    files_.Forget();
    Open();
    Look("after a power cut");
    now_.pages[4] = 78;
    EXPECT_TRUE(BackUp()) << "after a power cut";
    Prune(/*must=*/true);
    Look("at the end");
    Close();
    return calls_;
  }

 private:
  FileFault Decide() {
    if (!armed_) return FileFault::kNone;
    const int call = ++calls_;
    return call >= at_ && call < at_ + kind_.lasts ? kind_.fault : FileFault::kNone;
  }
  std::string Where(std::string_view what) const { return fmt::format("{}, {} from call {} on", what, kind_.name, at_); }
  void Open() {
    path_ =
        std::make_unique<ingest::DataPath>(directory_, clock_, ingest::IngestLimits{}, /*seal_bytes=*/60'000, files_, /*threads=*/false);
    deletions_ = std::make_unique<catalog::DeletionCatalog>(*path_->db);
    pruning_ = std::make_unique<catalog::PruneCatalog>(*path_->db);
    marks_ = std::make_unique<prune::MarkWriter>(*deletions_, *path_->store, clock_);
    EXPECT_TRUE(Pruner().Recover().ok());
  }
  void Close() {
    marks_.reset();
    pruning_.reset();
    deletions_.reset();
    path_.reset();
  }
  prune::Pruner Pruner() {
    return prune::Pruner(
        {.catalog = *pruning_, .deletions = *deletions_, .marks = *marks_, .store = *path_->store, .held = [](const SnapshotId&) {
           return false;
         }});
  }
  bool HasReason(const absl::Status& status, std::string_view what) {
    EXPECT_TRUE(status.ok() || !ReasonOf(status).empty()) << Where(what) << ": " << status;
    return status.ok();
  }
  bool BackUp() {
    fakes::PagedWish wish{.session_id = NewUlid(clock_.Now()), .base = base_, .base_state = base_state_};
    fakes::PagedUpload upload(*path_->ingest, DeviceId("11111111-1111-4111-8111-111111111111"), now_, std::move(wish));
    while (upload.Step()) {}
    upload.End();
    if (!HasReason(upload.outcome().status, "upload") || upload.outcome().snapshot.empty()) return false;
    base_ = upload.outcome().snapshot;
    base_state_ = now_;
    alive_[base_] = now_;
    clock_.Advance(std::chrono::seconds(60));
    return true;
  }
  void Delete(const std::string& id) {
    if (!HasReason(deletions_->Trash(SnapshotId(id), true, "operator:x", clock_.Now()), "delete")) return;
    alive_.erase(id);
    HasReason(marks_->WriteDue(), "write marks");
  }
  void Prune(bool must) {
    prune::PruneOptions options;
    options.snapshot_grace = options.chunk_grace = std::chrono::milliseconds(0);
    options.sweeps = 0;
    options.rewrite_percent = 1;
    const auto report = Pruner().Run(options, clock_.Now(), [](std::string_view, double) { return absl::OkStatus(); });
    HasReason(report.status(), "prune");
    if (!must) return;
    EXPECT_TRUE(report.ok()) << Where("prune") << report.status();
    if (!report.ok()) return;
    EXPECT_EQ(report->chunks_rescued(), 0) << Where("prune");
    EXPECT_EQ(report->packs_damaged(), 0) << Where("prune");
  }
  void Look(std::string_view when) {
    for (const auto& [id, state] : alive_) {
      const auto bytes = path_->ReadBack(id);
      EXPECT_TRUE(bytes.ok()) << Where(when) << ": " << bytes.status();
      if (!bytes.ok()) continue;
      EXPECT_TRUE(*bytes == state.Run(1, state.count())) << Where(when);
    }
  }

  const std::string directory_;
  const Kind kind_;
  const int at_;
  std::atomic<int> calls_{0};  // the catalog's writer is a thread of its own
  std::atomic<bool> armed_{false};
  FakeClock clock_;
  fakes::VolatileFiles files_;
  fakes::FaultyVfs vfs_;
  PagedDatabase now_, base_state_;
  std::string base_;
  std::map<std::string, PagedDatabase> alive_;
  std::unique_ptr<ingest::DataPath> path_;
  std::unique_ptr<catalog::DeletionCatalog> deletions_;
  std::unique_ptr<catalog::PruneCatalog> pruning_;
  std::unique_ptr<prune::MarkWriter> marks_;
};

class FaultTest : public testing::TestWithParam<Kind> {};

TEST_P(FaultTest, EveryCallFailsOnce) {
  // All of them nightly. The catalog has some thousand calls: of these, and of the rarer kinds, every so many, which meets all sorts of
  // them.
  const char* slow = getenv("LITEFLEET_SLOW");
  // With sanitizers a fifth of these: each story is the same code but for the call that fails.
  const int step = slow != nullptr && *slow == '1' ? 1 : GetParam().step * (kSanitized ? 5 : 1);
  for (int at = 1;; at += step) {
    std::string directory = access("/dev/shm", W_OK) == 0 ? "/dev/shm/litefleet-fault-XXXXXX" : "/tmp/litefleet-fault-XXXXXX";
    ASSERT_NE(mkdtemp(directory.data()), nullptr);
    const int calls = Story(directory, GetParam(), at).Run();
    std::filesystem::remove_all(directory);
    ASSERT_FALSE(HasFailure()) << "at call " << at;
    if (calls < at) {
      EXPECT_GT(at, 50);
      RecordProperty("calls", calls);
      return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, FaultTest,
                         testing::Values(Kind{"EIO", FileFault::kIo, 1, false}, Kind{"ENOSPC", FileFault::kFull, 1, false},
                                         Kind{"a short write", FileFault::kShort, 1, false, 5},
                                         Kind{"EACCES", FileFault::kDenied, 1, false, 3},
                                         Kind{"EIO of the catalog", FileFault::kIo, 1, true, 41},
                                         Kind{"ENOSPC of the catalog", FileFault::kFull, 1, true, 43},
                                         Kind{"a short write of the catalog", FileFault::kShort, 1, true, 47},
                                         Kind{"a full disk of the catalog for a while", FileFault::kFull, 40, true, 83}),
                         [](const auto& test) { return "Kind" + std::to_string(test.index); });

}  // namespace
}  // namespace litefleet
