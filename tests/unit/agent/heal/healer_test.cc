// What is found is sent in messages that a slow link can carry.
#include "agent/heal/healer.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>

#include "common/base/bytes.h"
#include "common/format/digest.h"
#include "common/format/extent.h"

namespace litefleet::heal {
namespace {

constexpr uint32_t kPage = 4096;

class ContentSource final : public capture::PageSource {
 public:
  explicit ContentSource(const Bytes& content) : content_(content) {
    info_.page_size = kPage;
    info_.page_count = static_cast<uint32_t>(content.size() / kPage);
  }
  const capture::SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<capture::ExtentPages>> Next() override {
    const size_t begin = next_ * format::kExtentBytes;
    if (begin >= content_.size()) return std::nullopt;
    return capture::ExtentPages{static_cast<uint32_t>(next_++),
                                ByteView(content_).subspan(begin, std::min<size_t>(format::kExtentBytes, content_.size() - begin))};
  }
  absl::Status Close() override { return absl::OkStatus(); }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return std::chrono::milliseconds(1); }

 private:
  const Bytes& content_;
  capture::SourceInfo info_;
  size_t next_ = 0;
  std::string damage_;
};

class Receiver final : public WantedSender {
 public:
  absl::Status WaitConnected(SteadyTime, const CancelToken&) override { return absl::OkStatus(); }
  absl::StatusOr<v1::SendWantedResponse> Send(const v1::SendWantedRequest& request, const CancelToken&) override {
    largest = std::max(largest, request.ByteSizeLong());
    chunks += request.contents_size();
    last = last || request.last();
    return v1::SendWantedResponse();
  }
  size_t largest = 0;
  int chunks = 0;
  bool last = false;
};

TEST(HealerTest, NoMessageIsLargerThanAChunk) {
  // Chunks of 240 KiB, which do not compress: two of them are more than a slow link carries between two pings.
  constexpr uint32_t kPages = 60;
  constexpr uint32_t kChunks = 5;
  Bytes content(size_t{kPages} * kChunks * kPage);
  std::mt19937_64 random(7);
  for (size_t at = 0; at < content.size(); at += 8) {
    const uint64_t value = random();
    std::memcpy(content.data() + at, &value, 8);
  }
  v1::HealOrder order;
  order.set_page_size(kPage);
  for (uint32_t chunk = 0; chunk < kChunks; ++chunk) {
    v1::WantedPages& wanted = *order.add_wanted();
    const auto pages = ByteView(content).subspan(size_t{chunk} * kPages * kPage, size_t{kPages} * kPage);
    wanted.set_name(std::string(format::NameChunkOf(kPage, pages).AsString()));
    v1::PageRun& run = *wanted.add_runs();
    run.set_first_page(chunk * kPages + 1);
    run.set_page_count(kPages);
  }
  std::string folder = testing::TempDir() + "/lf-healer-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  HealJob job{.operation_id = "01JDAAAAAAAAAAAAAAAAAAAAAA",
              .order = order,
              .spool_file = folder + "/spool",
              .reserve = {},
              .open = [&]() -> absl::StatusOr<std::unique_ptr<capture::PageSource>> { return std::make_unique<ContentSource>(content); },
              .give_up_at = SteadyTime::max(),
              .waits = {}};
  Receiver receiver;
  RateLimit rate{0};
  const HealOutcome outcome = RunHeal(job, receiver, rate, CancelToken(), [](const v1::Progress&) {});
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(receiver.chunks, static_cast<int>(kChunks));
  EXPECT_TRUE(receiver.last);
  EXPECT_LE(receiver.largest, size_t{257} << 10);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace litefleet::heal
