// A cancel at the edges of an attempt: before its begin, and beside its acknowledgement.
#include <gtest/gtest.h>

#include "agent/upload/attempt.h"
#include "common/base/status.h"

namespace litefleet::upload {
namespace {

// Of a database without pages.
class EmptyFeed final : public ChunkFeed {
 public:
  absl::StatusOr<std::optional<Chunk>> Next() override { return std::nullopt; }
  v1::UploadCommit Commit() override { return {}; }
  std::chrono::nanoseconds pinned_since_boot() const override { return {}; }
  uint32_t page_size() const override { return 4096; }
  uint32_t page_count() const override { return 0; }
  int64_t read_bytes() const override { return 0; }
};

// Answers within Write, so that everything has come before the attempt looks again.
class PromptController final : public UploadTransport {
 public:
  absl::Status WaitConnected(SteadyTime, const CancelToken&) override { return absl::OkStatus(); }
  std::shared_ptr<UploadStream> Open(std::shared_ptr<StreamEvents> events) override {
    ++opened;
    return std::make_shared<Stream>(*this, std::move(events));
  }

  int opened = 0;
  std::function<void()> after_commit;

 private:
  class Stream final : public UploadStream {
   public:
    Stream(PromptController& controller, std::shared_ptr<StreamEvents> events) : controller_(controller), events_(std::move(events)) {}
    void Start() override {}
    void Write(v1::UploadRequest request) override {
      v1::UploadResponse response;
      if (request.has_begin()) {
        response.mutable_accepted()->set_window_bytes(1 << 20);
        response.mutable_accepted()->set_max_offered_chunks(16);
      } else {
        response.mutable_committed()->set_snapshot_id("01JDSSSSSSSSSSSSSSSSSSSSSS");
      }
      events_->OnResponse(response);
      if (request.has_commit()) controller_.after_commit();
      events_->OnWritten();
    }
    void Finish() override { events_.reset(); }  // which have this stream
    void Cancel() override { events_.reset(); }

   private:
    PromptController& controller_;
    std::shared_ptr<StreamEvents> events_;
  };
};

class CancelTest : public testing::Test {
 protected:
  absl::StatusOr<v1::UploadCommitted> Run() {
    v1::UploadBegin begin;
    begin.set_session_id("01JDBBBBBBBBBBBBBBBBBBBBBB");
    begin.set_page_size(4096);
    UploadSession::Counts counts;
    return Attempt::Run(
        options_, controller_, begin, feed_, [](v1::UploadCommit&) {}, rate_, cancel_, [](const UploadSession::Counts&) {}, counts);
  }

  AttemptOptions options_;
  PromptController controller_;
  EmptyFeed feed_;
  RateLimit rate_{0};
  CancelToken cancel_;
};

TEST_F(CancelTest, WhatIsAcknowledgedIsDone) {
  controller_.after_commit = [&] { cancel_.Cancel(); };
  const auto committed = Run();
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_EQ(committed->snapshot_id(), "01JDSSSSSSSSSSSSSSSSSSSSSS");
}

TEST_F(CancelTest, WhatItWasReadFromIsNotNeededAnyMore) {
  bool kept = true;
  int let_go = 0;
  options_.still_kept = [&] { return kept ? absl::OkStatus() : Error(absl::StatusCode::kResourceExhausted, "COPY_GROWTH", "it grew"); };
  options_.let_go = [&](const absl::Status& why) {
    EXPECT_EQ(ReasonOf(why), "COPY_GROWTH");
    kept = true;
    ++let_go;
  };
  controller_.after_commit = [&] { kept = false; };
  EXPECT_TRUE(Run().ok());
  EXPECT_EQ(let_go, 1);
  options_.let_go = nullptr;
  EXPECT_TRUE(Run().ok());
}

TEST_F(CancelTest, BeforeTheBeginTheControllerHearsNothing) {
  cancel_.Cancel();
  EXPECT_EQ(ReasonOf(Run().status()), "CANCELLED");
  EXPECT_EQ(controller_.opened, 0);
}

}  // namespace
}  // namespace litefleet::upload
