// Every parser of foreign bytes as one function: libFuzzer drives it (fuzz_main.cc, option LITEFLEET_FUZZ), and the normal tests replay the
// corpus through it (replay_test.cc). A target must neither crash nor hang nor break an assertion of its own, whatever it is given.
//
// Thread safety: none.
#ifndef LITEFLEET_TESTS_FUZZ_TARGETS_H_
#define LITEFLEET_TESTS_FUZZ_TARGETS_H_

#include <string_view>
#include <vector>

#include "common/base/bytes.h"

namespace litefleet::fuzz {

struct Target {
  std::string_view name;  // of its folder in tests/fuzz/corpus
  void (*run)(ByteView input);
  size_t places = 64;  // of an input that the normal tests cut and flip
};

const std::vector<Target>& Targets();
// store_targets.cc
void AddStoreTargets(std::vector<Target>& targets);
// ledger_target.cc
void AddLedgerTarget(std::vector<Target>& targets);

// Where a target finds that something is not as it must be.
void Require(bool holds, const char* what);

}  // namespace litefleet::fuzz

#endif  // LITEFLEET_TESTS_FUZZ_TARGETS_H_
