// Many lives of a store, longer ones: LITEFLEET_SEEDS of them (300), from LITEFLEET_FIRST_SEED (1000) on. A failing one names its seed,
// which tests/model/short repeats.
#include <gtest/gtest.h>

#include <cstdlib>

#include "fmt/format.h"
#include "tests/model/simulation.h"

namespace litefleet::model {
namespace {

unsigned FromEnvironment(const char* name, unsigned otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<unsigned>(std::strtoul(text, nullptr, 10));
}

TEST(Lives, WhatWasAcknowledgedRestores) {
  const unsigned first = FromEnvironment("LITEFLEET_FIRST_SEED", 1000);
  const unsigned seeds = FromEnvironment("LITEFLEET_SEEDS", 300);
  int crashes = 0;
  int rebuilds = 0;
  size_t snapshots = 0;
  for (unsigned seed = first; seed < first + seeds; ++seed) {
    const SimulationResult result = Simulate({.seed = seed, .epochs = 12, .actions = 120});
    EXPECT_EQ(result.violation, "");
    crashes += result.crashes;
    rebuilds += result.rebuilds;
    snapshots += result.snapshots;
  }
  fmt::print("{} lives, {} snapshots, {} crashes, {} rebuilds\n", seeds, snapshots, crashes, rebuilds);
  EXPECT_GT(crashes, 0);
}

}  // namespace
}  // namespace litefleet::model
