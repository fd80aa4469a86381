// Uploads whose pages are no database: chunks end anywhere, nothing is compared, successive ones share what they have in common.
#include <random>
#include <string>

#include "common/base/status.h"
#include "common/format/segment.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using Content = IngestTest;

std::string Rows(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) text += "INSERT INTO t VALUES(" + std::to_string(text.size()) + "," + std::to_string(random()) + ");\n";
  return text;
}

class Sink final : public UploadSink {
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
Sent UploadText(
    Ingest& ingest, const DeviceId& device, const std::string& text,
    const std::function<void(v1::UploadRequest&)>& change = [](v1::UploadRequest&) {}) {
  format::SegmentWriter writer(format::Content::kSql);
  EXPECT_TRUE(writer.Add(AsBytes(text)).ok());
  EXPECT_TRUE(writer.Finish().ok());
  auto sink = std::make_shared<Sink>();
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

std::string TextOf(const Bytes& pages) {
  format::SegmentReader reader(format::Content::kSql);
  std::string text;
  EXPECT_TRUE(reader
                  .Add(pages,
                       [&](ByteView piece) {
                         text += AsText(piece);
                         return absl::OkStatus();
                       })
                  .ok());
  EXPECT_TRUE(reader.Finish().ok());
  return text;
}

TEST_F(Content, TextComesBackAndTheCatalogSaysWhatItIs) {
  Open();
  const std::string text = Rows(3'000'000, 1);
  const Sent sent = UploadText(*path_->ingest, device_, text);
  ASSERT_TRUE(sent.status.ok()) << sent.status;
  EXPECT_EQ(sent.sent, sent.offered);
  const auto snapshot = path_->snapshots->Resolve(sent.snapshot);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->method(), v1::METHOD_DUMP);
  EXPECT_EQ(snapshot->content(), v1::SNAPSHOT_CONTENT_SQL);
  EXPECT_EQ(snapshot->content_bytes(), static_cast<int64_t>(text.size()));
  const auto pages = path_->ReadBack(sent.snapshot);
  ASSERT_TRUE(pages.ok()) << pages.status();
  EXPECT_EQ(TextOf(*pages), text);
}

TEST_F(Content, SuccessiveTextsShareWhatTheyHaveInCommon) {
  Open();
  std::string text = Rows(6'000'000, 2);
  const Sent first = UploadText(*path_->ingest, device_, text);
  ASSERT_TRUE(first.status.ok()) << first.status;
  text.insert(2'000'000, "INSERT INTO t VALUES(-1,'new');\n");
  const Sent second = UploadText(*path_->ingest, device_, text);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_LE(second.sent, 3u);
  EXPECT_EQ(TextOf(*path_->ReadBack(second.snapshot)), text);
  // Nothing was copied together: the third one finds the segments of the second.
  const Sent third = UploadText(*path_->ingest, device_, text);
  EXPECT_EQ(third.sent, 0u);
  // Another device may not refer to them.
  const Sent foreign = UploadText(*path_->ingest, other_, text);
  EXPECT_EQ(foreign.sent, foreign.offered);
}

TEST_F(Content, EmptyTextIsASnapshotWithoutPages) {
  Open();
  const Sent sent = UploadText(*path_->ingest, device_, "");
  ASSERT_TRUE(sent.status.ok()) << sent.status;
  EXPECT_TRUE(path_->ReadBack(sent.snapshot)->empty());
}

TEST_F(Content, WhatTheRulesForbidIsRefused) {
  Open();
  const std::string text = Rows(600'000, 4);
  const auto refused = [&](const std::string& reason, const std::function<void(v1::UploadRequest&)>& change) {
    const Sent sent = UploadText(*path_->ingest, device_, text, change);
    EXPECT_EQ(ReasonOf(sent.status), reason) << sent.status;
  };
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_page_size(4096);
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_content(static_cast<v1::SnapshotContent>(9));
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_compare(true);
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_base_snapshot_id(NewUlid(RealClock().Now()));
  });
  refused("ROOT_MISMATCH", [](v1::UploadRequest& r) {
    if (r.has_commit()) (*r.mutable_commit()->mutable_root_digest())[0] ^= 1;
  });
  refused("COMMIT_INVALID", [](v1::UploadRequest& r) {
    if (r.has_commit()) r.mutable_commit()->set_precopied(true);
  });
  refused("OFFER_INVALID", [](v1::UploadRequest& r) {
    if (r.has_offer() && r.offer().offer_id() == 2) r.mutable_offer()->mutable_chunks(0)->mutable_runs(0)->set_first_page(4'000'000);
  });
  // As an extent of a database each chunk would have to be whole.
  refused("OFFER_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_content(v1::SNAPSHOT_CONTENT_DATABASE);
  });
}

}  // namespace
}  // namespace litefleet::ingest
