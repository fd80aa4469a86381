// What FakeUploadController knows of one stream, and the database that its chunks make. Thread safety: none.
#ifndef LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_LINK_H_
#define LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_LINK_H_

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "agent/upload/transport.h"

namespace litefleet::fakes {

struct FakeUploadLink {
  std::shared_ptr<upload::StreamEvents> events;
  std::string session;
  uint32_t page_size = 0;
  std::string base;
  std::vector<v1::ChunkOffer> manifest;
  std::deque<std::string> expected;
  int64_t undurable = 0;
  std::vector<std::pair<std::string, std::string>> arrived;
  bool swallowing = false;
  bool closed = false;
};

// The base with what was offered in its place.
inline std::string ImageOf(const FakeUploadLink& link, std::string image, uint32_t page_count, std::map<std::string, std::string>& store) {
  image.resize(size_t{page_count} * link.page_size);
  for (const v1::ChunkOffer& chunk : link.manifest) {
    size_t at = 0;
    for (const v1::PageRun& run : chunk.runs()) {
      const size_t size = size_t{run.page_count()} * link.page_size;
      image.replace(size_t{run.first_page() - 1} * link.page_size, size, store[chunk.name()], at, size);
      at += size;
    }
  }
  return image;
}

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_LINK_H_
