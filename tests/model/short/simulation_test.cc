// A few lives of a store; tests/model/nightly has many more.
//
// One seed again: LITEFLEET_SEED=17 [LITEFLEET_EPOCHS=6] [LITEFLEET_ACTIONS=60] build/dev/tests/model_short_test --gtest_filter='*OneSeed*'
#include <gtest/gtest.h>

#include <cstdlib>

#include "common/base/sanitizer.h"
#include "tests/model/simulation.h"

namespace litefleet::model {
namespace {

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<int>(std::strtol(text, nullptr, 10));
}

class ShortLives : public testing::TestWithParam<unsigned> {};

TEST_P(ShortLives, WhatWasAcknowledgedRestores) {
  const SimulationResult result = Simulate({.seed = GetParam(), .epochs = kSanitized ? 3 : 6, .actions = kSanitized ? 30 : 60});
  EXPECT_EQ(result.violation, "");
}

INSTANTIATE_TEST_SUITE_P(Seeds, ShortLives, testing::Range(1u, 9u));

TEST(Life, OneSeed) {
  const int seed = FromEnvironment("LITEFLEET_SEED", -1);
  if (seed < 0) GTEST_SKIP() << "for one seed: LITEFLEET_SEED=N";
  const SimulationResult result = Simulate({.seed = static_cast<unsigned>(seed),
                                            .epochs = FromEnvironment("LITEFLEET_EPOCHS", 6),
                                            .actions = FromEnvironment("LITEFLEET_ACTIONS", 60)});
  EXPECT_EQ(result.violation, "");
}

}  // namespace
}  // namespace litefleet::model
