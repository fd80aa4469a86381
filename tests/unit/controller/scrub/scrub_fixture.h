// A data path with what scrubs it.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_SCRUB_SCRUB_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_SCRUB_SCRUB_FIXTURE_H_

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "tests/unit/controller/scrub/scrub_parts.h"

namespace litefleet::scrub {

class ScrubberTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    OpenAll();
  }
  void TearDown() override {
    CloseAll();
    IngestTest::TearDown();
  }
  void OpenAll() {
    Open();
    parts_ = std::make_unique<ScrubParts>(*path_, clock_, ScrubberOptions{.bytes_per_second = 0});
    scrubber_ = parts_->scrubber.get();
  }
  void CloseAll() {
    parts_.reset();
    path_.reset();
  }
  Scrubber::Report Run() { return parts_->Run(); }
  std::string PackFile() {
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/store/packs")) return entry.path();
    return {};
  }
  void FlipChunk(const fakes::FakeDatabase& database, uint32_t extent) {
    const int64_t offset = path_->Count("select offset from chunk where name = x'" + database.Name(extent).Hex() + "'");
    ASSERT_GT(offset, 0);
    FlipAt(offset + 200);
  }
  // In the one pack.
  void FlipAt(int64_t offset) {
    std::fstream file(PackFile(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const char c = static_cast<char>(file.get() ^ 1);
    file.seekp(offset);
    file.put(c);
  }
  v1::SnapshotState StateOf(const std::string& id) { return path_->snapshots->Resolve(id)->state(); }

  std::unique_ptr<ScrubParts> parts_;
  Scrubber* scrubber_ = nullptr;  // of these
};

}  // namespace litefleet::scrub

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_SCRUB_SCRUB_FIXTURE_H_
