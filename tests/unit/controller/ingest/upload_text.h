// A device that uploads SQL text by the method dump.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_INGEST_UPLOAD_TEXT_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_INGEST_UPLOAD_TEXT_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/format/segment.h"
#include "controller/ingest/ingest.h"

namespace litefleet::ingest {

class TextSink final : public UploadSink {
 public:
  void Send(const v1::UploadResponse& response) override {
    const std::scoped_lock lock(mu_);
    answers_.push_back(response);
  }
  void Close(const absl::Status& status) override {
    const std::scoped_lock lock(mu_);
    closed_ = status;
  }
  // The last answer.
  v1::UploadResponse Last() {
    const std::scoped_lock lock(mu_);
    // Durable marks come in between.
    for (auto it = answers_.rbegin(); it != answers_.rend(); ++it) {
      if (!it->has_durable()) return *it;
    }
    return {};
  }

 private:
  std::mutex mu_;
  std::vector<v1::UploadResponse> answers_;
  absl::Status closed_;
};

struct Sent {
  absl::Status status;
  std::string snapshot;
  size_t offered = 0;
  size_t sent = 0;
};

// A device that uploads text.
inline Sent UploadText(
    Ingest& ingest, const DeviceId& device, const std::string& text,
    const std::function<void(v1::UploadRequest&)>& change = [](v1::UploadRequest&) {}) {
  format::SegmentWriter writer(format::Content::kSql);
  EXPECT_TRUE(writer.Add(AsBytes(text)).ok());
  EXPECT_TRUE(writer.Finish().ok());
  auto sink = std::make_shared<TextSink>();
  auto session = ingest.NewUpload(device, sink);
  EXPECT_TRUE(session.ok());
  Sent result;
  const auto handle = [&](v1::UploadRequest request) {
    change(request);
    if (result.status.ok()) result.status = (*session)->Handle(request);
    return result.status.ok();
  };
  v1::UploadRequest begin;
  begin.mutable_begin()->set_session_id(NewUlid(RealClock().Now()));
  begin.mutable_begin()->set_database("main");
  begin.mutable_begin()->set_timeline(1);
  begin.mutable_begin()->set_method(v1::METHOD_DUMP);
  begin.mutable_begin()->set_content(v1::SNAPSHOT_CONTENT_SQL);
  begin.mutable_begin()->set_page_size(512);
  begin.mutable_begin()->set_page_count(writer.page_count());
  handle(begin);
  uint64_t offers = 0;
  format::ChunkCompressor compressor(1);
  while (std::optional<format::SegmentWriter::Segment> segment = writer.Take()) {
    v1::UploadRequest offer;
    offer.mutable_offer()->set_offer_id(++offers);
    v1::ChunkOffer& chunk = *offer.mutable_offer()->add_chunks();
    chunk.set_name(std::string(segment->name.AsString()));
    chunk.add_runs()->set_first_page(segment->first_page);
    chunk.mutable_runs(0)->set_page_count(static_cast<uint32_t>(segment->pages.size() / 512));
    ++result.offered;
    if (!handle(offer)) break;
    if (sink->Last().missing().positions_size() == 0) continue;
    ++result.sent;
    v1::UploadRequest chunks;
    v1::ChunkData& data = *chunks.mutable_chunks()->add_chunks();
    data.set_name(std::string(segment->name.AsString()));
    data.set_raw_bytes(static_cast<uint32_t>(segment->pages.size()));
    std::string packed;
    data.set_codec(static_cast<v1::Codec>(*compressor.Compress(segment->pages, packed)));
    data.set_data(packed);
    if (!handle(chunks)) break;
  }
  v1::UploadRequest commit;
  commit.mutable_commit()->set_page_size(512);
  commit.mutable_commit()->set_page_count(writer.page_count());
  commit.mutable_commit()->set_root_digest(std::string(writer.Root().AsString()));
  commit.mutable_commit()->set_root_version(1);
  commit.mutable_commit()->set_content_bytes(writer.text_bytes());
  handle(commit);
  result.snapshot = sink->Last().committed().snapshot_id();
  (*session)->End();
  return result;
}

// Of a dump that holds this part only.
inline Sent UploadPart(Ingest& ingest, const DeviceId& device, const std::string& text, const std::string& part) {
  return UploadText(ingest, device, text, [&](v1::UploadRequest& request) {
    if (request.has_commit()) request.mutable_commit()->set_part(part);
  });
}

}  // namespace litefleet::ingest

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_INGEST_UPLOAD_TEXT_H_
