// What FakeUploadController knows of one stream, and the database that its chunks make. Thread safety: none.
#ifndef LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_LINK_H_
#define LITEFLEET_TESTS_FAKES_FAKE_UPLOAD_LINK_H_

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "agent/upload/transport.h"
#include "common/base/mutex.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/format/extent.h"

namespace litefleet::fakes {

// Does what is posted, in that order; its destructor does the rest.
class JobThread {
 public:
  ~JobThread() {
    {
      MutexLock lock(mu_);
      stop_ = true;
    }
    work_.SignalAll();
    thread_.join();
  }
  void Post(std::function<void()> job) {
    MutexLock lock(mu_);
    jobs_.push_back(std::move(job));
    work_.SignalAll();
  }

 private:
  void Run() {
    for (;;) {
      std::function<void()> job;
      {
        MutexLock lock(mu_);
        while (jobs_.empty() && !stop_) work_.Wait(mu_);
        if (jobs_.empty()) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
  }

  Mutex mu_;
  CondVar work_;
  std::deque<std::function<void()>> jobs_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_{[this] { Run(); }};
};

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

// What came, in the order in which it is expected.
inline bool ReadChunks(FakeUploadLink& link, const v1::UploadChunks& chunks) {
  format::ChunkDecompressor decompressor;
  for (const v1::ChunkData& chunk : chunks.chunks()) {
    if (link.expected.empty() || link.expected.front() != chunk.name()) return false;
    link.expected.pop_front();
    const auto name = format::ChunkName::FromBytes(chunk.name());
    Bytes raw;
    if (!name ||
        !decompressor.Open(static_cast<format::Codec>(chunk.codec()), AsBytes(chunk.data()), chunk.raw_bytes(), link.page_size, *name, raw)
             .ok()) {
      return false;
    }
    link.undurable += static_cast<int64_t>(chunk.data().size());
    link.arrived.emplace_back(chunk.name(), std::string(AsText(raw)));
  }
  return true;
}

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
