// A data path with what prunes it.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_PRUNE_PRUNE_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_PRUNE_PRUNE_FIXTURE_H_

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "controller/prune/mark_writer.h"
#include "controller/prune/pruner.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::prune {

struct Rig {
  explicit Rig(ingest::DataPath& data, const Clock& clock)
      : path(data), deletions(*data.db), catalog(*data.db), marks(deletions, *data.store, clock) {}
  Pruner Make() {
    return Pruner({.catalog = catalog, .deletions = deletions, .marks = marks, .store = *path.store, .held = [this](const SnapshotId& id) {
                     return path.readers->pins().IsPinned(id);
                   }});
  }
  absl::StatusOr<v1::PruneReport> Run(SystemTime now, PruneOptions options = {}) {
    return Make().Run(options, now, [](std::string_view, double) { return absl::OkStatus(); });
  }
  ingest::DataPath& path;
  catalog::DeletionCatalog deletions;
  catalog::PruneCatalog catalog;
  MarkWriter marks;
};

inline PruneOptions AtOnce() {
  PruneOptions options;
  options.snapshot_grace = options.chunk_grace = std::chrono::milliseconds(0);
  options.sweeps = 0;
  return options;
}

// Of seven extents; the first four are those of the seed.
inline fakes::FakeDatabase DatabaseOf(unsigned seed) {
  fakes::FakeDatabase database = fakes::FakeDatabase::Make(4096, 64 * 6 + 1, 1);
  for (unsigned i = 0; i < 4; ++i) database.seeds[i] = seed / 3 * 10 + i;  // neighbours share extents
  return database;
}

class PrunerTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
  }
  // In memory: what is synced counts for nothing here. Before anything is opened.
  void UseMemory() {
    std::string name = "/dev/shm/litefleet-prune-XXXXXX";
    if (access("/dev/shm", W_OK) != 0 || mkdtemp(name.data()) == nullptr) return;
    std::filesystem::remove_all(directory_);
    directory_ = name;
  }
  std::string Take(unsigned seed) {
    const auto outcome = Upload(DatabaseOf(seed), device_);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  int64_t Chunks(const std::string& where) { return path_->Count("select count(*) from chunk where " + where); }
};

}  // namespace litefleet::prune

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_PRUNE_PRUNE_FIXTURE_H_
