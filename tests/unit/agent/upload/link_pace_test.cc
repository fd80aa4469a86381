#include "agent/upload/link_pace.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace litefleet::upload {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kMessage = 256 << 10;

// A link on which messages go one after the other, and each is answered half a round trip after it has arrived.
class LinkPaceTest : public testing::Test {
 protected:
  void Ask(milliseconds round_trip) {
    pace_.Asked(now_);
    now_ += round_trip;
    pace_.Answered(now_);
  }
  // The time for so many messages, with as many under way as the window allows.
  std::chrono::duration<double> Send(int messages, double rate, milliseconds round_trip) {
    const SteadyTime began = now_;
    std::vector<SteadyTime> told;  // when each message is known to be received
    SteadyTime line = now_;        // free from then on
    for (int i = 0; i < messages; ++i) {
      SteadyTime may = line;
      const auto heard = [&] { return std::count_if(told.begin(), told.end(), [&](SteadyTime at) { return at <= may; }); };
      for (;;) {
        for (; next_ < told.size() && told[next_] <= may; ++next_) pace_.Received((sent_ += kMessage), told[next_]);
        if ((static_cast<int64_t>(told.size()) - heard() + 1) * kMessage <= std::max(pace_.Window(kMessage), kMessage)) break;
        may = *std::find_if(told.begin(), told.end(), [&](SteadyTime at) { return at > may; });
      }
      pace_.Sent(may);
      line = may + std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::duration<double>(kMessage / rate));
      told.push_back(line + round_trip);
    }
    for (; next_ < told.size(); ++next_) pace_.Received((sent_ += kMessage), told[next_]);
    next_ = 0;
    now_ = told.back();
    return now_ - began;
  }

  LinkPace pace_;
  SteadyTime now_{std::chrono::hours(1)};
  size_t next_ = 0;
  int64_t sent_ = 0;
};

TEST_F(LinkPaceTest, OneMessageUntilSomethingIsKnown) {
  EXPECT_EQ(pace_.Window(kMessage), kMessage);
  Ask(milliseconds(300));
  EXPECT_EQ(pace_.Window(kMessage), kMessage);
  pace_.Answered(now_);  // to no question
}

TEST_F(LinkPaceTest, ALongLinkDoesNotRest) {
  Ask(milliseconds(300));
  const double rate = 250'000;
  const auto took = Send(40, rate, milliseconds(300));
  const std::chrono::duration<double> transfer(40 * kMessage / rate);
  EXPECT_LT(took.count(), transfer.count() + 0.7) << "a rest behind the first message, and a round trip";
  EXPECT_LT(pace_.Window(kMessage), 3 * kMessage);
}

TEST_F(LinkPaceTest, AFastLongLinkIsFilledSoon) {
  Ask(milliseconds(300));
  const double rate = 6'000'000;
  Send(40, rate, milliseconds(300));
  EXPECT_GE(pace_.Window(kMessage), int64_t{1'800'000}) << "what is under way there and back";
}

TEST_F(LinkPaceTest, OnASlowLinkNothingWaitsBehindMoreThanAMessage) {
  Ask(milliseconds(600));
  Send(10, 20'000, milliseconds(600));
  EXPECT_LT(pace_.Window(kMessage), kMessage * 5 / 4);
}

TEST_F(LinkPaceTest, WhatIsToldTogetherIsNoFastLink) {
  Ask(milliseconds(600));
  Send(10, 20'000, milliseconds(600));
  for (int burst = 0; burst < 3; ++burst) {
    now_ += std::chrono::seconds(40);
    for (int i = 0; i < 3; ++i) pace_.Received(sent_ += kMessage, now_ += std::chrono::microseconds(20));
    EXPECT_LT(pace_.Window(kMessage), 2 * kMessage);
    Send(1, 20'000, milliseconds(600));
    EXPECT_LT(pace_.Window(kMessage), 2 * kMessage);
  }
}

TEST_F(LinkPaceTest, AnAnswerThatWaitedIsNoLongLink) {
  Ask(milliseconds(20));
  Ask(milliseconds(60'000));
  Send(10, 1'000'000, milliseconds(20));
  EXPECT_LE(pace_.Window(kMessage), 2 * kMessage + 60'000);
}

}  // namespace
}  // namespace litefleet::upload
