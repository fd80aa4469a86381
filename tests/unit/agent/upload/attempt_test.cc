// What an attempt makes of a link: how much it has under way, and how long it waits where nothing is heard. Time passes where a test says
// so.
#include "agent/upload/attempt.h"

#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <string>

#include "common/base/status.h"
#include "tests/fakes/fake_upload_link.h"

namespace litefleet::upload {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kPage = 4096;
constexpr uint32_t kChunks = 60;
constexpr uint32_t kPagesOfChunk = 64;
constexpr int64_t kMessage = 256 << 10;  // one chunk, since it cannot be compressed

struct FixedPayload final : PackablePayload {
  absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor&) override { return PackedChunk{format::Codec::kRaw, *Raw()}; }
  absl::StatusOr<std::string> Raw() const override { return std::string(kMessage, 'x'); }
};

class FixedFeed final : public ChunkFeed {
 public:
  absl::StatusOr<std::optional<Chunk>> Next() override {
    if (next_ == kChunks) return std::nullopt;
    Chunk chunk;
    chunk.name.bytes[0] = static_cast<std::byte>(next_);
    chunk.runs = {{.first_page = next_++ * kPagesOfChunk + 1, .page_count = kPagesOfChunk}};
    chunk.raw_bytes = kPagesOfChunk * kPage;
    chunk.payload = std::make_shared<FixedPayload>();
    return chunk;
  }
  v1::UploadCommit Commit() override { return {}; }
  std::chrono::nanoseconds pinned_since_boot() const override { return {}; }
  uint32_t page_size() const override { return kPage; }
  uint32_t page_count() const override { return kChunks * kPagesOfChunk; }
  int64_t read_bytes() const override { return 0; }

 private:
  uint32_t next_ = 0;
};

// Answers all offers, takes some messages and tells of each; then it tells of none, and once so much is under way nothing is heard of it.
class FadingController final : public UploadTransport {
 public:
  std::chrono::nanoseconds round_trip{0};  // of a question
  std::chrono::nanoseconds transfer{0};    // of a message
  int64_t silent_at = 0;                   // bytes under way

  SteadyTime Now() const { return SteadyTime(std::chrono::nanoseconds(now_)); }
  void Pass(std::chrono::nanoseconds time) { now_ += time.count(); }
  bool silent() const { return silent_; }
  // Sent and not told of.
  int64_t under_way() const { return under_way_; }
  SteadyTime heard_at() const { return SteadyTime(std::chrono::nanoseconds(heard_at_)); }

  absl::Status WaitConnected(SteadyTime, const CancelToken&) override { return absl::OkStatus(); }
  std::shared_ptr<UploadStream> Open(std::shared_ptr<StreamEvents> events) override {
    return std::make_shared<Stream>(*this, std::move(events));
  }

 private:
  static constexpr int kTaken = 40;
  using Events = std::shared_ptr<StreamEvents>;

  class Stream final : public UploadStream {
   public:
    Stream(FadingController& controller, Events events) : controller_(controller), events_(std::move(events)) {}
    void Start() override {}
    void Write(v1::UploadRequest request) override {
      controller_.jobs_.Post([this, request = std::move(request)] {
        if (events_ != nullptr) controller_.Handle(*events_, request);
      });
    }
    void Finish() override { Cancel(); }
    void Cancel() override {
      controller_.jobs_.Post([this] {
        if (const Events events = std::exchange(events_, nullptr)) events->OnClosed(absl::CancelledError());
      });
    }

   private:
    FadingController& controller_;
    Events events_;  // which have this stream
  };

  void Handle(StreamEvents& events, const v1::UploadRequest& request) {
    v1::UploadResponse response;
    if (request.has_begin()) {
      Pass(round_trip);
      response.mutable_accepted()->set_window_bytes(1 << 30);
      response.mutable_accepted()->set_receive_window_bytes(1 << 20);
      response.mutable_accepted()->set_max_offered_chunks(2 * kChunks);
    } else if (request.has_offer()) {
      Pass(round_trip);
      response.mutable_missing()->set_offer_id(request.offer().offer_id());
      for (int i = 0; i < request.offer().chunks_size(); ++i) response.mutable_missing()->add_positions(static_cast<uint32_t>(i));
      answered_ += static_cast<uint32_t>(request.offer().chunks_size());
    } else if (request.has_chunks()) {
      int64_t& message = waiting_.emplace_back(0);
      for (const v1::ChunkData& chunk : request.chunks().chunks()) message += static_cast<int64_t>(chunk.data().size());
      sent_ += message;
    }
    heard_at_ = now_.load();
    events.OnWritten();
    if (response.message_case() != v1::UploadResponse::MESSAGE_NOT_SET) events.OnResponse(response);
    // No question comes between two messages, so that one takes as long as the other.
    for (; answered_ == kChunks && !waiting_.empty() && taken_ < kTaken; waiting_.pop_front(), ++taken_) {
      Pass(transfer);
      response.mutable_received()->set_bytes(told_ += waiting_.front());
      heard_at_ = now_.load();
      events.OnResponse(response);
    }
    under_way_ = sent_ - told_;
    silent_ = taken_ == kTaken && under_way_ >= silent_at;
  }

  std::atomic<int64_t> now_{std::chrono::nanoseconds(std::chrono::hours(1)).count()};
  std::atomic<int64_t> heard_at_{0};
  std::atomic<int64_t> under_way_{0};
  std::atomic<bool> silent_{false};
  // Of the thread.
  uint32_t answered_ = 0;        // chunks
  std::deque<int64_t> waiting_;  // messages that were not taken out
  int taken_ = 0;
  int64_t sent_ = 0, told_ = 0;
  fakes::JobThread jobs_;  // ends before the rest goes
};

class AttemptTest : public testing::Test {
 protected:
  static constexpr seconds kLook{10};

  absl::Status Run() {
    AttemptOptions options;
    options.limits.max_raw_chunks = 2 * kChunks;
    options.now = [this] { return controller_.Now(); };
    int looks = 0;
    // Asked again and again; the number of times that it may be is what ends a test of something that does not come.
    options.paused = [&] {
      if (controller_.silent()) controller_.Pass(kLook);
      if (++looks == 2000) cancel_.Cancel();
      return false;
    };
    v1::UploadBegin begin;
    begin.set_session_id("01JDBBBBBBBBBBBBBBBBBBBBBB");
    begin.set_page_size(kPage);
    begin.set_page_count(feed_.page_count());
    UploadSession::Counts counts;
    return Attempt::Run(
               options, controller_, begin, feed_, [](v1::UploadCommit&) {}, rate_, cancel_, [](const UploadSession::Counts&) {}, counts)
        .status();
  }
  // It waited for a full message on the slowest link, and no longer, whatever is under way.
  void ExpectLeftInTime(const absl::Status& status) {
    EXPECT_EQ(ReasonOf(status), "UPLOAD_STALLED") << status;
    const auto waited = controller_.Now() - controller_.heard_at();
    const auto patience = AttemptOptions().no_progress + seconds(kMessage / AttemptOptions().slowest_link);
    EXPECT_GE(waited, patience - kLook);
    EXPECT_LE(waited, patience + 2 * kLook);
  }

  FadingController controller_;
  FixedFeed feed_;
  RateLimit rate_{0};
  CancelToken cancel_;
};

TEST_F(AttemptTest, FillsALongLinkAndLeavesItInTimeWhereNothingIsHeard) {
  controller_.round_trip = milliseconds(600);
  controller_.transfer = milliseconds(100);
  controller_.silent_at = 4 * kMessage;
  ExpectLeftInTime(Run());
  EXPECT_EQ(controller_.under_way(), 4 * kMessage) << "all that the controller takes";
}

TEST_F(AttemptTest, HasOneMessageUnderWayOnASlowLink) {
  controller_.round_trip = milliseconds(600);
  controller_.transfer = seconds(40);
  controller_.silent_at = kMessage;
  ExpectLeftInTime(Run());
  EXPECT_EQ(controller_.under_way(), kMessage);
}

}  // namespace
}  // namespace litefleet::upload
