#include "controller/flow/fair_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <map>

#include "controller/flow/fair_rate.h"

namespace litefleet::flow {
namespace {

using std::chrono::duration;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr int64_t kRate = 1'000'000;
constexpr int64_t kMessage = 10'000;

// Devices that send as the queue lets them, in steps of a clock that stands still otherwise.
class FairQueueTest : public testing::Test {
 protected:
  // A stream of messages of one size; `left` of them come yet.
  struct Stream {
    std::string device;
    int64_t bytes = kMessage;
    int left = INT32_MAX;
    SteadyTime asked_at{};
  };

  void Send(Stream& stream) {
    if (stream.left-- <= 0) return;
    sent_[stream.device] += stream.bytes;
    stream.asked_at = clock_.Steady();
    queue_.Add(stream.device, stream.bytes, [this, &stream] {
      longest_[stream.device] = std::max(longest_[stream.device], duration<double>(clock_.Steady() - stream.asked_at).count());
      Send(stream);
    });
  }
  void Run(std::chrono::nanoseconds time) {
    const SteadyTime end = clock_.Steady() + time;
    for (;;) {
      for (auto due = queue_.Due(clock_.Steady()); !due.empty(); due = queue_.Due(clock_.Steady())) {
        for (FairQueue::Go& go : due) go();
      }
      const auto next = queue_.NextAt(clock_.Steady());
      if (!next.has_value() || *next >= end) break;
      ASSERT_GT(*next, clock_.Steady()) << "it would turn without end";
      clock_.Advance(*next - clock_.Steady());
    }
    clock_.Advance(end - clock_.Steady());
  }

  FakeClock clock_;
  FairQueue queue_{kRate};
  std::map<std::string, int64_t> sent_;
  std::map<std::string, double> longest_;
};

TEST_F(FairQueueTest, TheTotalIsTheRate) {
  Stream a{"a"}, b{"b"};
  Send(a);
  Send(b);
  Run(seconds(10));
  const int64_t total = sent_["a"] + sent_["b"];
  EXPECT_GE(total, 10 * kRate);
  EXPECT_LE(total, 10 * kRate + kRate / 4 + 3 * kMessage);  // what may be saved up, the debt, and what was sent and waits
}

TEST_F(FairQueueTest, DevicesHaveEqualSharesWhateverTheirMessagesAndStreams) {
  Stream large{"large", 100'000}, small{"small", 1'000};
  Stream many[5] = {{"many"}, {"many"}, {"many"}, {"many"}, {"many"}};
  Send(large);
  Send(small);
  for (Stream& stream : many) Send(stream);
  Run(seconds(30));
  for (const char* device : {"large", "small", "many"}) {
    EXPECT_NEAR(static_cast<double>(sent_[device]), 10.0 * kRate, 0.03 * 10 * kRate) << device;
  }
}

TEST_F(FairQueueTest, AnIncrementDoesNotWaitBehindAFirstBackup) {
  Stream big[3] = {{"big-1", 500'000}, {"big-2", 500'000}, {"big-3", 500'000}};
  for (Stream& stream : big) Send(stream);
  Run(seconds(20));
  Stream increment{"increment", 2'000, 10};
  Send(increment);
  Run(seconds(20));
  EXPECT_EQ(sent_["increment"], 20'000);
  // No longer than what one message of others took the bucket into debt for: not for their backlog, nor for their past.
  EXPECT_LE(longest_["increment"], 0.51);
  EXPECT_GT(longest_["big-1"], 1.0);
}

TEST_F(FairQueueTest, NobodyStarves) {
  std::vector<Stream> all;
  all.reserve(200);
  for (int i = 0; i < 200; ++i) all.push_back({"device-" + std::to_string(i), i % 7 == 0 ? 300'000 : 500});
  for (Stream& stream : all) Send(stream);
  Run(seconds(400));
  int64_t least = INT64_MAX;
  for (const Stream& stream : all) least = std::min(least, sent_[stream.device]);
  EXPECT_GE(least, 400 * kRate / 200 / 2);
}

TEST_F(FairQueueTest, WhoWasAwayHasNoCreditForIt) {
  Stream a{"a"}, b{"b", kMessage, 1};
  Send(a);
  Send(b);
  Run(seconds(20));
  sent_.clear();
  b.left = INT32_MAX;
  Send(b);
  Run(seconds(2));
  EXPECT_NEAR(static_cast<double>(sent_["a"]), 1.0 * kRate, 0.05 * kRate);
  EXPECT_NEAR(static_cast<double>(sent_["b"]), 1.0 * kRate, 0.05 * kRate);
}

TEST_F(FairQueueTest, ForgetsDevices) {
  for (int i = 0; i < 10'000; ++i) {
    Stream once{"device-" + std::to_string(i), 100, 1};
    Send(once);
    Run(milliseconds(1));
  }
  EXPECT_LE(queue_.devices(), 2u);
  EXPECT_EQ(queue_.waiting(), 0u);
}

TEST(FairRateTest, WithoutALimitNobodyWaits) {
  const RealClock clock;
  FairRate rate(0, clock);
  int calls = 0;
  for (int i = 0; i < 100; ++i) rate.Charge("a", 1 << 30, [&] { ++calls; });
  EXPECT_EQ(calls, 100);
}

TEST(FairRateTest, ItsThreadCallsThoseThatWait) {
  const RealClock clock;
  FairRate rate(100'000, clock);
  std::promise<void> last;
  rate.Charge("a", 50'000, [] {});  // into debt: the next one waits for 250 ms
  const SteadyTime start = clock.Steady();
  rate.Charge("a", 1, [&] { last.set_value(); });
  ASSERT_EQ(last.get_future().wait_for(seconds(60)), std::future_status::ready);
  EXPECT_GE(clock.Steady() - start, milliseconds(200));
}

TEST(FairRateTest, WhatWaitsAtTheEndIsDropped) {
  const RealClock clock;
  std::atomic<int> calls{0};
  const auto held = std::make_shared<int>();
  {
    FairRate rate(1'000, clock);
    rate.Charge("a", 1'000'000, [&] { ++calls; });
    rate.Charge("a", 1, [&calls, held] { ++calls; });
    EXPECT_EQ(rate.waiting(), 1u);
    EXPECT_EQ(held.use_count(), 2);
  }
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace litefleet::flow
