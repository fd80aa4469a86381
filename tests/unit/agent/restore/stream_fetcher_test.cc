#include "agent/restore/stream_fetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <random>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/extent.h"

namespace litefleet::restore {
namespace {

constexpr uint32_t kPageSize = 4096;

Bytes Content(uint32_t extent, uint32_t pages) {
  std::minstd_rand random(extent + 1);
  Bytes bytes(size_t{kPageSize} * pages);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = i % 4 == 0 ? static_cast<std::byte>(random()) : std::byte{0};
  return bytes;
}

// Answers as a controller does, or wrongly in one way.
class ScriptedTransport final : public FetchTransport {
 public:
  explicit ScriptedTransport(const v1::RestoreOrder& order) : order_(order) {}

  class Stream final : public FetchStream {
   public:
    Stream(std::deque<v1::FetchResponse> messages, absl::StatusOr<bool> end, std::atomic<bool>& cancelled, std::atomic<bool>& waiting)
        : messages_(std::move(messages)), end_(std::move(end)), cancelled_(cancelled), waiting_(waiting) {}
    absl::StatusOr<bool> Read(v1::FetchResponse& response, SteadyTime deadline) override {
      if (!messages_.empty()) {
        response = std::move(messages_.front());
        messages_.pop_front();
        return true;
      }
      // "true" at the end means: nothing more comes, and the stream stays open.
      if (!end_.ok() || !*end_) return end_;
      waiting_ = true;
      while (!cancelled_ && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return Error(absl::StatusCode::kDeadlineExceeded, "FETCH_STALLED", "nothing");
    }
    void Cancel() override { cancelled_ = true; }

   private:
    std::deque<v1::FetchResponse> messages_;
    absl::StatusOr<bool> end_;
    std::atomic<bool>& cancelled_;
    std::atomic<bool>& waiting_;
  };

  absl::StatusOr<std::unique_ptr<FetchStream>> Open(const v1::FetchRequest& request, SteadyTime, const CancelToken&) override {
    request_ = request;
    std::deque<v1::FetchResponse> messages;
    v1::FetchResponse header;
    header.mutable_header()->set_page_size(order_.page_size());
    header.mutable_header()->set_page_count(order_.page_count());
    header.mutable_header()->set_root_digest(order_.root_digest());
    header.mutable_header()->set_root_version(order_.root_version());
    messages.push_back(header);
    const uint32_t first = request.runs().empty() ? 0 : (request.runs(0).first_page() - 1) / format::PagesPerExtent(kPageSize);
    format::ChunkCompressor compressor(1);
    for (uint32_t extent = first; extent < format::ExtentCount(kPageSize, order_.page_count()); ++extent) {
      const uint32_t pages = format::PagesIn(kPageSize, order_.page_count(), extent);
      const Bytes raw = Content(extent, pages);
      if (extent == first || extent % 3 == 0) messages.emplace_back();
      v1::FetchedChunk& chunk = *messages.back().mutable_chunks()->add_chunks();
      const auto codec = compressor.Compress(raw, *chunk.mutable_chunk()->mutable_data());
      chunk.mutable_chunk()->set_codec(*codec == format::Codec::kRaw ? v1::CODEC_RAW : v1::CODEC_ZSTD);
      chunk.mutable_chunk()->set_raw_bytes(static_cast<uint32_t>(raw.size()));
      chunk.mutable_chunk()->set_name(std::string(format::NameChunkOf(kPageSize, raw).AsString()));
      v1::PageRun& run = *chunk.add_runs();
      run.set_first_page(format::FirstPageOf(kPageSize, extent));
      run.set_page_count(pages);
    }
    if (spoil) spoil(messages);
    cancelled_ = waiting = false;
    return std::make_unique<Stream>(std::move(messages), end, cancelled_, waiting);
  }

  const v1::RestoreOrder order_;
  v1::FetchRequest request_;
  std::function<void(std::deque<v1::FetchResponse>&)> spoil;
  absl::StatusOr<bool> end = false;
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> waiting{false};  // for a message
};

class StreamFetcherTest : public ::testing::Test {
 protected:
  StreamFetcherTest() {
    order_.set_snapshot_id("S");
    order_.set_page_size(kPageSize);
    order_.set_page_count(64 * 20 + 7);
    order_.set_root_digest(std::string(32, 'r'));
    order_.set_root_version(1);
    transport_ = std::make_unique<ScriptedTransport>(order_);
  }
  absl::Status Fetch(uint32_t first = 0) {
    got_.clear();
    StreamFetcher fetcher(*transport_, {.connect_timeout = std::chrono::seconds(1), .message_timeout = std::chrono::seconds(1)});
    return fetcher.Fetch("O", order_, first, cancel_, [&](const FetchedExtent& extent) -> absl::Status {
      EXPECT_EQ(extent.extent, first + got_.size());
      const Bytes wanted = Content(extent.extent, format::PagesIn(kPageSize, order_.page_count(), extent.extent));
      EXPECT_TRUE(std::equal(wanted.begin(), wanted.end(), extent.pages.begin(), extent.pages.end()));
      EXPECT_EQ(extent.name, format::NameChunkOf(kPageSize, wanted));
      got_.push_back(extent.extent);
      return on_extent ? on_extent() : absl::OkStatus();
    });
  }
  // What comes of an answer that is wrong in this way.
  std::string ReasonWhen(std::function<void(std::deque<v1::FetchResponse>&)> spoil) {
    transport_->spoil = std::move(spoil);
    const absl::Status status = Fetch();
    EXPECT_LT(got_.size(), 21u);
    return ReasonOf(status);
  }

  v1::RestoreOrder order_;
  std::unique_ptr<ScriptedTransport> transport_;
  CancelToken cancel_;
  std::vector<uint32_t> got_;
  std::function<absl::Status()> on_extent;
};

TEST_F(StreamFetcherTest, HandsOnAllExtentsInOrder) {
  ASSERT_TRUE(Fetch().ok());
  EXPECT_EQ(got_.size(), 21u);
  EXPECT_EQ(transport_->request_.runs_size(), 0);
  EXPECT_EQ(transport_->request_.operation_id(), "O");
}

TEST_F(StreamFetcherTest, GoesOnFromAnExtent) {
  ASSERT_TRUE(Fetch(13).ok());
  EXPECT_EQ(got_.size(), 8u);
  ASSERT_EQ(transport_->request_.runs_size(), 1);
  EXPECT_EQ(transport_->request_.runs(0).first_page(), 13u * 64 + 1);
  EXPECT_EQ(transport_->request_.runs(0).page_count(), order_.page_count() - 13 * 64);
  EXPECT_TRUE(Fetch(21).ok());
}

TEST_F(StreamFetcherTest, CutStreamMayBeTriedAgain) {
  transport_->spoil = [](auto& messages) { messages.resize(3); };
  absl::Status status = Fetch();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_GT(got_.size(), 0u);
  transport_->end = Error(absl::StatusCode::kUnavailable, "LINK", "reset");
  EXPECT_EQ(ReasonOf(Fetch()), "LINK");
}

TEST_F(StreamFetcherTest, SilenceEndsAtTheDeadline) {
  transport_->spoil = [](auto& messages) { messages.resize(2); };
  transport_->end = true;
  EXPECT_EQ(ReasonOf(Fetch()), "FETCH_STALLED");
}

TEST_F(StreamFetcherTest, CancelIsSeenWhileNothingComes) {
  transport_->spoil = [](auto& messages) { messages.resize(2); };
  transport_->end = true;
  std::thread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    cancel_.Cancel();
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Fetch().code(), absl::StatusCode::kCancelled);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(800));
  canceller.join();
}

TEST_F(StreamFetcherTest, CancelIsSeenWhileNoNamesCome) {
  for (const size_t messages : {0, 1}) {
    CancelToken cancel;
    transport_->spoil = [messages](auto& all) { all.resize(messages); };
    transport_->end = true;
    transport_->waiting = false;
    std::thread canceller([&] {
      while (!transport_->waiting) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      cancel.Cancel();
    });
    StreamFetcher fetcher(*transport_, {.connect_timeout = std::chrono::seconds(1), .message_timeout = std::chrono::seconds(20)});
    const absl::Status status =
        fetcher.FetchNames("O", order_, cancel, [](std::span<const format::ChunkName>) { return absl::OkStatus(); });
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
    EXPECT_TRUE(transport_->cancelled_);
    canceller.join();
  }
}

TEST_F(StreamFetcherTest, ErrorOfTheSinkEndsIt) {
  on_extent = [] { return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL", "full"); };
  EXPECT_EQ(ReasonOf(Fetch()), "DISK_FULL");
  EXPECT_EQ(got_.size(), 1u);
}

TEST_F(StreamFetcherTest, AnythingElseThanOrderedIsRefused) {
  EXPECT_EQ(ReasonWhen([](auto& m) { m.pop_front(); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m.push_front(m.front()); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m.front().mutable_header()->set_page_count(5); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m.front().mutable_header()->set_root_digest(std::string(32, 'x')); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].Clear(); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { std::swap(m[1], m[2]); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[2] = m[1]; }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->add_runs(); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->mutable_chunk()->set_raw_bytes(4096); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->mutable_chunk()->set_raw_bytes(0xffffffff); }),
            "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->mutable_chunk()->set_codec(v1::CODEC_UNSPECIFIED); }),
            "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->mutable_chunk()->set_name("short"); }), "FETCH_INVALID");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->mutable_chunk()->mutable_data()->back() ^= 1; }),
            "CHUNK_DAMAGED");
  EXPECT_EQ(ReasonWhen([](auto& m) { m[1].mutable_chunks()->mutable_chunks(0)->mutable_chunk()->set_name(std::string(32, 'n')); }),
            "CHUNK_DAMAGED");
}

}  // namespace
}  // namespace litefleet::restore
