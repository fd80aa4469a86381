// Thousands of histories of databases: page sizes, auto_vacuum modes, journal modes and encodings in every combination, 22 times,
// twelve snapshots each. LITEFLEET_DELTA_SEED repeats a run, LITEFLEET_DELTA_ROUNDS makes it shorter or longer.
#include "tests/integration/delta/delta_fixture.h"

namespace litefleet::upload {
namespace {

class NightlyHistoryTest : public DeltaBackupTest {};

TEST_P(NightlyHistoryTest, RandomHistories) {
  const unsigned seed = Number("LITEFLEET_DELTA_SEED", std::random_device{}());
  SCOPED_TRACE(fmt::format("LITEFLEET_DELTA_SEED={}", seed));
  RandomHistory(GetParam(), seed, 12);
}

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (unsigned round = 0; round < Number("LITEFLEET_DELTA_ROUNDS", 22); ++round) {
    for (int page_size = 512; page_size <= 65536; page_size *= 2) {
      for (const char* journal : {"wal", "delete", "truncate", "persist"}) {
        for (int auto_vacuum = 0; auto_vacuum < 3; ++auto_vacuum) {
          const char* encodings[] = {"UTF-8", "UTF-16le", "UTF-16be"};
          shapes.push_back({page_size, journal, auto_vacuum, encodings[shapes.size() % 3]});
        }
      }
    }
  }
  return shapes;
}

INSTANTIATE_TEST_SUITE_P(All, NightlyHistoryTest, testing::ValuesIn(Shapes()), [](const auto& test) {
  return fmt::format("{}_{}_{}_{}", test.param.page_size, test.param.journal, test.param.auto_vacuum, test.index);
});

}  // namespace
}  // namespace litefleet::upload
