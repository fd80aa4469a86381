// A scrubber over a data path, with the fleet that its runs are operations of; and a run of it.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_SCRUB_SCRUB_PARTS_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_SCRUB_SCRUB_PARTS_H_

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "controller/fleet/device_fleet.h"
#include "controller/manifest/manifest_reader.h"
#include "controller/scrub/scrubber.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::scrub {

// Goes before the path.
struct ScrubParts {
  ScrubParts(ingest::DataPath& path, const Clock& clock, ScrubberOptions options)
      : operations(*path.db),
        identities(*path.db),
        reports(identities, *path.snapshots, catalog::GapCatalog(*path.db), *path.db),
        catalog(*path.db) {
    auto made = fleet::DeviceFleet::Create({&operations, &reports, &clock, "test"}, {.own_ticker = false});
    EXPECT_TRUE(made.ok()) << made.status();
    fleet = *std::move(made);
    const NeededChunks needed = [&path](const SnapshotId& snapshot, const auto& visit) {
      return manifest::ForEachNeededChunk(*path.ingest_catalog, *path.store, snapshot,
                                          [&](std::span<const manifest::ChunkRef> chunks) -> absl::Status {
                                            std::vector<format::ChunkName> names;
                                            for (const auto& chunk : chunks) names.push_back(chunk.name);
                                            return visit(names);
                                          });
    };
    scrubber = std::make_unique<Scrubber>(*fleet, *path.store, *path.ingest_catalog, catalog, needed, clock, std::move(options));
  }
  Scrubber::Report Run() {
    const CancelToken cancel;
    Scrubber::Report report;
    const absl::Status status = scrubber->Run({}, cancel, report, [](uint64_t, uint64_t) {});
    EXPECT_TRUE(status.ok()) << status;
    return report;
  }

  catalog::OperationCatalog operations;
  catalog::IdentityCatalog identities;
  fleet::CatalogReports reports;
  catalog::ScrubCatalog catalog;
  std::unique_ptr<fleet::DeviceFleet> fleet;
  std::unique_ptr<Scrubber> scrubber;
};

}  // namespace litefleet::scrub

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_SCRUB_SCRUB_PARTS_H_
