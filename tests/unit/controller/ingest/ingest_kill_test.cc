// A child uploads until it is killed at a named point; afterwards every snapshot that it was told about restores to its root, and
// nothing else is listed but what was committed without the answer getting out.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>

#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::FakeDatabase;
using fakes::PagedDatabase;

struct Report {
  char snapshot[27];
  unsigned seed;
};

FakeDatabase DatabaseOf(unsigned seed) {
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 6 + 1, 1);
  for (unsigned i = 0; i < 4; ++i) database.seeds[i] = seed * 10 + i;  // some extents are new, some are old
  if (seed % 2 == 1) std::swap(database.seeds[4], database.seeds[5]);  // and some have moved
  return database;
}

class IngestKillTest : public IngestTest, public testing::WithParamInterface<const char*> {};

TEST_P(IngestKillTest, WhatWasAcknowledgedRestores) {
  std::map<std::string, unsigned> acknowledged;
  for (int round = 1; round <= 3; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      setenv("LITEFLEET_CRASH_AT", (std::string(GetParam()) + ":" + std::to_string(round * 2)).c_str(), 1);
      IngestLimits limits;
      limits.mark_bytes = 250'000;
      limits.entries_per_part = 4;
      DataPath path(directory_, clock_, limits, /*seal_bytes=*/600'000);
      for (unsigned i = 0; i < 10; ++i) {
        const unsigned seed = static_cast<unsigned>(round) * 100 + i;
        const auto outcome = fakes::RunUpload(*path.ingest, device_, DatabaseOf(seed), {.session_id = NewSession()});
        if (!outcome.status.ok()) _exit(3);
        Report report{};
        std::memcpy(report.snapshot, outcome.snapshot_id.data(), 26);
        report.seed = seed;
        if (write(pipe_fds[1], &report, sizeof report) != sizeof report) _exit(4);
      }
      _exit(0);
    }
    close(pipe_fds[1]);
    Report report;
    while (read(pipe_fds[0], &report, sizeof report) == sizeof report) acknowledged[report.snapshot] = report.seed;
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "ended by itself: " << WEXITSTATUS(status);

    Open();
    const auto listed = path_->snapshots->List(device_, "main", 1000, "");
    ASSERT_TRUE(listed.ok());
    size_t unacknowledged = 0;
    for (const v1::Snapshot& snapshot : listed->items) {
      const auto bytes = path_->ReadBack(snapshot.id());
      ASSERT_TRUE(bytes.ok()) << snapshot.id() << ": " << bytes.status();  // every byte up to the root digest
      const auto known = acknowledged.find(snapshot.id());
      if (known == acknowledged.end()) {
        ++unacknowledged;
      } else {
        EXPECT_EQ(snapshot.root_digest(), DatabaseOf(known->second).Root().AsString());
      }
    }
    EXPECT_EQ(listed->items.size() - unacknowledged, acknowledged.size()) << "an acknowledged snapshot is not listed";
    // Committed, and killed before the answer: at most one each time.
    EXPECT_LE(unacknowledged, static_cast<size_t>(round));
    if (std::string(GetParam()) != "ingest.after_commit_tx") {
      EXPECT_EQ(unacknowledged, 0u);
    }
    // It goes on.
    const auto after = Upload(DatabaseOf(static_cast<unsigned>(round) * 100 + 50), device_);
    ASSERT_TRUE(after.status.ok()) << after.status;
    acknowledged[after.snapshot_id] = static_cast<unsigned>(round) * 100 + 50;
    path_.reset();
  }
}

// Uploads on a base: layers, and chunks that are known from an older state.
class BasedKillTest : public IngestTest, public testing::WithParamInterface<const char*> {
 protected:
  struct Acknowledged {
    char snapshot[27] = {};
    unsigned step = 0;
  };

  // Steps that are odd bring new pages, the others those of the eighth step before them.
  static PagedDatabase StateOf(unsigned step) {
    PagedDatabase state{.page_size = 4096, .pages = std::vector<unsigned>(64 * 8)};
    for (unsigned i = 0; i < state.pages.size(); ++i) state.pages[i] = i;
    for (unsigned k = 1; k <= step; ++k) {
      const unsigned content = (k % 2 == 1 ? 1000 + k : k % 8) * 1000;
      for (unsigned i = 0; i < (k % 2 == 1 ? 150 : 40); ++i)
        state.pages[(k % 2 == 1 ? k * 37 + i * 3 : k % 4 * 5 + i * 11) % 500] = content + i;
    }
    return state;
  }
  Acknowledged Next(Ingest& ingest, const Acknowledged& last) const {
    Acknowledged next{.step = last.step + 1};
    fakes::PagedWish wish{.session_id = NewSession(), .base = last.snapshot, .base_state = {}};
    if (!wish.base.empty()) wish.base_state = StateOf(last.step);
    fakes::PagedUpload upload(ingest, device_, StateOf(next.step), std::move(wish));
    while (upload.Step()) {}
    upload.End();
    EXPECT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    EXPECT_EQ(upload.outcome().base, last.snapshot);
    std::memcpy(next.snapshot, upload.outcome().snapshot.data(), std::min<size_t>(26, upload.outcome().snapshot.size()));
    return next;
  }
};

TEST_P(BasedKillTest, WhatWasAcknowledgedRestores) {
  std::map<std::string, unsigned> acknowledged;
  Acknowledged last;
  Open();
  const auto go_on = [&] {
    last = Next(*path_->ingest, last);
    acknowledged[last.snapshot] = last.step;
  };
  for (int i = 0; i < 12; ++i) go_on();
  for (int round = 1; round <= 3; ++round) {
    path_.reset();
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      setenv("LITEFLEET_CRASH_AT", (std::string(GetParam()) + ":" + std::to_string(round * 2)).c_str(), 1);
      IngestLimits limits;
      limits.mark_chunks = 1;
      DataPath path(directory_, clock_, limits, /*seal_bytes=*/100'000);
      for (int i = 0; i < 60; ++i) {
        last = Next(*path.ingest, last);
        if (last.snapshot[0] == 0) _exit(3);
        if (write(pipe_fds[1], &last, sizeof last) != sizeof last) _exit(4);
      }
      _exit(0);
    }
    close(pipe_fds[1]);
    for (Acknowledged report; read(pipe_fds[0], &report, sizeof report) == sizeof report; last = report)
      acknowledged[report.snapshot] = report.step;
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "ended by itself: " << WEXITSTATUS(status);

    Open();
    const auto listed = path_->snapshots->List(device_, "main", 1000, "");
    ASSERT_TRUE(listed.ok());
    size_t found = 0;
    for (const v1::Snapshot& snapshot : listed->items) {
      const auto bytes = path_->ReadBack(snapshot.id());
      ASSERT_TRUE(bytes.ok()) << snapshot.id() << ": " << bytes.status();
      const auto known = acknowledged.find(snapshot.id());
      if (known == acknowledged.end()) continue;
      ++found;
      EXPECT_EQ(snapshot.root_digest(), StateOf(known->second).Root().AsString());
    }
    EXPECT_EQ(found, acknowledged.size()) << "an acknowledged snapshot is not listed";
    EXPECT_LE(listed->items.size() - found, std::string(GetParam()) == "ingest.after_commit_tx" ? static_cast<size_t>(round) : 0);
    // It goes on.
    go_on();
  }
  EXPECT_GT(path_->Count("select max(length(layers) - length(replace(layers, ' ', ''))) from snapshot"), 1) << "there are no layers";
}

INSTANTIATE_TEST_SUITE_P(Points, BasedKillTest,
                         testing::Values("ingest.after_chunk_write", "ingest.after_pack_sync", "ingest.after_record_chunks",
                                         "ingest.after_claim", "ingest.before_commit_tx", "ingest.after_commit_tx", "store.after_append",
                                         "store.seal.after_footer", "store.seal.after_rename"));

INSTANTIATE_TEST_SUITE_P(Points, IngestKillTest,
                         testing::Values("ingest.after_chunk_write", "ingest.after_pack_sync", "ingest.after_record_chunks",
                                         "ingest.after_claim", "ingest.before_commit_tx", "ingest.after_commit_tx", "store.after_append",
                                         "store.seal.after_footer", "store.seal.after_rename"));

}  // namespace
}  // namespace litefleet::ingest
