// libFuzzer's entry; the target is the one named LITEFLEET_FUZZ_TARGET at compile time.
#include <cstdint>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const litefleet::fuzz::Target* const target = [] {
    for (const auto& each : litefleet::fuzz::Targets()) {
      if (each.name == LITEFLEET_FUZZ_TARGET) return &each;
    }
    litefleet::fuzz::Require(false, "there is such a target");
    return static_cast<const litefleet::fuzz::Target*>(nullptr);
  }();
  target->run({reinterpret_cast<const std::byte*>(data), size});
  return 0;
}
