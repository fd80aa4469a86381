// A few lives of a store; tests/model/nightly has many more.
//
// One seed again: LITEFLEET_SEED=17 [LITEFLEET_EPOCHS=6] [LITEFLEET_ACTIONS=60] build/dev/tests/model_short_test
#include <gtest/gtest.h>

#include <cstdlib>
#include <vector>

#include "common/base/sanitizer.h"
#include "tests/model/simulation.h"

namespace litefleet::model {
namespace {

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : static_cast<int>(std::strtol(text, nullptr, 10));
}

class ShortLives : public testing::TestWithParam<int> {};

TEST_P(ShortLives, WhatWasAcknowledgedRestores) {
  const SimulationResult result = Simulate({.seed = static_cast<unsigned>(GetParam()),
                                            .epochs = FromEnvironment("LITEFLEET_EPOCHS", kSanitized ? 3 : 6),
                                            .actions = FromEnvironment("LITEFLEET_ACTIONS", kSanitized ? 30 : 60)});
  EXPECT_EQ(result.violation, "");
}

// One, where it is asked for.
std::vector<int> Seeds() {
  if (const int seed = FromEnvironment("LITEFLEET_SEED", -1); seed >= 0) return {seed};
  return {1, 2, 3, 4, 5, 6, 7, 8};
}

INSTANTIATE_TEST_SUITE_P(Seeds, ShortLives, testing::ValuesIn(Seeds()));

}  // namespace
}  // namespace litefleet::model
