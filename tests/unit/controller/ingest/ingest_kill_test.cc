// A child uploads until it is killed at a named point; afterwards every snapshot that it was told about restores to its root, and
// nothing else is listed but what was committed without the answer getting out.
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::FakeDatabase;
using fakes::PagedDatabase;

FakeDatabase DatabaseOf(unsigned seed) {
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 6 + 1, 1);
  for (unsigned i = 0; i < 4; ++i) database.seeds[i] = seed * 10 + i;  // some extents are new, some are old
  if (seed % 2 == 1) std::swap(database.seeds[4], database.seeds[5]);  // and some have moved
  return database;
}

// What a child was told about, over the pipe: from here on it is acknowledged.
struct Acknowledged {
  char snapshot[27] = {};
  unsigned state = 0;  // a seed or a step, as the test has it
};

class KillTest : public IngestTest, public testing::WithParamInterface<const char*> {
 protected:
  // A child does `work` until it is killed at the point when it comes there for the `at`th time. `work` reports each acknowledgement.
  using Work = std::function<void(DataPath& path, const std::function<void(const Acknowledged&)>& report)>;
  void RunUntilKilled(int at, const IngestLimits& limits, uint64_t seal_bytes, const Work& work) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      setenv("LITEFLEET_CRASH_AT", (std::string(GetParam()) + ":" + std::to_string(at)).c_str(), 1);
      DataPath path(directory_, clock_, limits, seal_bytes);
      work(path, [&](const Acknowledged& one) {
        if (write(pipe_fds[1], &one, sizeof one) != sizeof one) _exit(4);
      });
      _exit(0);
    }
    close(pipe_fds[1]);
    for (Acknowledged one; read(pipe_fds[0], &one, sizeof one) == sizeof one; last_ = one) acknowledged_[one.snapshot] = one.state;
    close(pipe_fds[0]);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "ended by itself: " << WEXITSTATUS(status);
  }
  // Every snapshot that is listed restores; those that were acknowledged are among them, as they were. Others were committed, and the child
  // killed before the answer got out: at most one each round.
  void ExpectRestorable(int rounds, const std::function<format::RootDigest(unsigned)>& root_of) {
    const auto listed = path_->snapshots->List(device_, "main", 1000, "");
    ASSERT_TRUE(listed.ok());
    size_t found = 0;
    for (const v1::Snapshot& snapshot : listed->items) {
      const auto bytes = path_->ReadBack(snapshot.id());
      ASSERT_TRUE(bytes.ok()) << snapshot.id() << ": " << bytes.status();  // every byte up to the root digest
      const auto known = acknowledged_.find(snapshot.id());
      if (known == acknowledged_.end()) continue;
      ++found;
      EXPECT_EQ(snapshot.root_digest(), root_of(known->second).AsString());
    }
    EXPECT_EQ(found, acknowledged_.size()) << "an acknowledged snapshot is not listed";
    EXPECT_LE(listed->items.size() - found, std::string(GetParam()) == "ingest.after_commit_tx" ? static_cast<size_t>(rounds) : 0);
  }

  std::map<std::string, unsigned> acknowledged_;
  Acknowledged last_;
};

constexpr const char* kPoints[] = {"ingest.after_chunk_write", "ingest.after_pack_sync",  "ingest.after_record_chunks",
                                   "ingest.after_claim",       "ingest.before_commit_tx", "ingest.after_commit_tx",
                                   "store.after_append",       "store.seal.after_footer", "store.seal.after_rename"};

class IngestKillTest : public KillTest {};

TEST_P(IngestKillTest, WhatWasAcknowledgedRestores) {
  IngestLimits limits;
  limits.mark_bytes = 250'000;
  limits.entries_per_part = 4;
  for (int round = 1; round <= 3; ++round) {
    const unsigned first = static_cast<unsigned>(round) * 100;
    ASSERT_NO_FATAL_FAILURE(RunUntilKilled(round * 2, limits, /*seal_bytes=*/600'000, [&](DataPath& path, const auto& report) {
      for (unsigned seed = first; seed < first + 10; ++seed) {
        const auto outcome = fakes::RunUpload(*path.ingest, device_, DatabaseOf(seed), {.session_id = NewSession()});
        if (!outcome.status.ok()) _exit(3);
        Acknowledged one{.state = seed};
        std::memcpy(one.snapshot, outcome.snapshot_id.data(), 26);
        report(one);
      }
    }));
    Open();
    ASSERT_NO_FATAL_FAILURE(ExpectRestorable(round, [](unsigned seed) { return DatabaseOf(seed).Root(); }));
    // It goes on.
    const auto after = Upload(DatabaseOf(first + 50), device_);
    ASSERT_TRUE(after.status.ok()) << after.status;
    acknowledged_[after.snapshot_id] = first + 50;
    path_.reset();
  }
}

// Uploads on a base: layers, and chunks that are known from an older state.
class BasedKillTest : public KillTest {
 protected:
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
    Acknowledged next{.state = last.state + 1};
    fakes::PagedWish wish{.session_id = NewSession(), .base = last.snapshot, .base_state = {}};
    if (!wish.base.empty()) wish.base_state = StateOf(last.state);
    fakes::PagedUpload upload(ingest, device_, StateOf(next.state), std::move(wish));
    while (upload.Step()) {}
    upload.End();
    EXPECT_TRUE(upload.outcome().status.ok()) << upload.outcome().status;
    EXPECT_EQ(upload.outcome().base, last.snapshot);
    std::memcpy(next.snapshot, upload.outcome().snapshot.data(), std::min<size_t>(26, upload.outcome().snapshot.size()));
    return next;
  }
};

TEST_P(BasedKillTest, WhatWasAcknowledgedRestores) {
  Open();
  const auto go_on = [&] {
    last_ = Next(*path_->ingest, last_);
    acknowledged_[last_.snapshot] = last_.state;
  };
  for (int i = 0; i < 12; ++i) go_on();
  IngestLimits limits;
  limits.mark_chunks = 1;
  for (int round = 1; round <= 3; ++round) {
    path_.reset();
    ASSERT_NO_FATAL_FAILURE(RunUntilKilled(round * 2, limits, /*seal_bytes=*/100'000, [&](DataPath& path, const auto& report) {
      for (int i = 0; i < 60; ++i) {
        last_ = Next(*path.ingest, last_);
        if (last_.snapshot[0] == 0) _exit(3);
        report(last_);
      }
    }));
    Open();
    ASSERT_NO_FATAL_FAILURE(ExpectRestorable(round, [](unsigned step) { return StateOf(step).Root(); }));
    go_on();  // it goes on
  }
  EXPECT_GT(path_->Count("select max(length(layers) - length(replace(layers, ' ', ''))) from snapshot"), 1) << "there are no layers";
}

INSTANTIATE_TEST_SUITE_P(Points, BasedKillTest, testing::ValuesIn(kPoints));
INSTANTIATE_TEST_SUITE_P(Points, IngestKillTest, testing::ValuesIn(kPoints));

}  // namespace
}  // namespace litefleet::ingest
