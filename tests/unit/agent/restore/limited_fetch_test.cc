#include "agent/restore/limited_fetch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "common/base/status.h"

namespace litefleet::restore {
namespace {

using std::chrono::milliseconds;

struct Script {
  std::atomic<int> reads{0};
  std::atomic<bool> cancelled{false};
  int messages = 0;
  size_t bytes = 0;
};

class ScriptedStream final : public FetchStream {
 public:
  explicit ScriptedStream(Script& script) : script_(script) {}
  absl::StatusOr<bool> Read(v1::FetchResponse& response, SteadyTime) override {
    if (script_.reads.fetch_add(1) >= script_.messages) return false;
    response.mutable_names()->set_names(std::string(script_.bytes, 'n'));
    return true;
  }
  void Cancel() override { script_.cancelled.store(true); }

 private:
  Script& script_;
};

class ScriptedTransport final : public FetchTransport {
 public:
  explicit ScriptedTransport(Script& script) : script_(script) {}
  absl::StatusOr<std::unique_ptr<FetchStream>> Open(const v1::FetchRequest&, SteadyTime, const CancelToken&) override {
    return std::make_unique<ScriptedStream>(script_);
  }

 private:
  Script& script_;
};

class LimitedFetchTest : public testing::Test {
 protected:
  std::unique_ptr<FetchStream> Open(RateLimit& rate) {
    transport_ = std::make_unique<LimitedFetchTransport>(std::make_unique<ScriptedTransport>(script_), rate);
    auto stream = transport_->Open(v1::FetchRequest(), SteadyTime::max(), cancel_);
    EXPECT_TRUE(stream.ok());
    return *std::move(stream);
  }
  Script script_;
  CancelToken cancel_;
  std::unique_ptr<LimitedFetchTransport> transport_;
};

TEST_F(LimitedFetchTest, WithoutALimitEverythingPasses) {
  script_.messages = 100;
  script_.bytes = 1 << 20;
  RateLimit rate(0);
  const auto stream = Open(rate);
  v1::FetchResponse response;
  int read = 0;
  for (auto more = stream->Read(response, SteadyTime::max()); more.ok() && *more; more = stream->Read(response, SteadyTime::max())) ++read;
  EXPECT_EQ(read, 100);
}

TEST_F(LimitedFetchTest, WhatWasReadIsPaidFor) {
  script_.messages = 1;
  script_.bytes = 1 << 20;
  RateLimit rate(1 << 20);
  const auto stream = Open(rate);
  v1::FetchResponse response;
  EXPECT_GT(rate.Budget(std::chrono::steady_clock::now()), 0);
  const SteadyTime before = std::chrono::steady_clock::now();
  ASSERT_TRUE(*stream->Read(response, SteadyTime::max()));
  EXPECT_LE(rate.Budget(before), 0) << "the next message waits";
}

TEST_F(LimitedFetchTest, ACancelEndsTheWait) {
  script_.messages = 3;
  script_.bytes = 1 << 20;
  RateLimit rate(32 << 10);
  const auto stream = Open(rate);
  v1::FetchResponse response;
  ASSERT_TRUE(*stream->Read(response, SteadyTime::max()));
  std::thread canceller([&] { stream->Cancel(); });
  const auto second = stream->Read(response, SteadyTime::max());  // would wait for half a minute
  canceller.join();
  EXPECT_EQ(second.status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(script_.cancelled.load());
}

TEST_F(LimitedFetchTest, ALimitThatIsLiftedCountsAtOnce) {
  script_.messages = 3;
  script_.bytes = 1 << 20;
  RateLimit rate(32 << 10);
  const auto stream = Open(rate);
  v1::FetchResponse response;
  ASSERT_TRUE(*stream->Read(response, SteadyTime::max()));
  std::thread lifter([&] { rate.SetRate(0); });
  EXPECT_TRUE(*stream->Read(response, SteadyTime::max()));
  lifter.join();
}

}  // namespace
}  // namespace litefleet::restore
