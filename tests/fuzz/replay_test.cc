// The corpus of every fuzz target, each input also cut short and with single bits flipped.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/targets.h"

namespace litefleet::fuzz {
namespace {

namespace fs = std::filesystem;

TEST(FuzzReplay, EveryInputOfTheCorpus) {
  for (const Target& target : Targets()) {
    const fs::path folder = fs::path(LITEFLEET_FUZZ_CORPUS) / target.name;
    ASSERT_TRUE(fs::exists(folder)) << folder;
    size_t inputs = 0;
    target.run({});
    for (const auto& entry : fs::directory_iterator(folder)) {
      SCOPED_TRACE(entry.path().string());
      std::ifstream file(entry.path(), std::ios::binary);
      std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
      target.run(AsBytes(text));
      ++inputs;
      const size_t step = text.size() / target.places + 1;
      for (size_t at = 0; at < text.size(); at += step) {
        target.run(AsBytes(std::string_view(text).substr(0, at)));
        text[at] = static_cast<char>(text[at] ^ (1 << (at % 8)));
        target.run(AsBytes(text));
        text[at] = static_cast<char>(text[at] ^ (1 << (at % 8)));
      }
    }
    EXPECT_GT(inputs, 0U) << target.name;
  }
}

}  // namespace
}  // namespace litefleet::fuzz
