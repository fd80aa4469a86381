// A device as ingest sees it: makes databases out of seeds and drives an UploadSession through a whole upload, or a part of one.
#ifndef LITEFLEET_TESTS_FAKES_UPLOAD_DEVICE_H_
#define LITEFLEET_TESTS_FAKES_UPLOAD_DEVICE_H_

#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "controller/ingest/ingest.h"
#include "controller/ingest/upload_session.h"

namespace litefleet::fakes {

// Pages as extents; the content of each extent follows from its seed alone.
struct FakeDatabase {
  uint32_t page_size = 4096;
  uint32_t page_count = 0;
  std::vector<unsigned> seeds;  // one an extent

  static FakeDatabase Make(uint32_t page_size, uint32_t page_count, unsigned seed) {
    FakeDatabase database{.page_size = page_size, .page_count = page_count, .seeds = {}};
    for (uint32_t i = 0; i < format::ExtentCount(page_size, page_count); ++i) database.seeds.push_back(seed * 100'000 + i);
    return database;
  }
  Bytes Extent(uint32_t extent) const {
    std::minstd_rand random(seeds[extent] + 1);
    Bytes bytes(size_t{page_size} * format::PagesIn(page_size, page_count, extent));
    // Half of it compresses well.
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = i % 8 < 4 ? static_cast<std::byte>(random() >> 8) : std::byte{7};
    return bytes;
  }
  format::ChunkName Name(uint32_t extent) const { return format::NameChunkOf(page_size, Extent(extent)); }
  format::RootDigest Root() const {
    format::RootBuilder root(page_size, page_count);
    for (uint32_t i = 0; i < seeds.size(); ++i) root.Add(Name(i));
    return root.Finish();
  }
};

class RecordingSink final : public ingest::UploadSink {
 public:
  void Send(const v1::UploadResponse& response) override {
    MutexLock lock(mu_);
    responses_.push_back(response);
    changed_.SignalAll();
  }
  void Close(const absl::Status& status) override {
    MutexLock lock(mu_);
    closed_ = status;
    changed_.SignalAll();
  }
  std::optional<v1::UploadResponse> Next(v1::UploadResponse::MessageCase wanted) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    MutexLock lock(mu_);
    for (;;) {
      while (!responses_.empty()) {
        v1::UploadResponse response = responses_.front();
        responses_.pop_front();
        if (response.has_durable()) last_durable_ = response.durable();
        if (response.message_case() == wanted) return response;
      }
      if (closed_.has_value() || !changed_.WaitUntil(mu_, deadline)) return std::nullopt;
    }
  }
  std::optional<absl::Status> closed() {
    MutexLock lock(mu_);
    return closed_;
  }
  v1::UploadDurable last_durable() {
    MutexLock lock(mu_);
    return last_durable_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::deque<v1::UploadResponse> responses_;
  std::optional<absl::Status> closed_;
  v1::UploadDurable last_durable_;
};

struct UploadOutcome {
  absl::Status status;
  std::string snapshot_id;
  bool created = false;
  size_t chunks_sent = 0;
  uint64_t durable_at_begin = 0;
};

struct UploadPlan {
  std::string session_id;
  std::string database = "main";
  uint64_t timeline = 1;
  int64_t age_seconds = 1;
  size_t chunks_per_offer = 64;
  size_t stop_after_chunks = SIZE_MAX;  // then the stream ends without a commit
  v1::Method method = v1::METHOD_ONLINE;
};

inline v1::UploadRequest BeginRequest(const FakeDatabase& database, const UploadPlan& plan) {
  v1::UploadRequest request;
  v1::UploadBegin& begin = *request.mutable_begin();
  begin.set_session_id(plan.session_id);
  begin.set_database(plan.database);
  begin.set_timeline(plan.timeline);
  begin.set_method(plan.method);
  begin.set_page_size(database.page_size);
  begin.set_page_count(database.page_count);
  return request;
}

inline v1::UploadRequest OfferRequest(const FakeDatabase& database, uint64_t id, uint32_t first_extent, uint32_t extents) {
  v1::UploadRequest request;
  request.mutable_offer()->set_offer_id(id);
  for (uint32_t i = first_extent; i < first_extent + extents; ++i) {
    v1::ChunkOffer& offer = *request.mutable_offer()->add_chunks();
    offer.set_name(std::string(database.Name(i).AsString()));
    v1::PageRun& run = *offer.add_runs();
    run.set_first_page(format::FirstPageOf(database.page_size, i));
    run.set_page_count(format::PagesIn(database.page_size, database.page_count, i));
  }
  return request;
}

inline v1::UploadRequest ChunkRequest(const FakeDatabase& database, uint32_t extent) {
  static thread_local format::ChunkCompressor compressor(1);
  v1::UploadRequest request;
  v1::ChunkData& chunk = *request.mutable_chunks()->add_chunks();
  const Bytes raw = database.Extent(extent);
  chunk.set_name(std::string(database.Name(extent).AsString()));
  chunk.set_raw_bytes(static_cast<uint32_t>(raw.size()));
  std::string data;
  chunk.set_codec(static_cast<v1::Codec>(*compressor.Compress(raw, data)));
  chunk.set_data(data);
  return request;
}

inline v1::UploadRequest CommitRequest(const FakeDatabase& database) {
  v1::UploadRequest request;
  v1::UploadCommit& commit = *request.mutable_commit();
  commit.set_page_size(database.page_size);
  commit.set_page_count(database.page_count);
  commit.set_root_digest(std::string(database.Root().AsString()));
  commit.set_root_version(format::kRootVersion);
  commit.set_journal_mode(v1::JOURNAL_MODE_WAL);
  commit.set_source_check(v1::CHECK_STATE_UNKNOWN);
  commit.mutable_age()->set_seconds(1);
  return request;
}

inline UploadOutcome RunUpload(ingest::Ingest& ingest, const DeviceId& device, const FakeDatabase& database, const UploadPlan& plan) {
  UploadOutcome outcome;
  auto sink = std::make_shared<RecordingSink>();
  auto session = ingest.NewUpload(device, sink);
  if (!session.ok()) {
    outcome.status = session.status();
    return outcome;
  }
  const auto send = [&](v1::UploadRequest request) {
    if (outcome.status.ok()) outcome.status = (*session)->Handle(request);
    return outcome.status.ok();
  };
  const auto run = [&] {
    if (!send(BeginRequest(database, plan))) return;
    const auto accepted = sink->Next(v1::UploadResponse::kAccepted);
    if (!accepted.has_value()) return;
    outcome.durable_at_begin = accepted->accepted().durable_chunks();
    if (sink->closed().has_value()) {
      const auto committed = sink->Next(v1::UploadResponse::kCommitted);
      if (committed.has_value()) outcome.snapshot_id = committed->committed().snapshot_id();
      return;
    }
    uint64_t id = 0;
    const auto extents = static_cast<uint32_t>(database.seeds.size());
    for (uint32_t first = 0; first < extents; first += static_cast<uint32_t>(plan.chunks_per_offer)) {
      const uint32_t count = std::min(static_cast<uint32_t>(plan.chunks_per_offer), extents - first);
      if (!send(OfferRequest(database, ++id, first, count))) return;
      const auto missing = sink->Next(v1::UploadResponse::kMissing);
      if (!missing.has_value()) return;
      for (const uint32_t position : missing->missing().positions()) {
        if (outcome.chunks_sent == plan.stop_after_chunks) return;
        if (!send(ChunkRequest(database, first + position))) return;
        ++outcome.chunks_sent;
      }
    }
    v1::UploadRequest commit = CommitRequest(database);
    commit.mutable_commit()->mutable_age()->set_seconds(plan.age_seconds);
    if (!send(std::move(commit))) return;
    const auto committed = sink->Next(v1::UploadResponse::kCommitted);
    if (!committed.has_value()) return;
    outcome.snapshot_id = committed->committed().snapshot_id();
    outcome.created = committed->committed().created();
  };
  run();
  (*session)->End();
  if (outcome.status.ok() && outcome.snapshot_id.empty()) outcome.status = sink->closed().value_or(absl::UnknownError("no answer"));
  return outcome;
}

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_UPLOAD_DEVICE_H_
