#include "agent/upload/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/rate_limit.h"
#include "common/base/status.h"

namespace litefleet::upload {
namespace {

constexpr uint32_t kPage = 4096;

class UploadSessionTest : public testing::Test {
 protected:
  UploadSessionTest() : session_(Begin(), Limits()) {}

  static v1::UploadBegin Begin() {
    v1::UploadBegin begin;
    begin.set_session_id("01JDAAAAAAAAAAAAAAAAAAAAAA");
    begin.set_page_size(kPage);
    begin.set_page_count(64);
    return begin;
  }
  static UploadSession::Limits Limits() {
    UploadSession::Limits limits;
    limits.chunks_per_offer = 2;
    limits.max_raw_chunks = 4;
    limits.max_packed_bytes = 1000;
    limits.message_bytes = 300;
    return limits;
  }
  static Chunk MakeChunk(uint32_t number) {
    Chunk chunk;
    chunk.name.bytes[0] = static_cast<std::byte>(number);
    chunk.runs = {{.first_page = number + 1, .page_count = 1}};
    chunk.raw_bytes = kPage;
    chunk.payload = std::make_shared<Payload>();
    return chunk;
  }
  void Accept(int64_t window = 1 << 20, uint32_t offers = 256) {
    ASSERT_TRUE(session_.NextRequest()->has_begin());
    v1::UploadResponse response;
    response.mutable_accepted()->set_window_bytes(window);
    response.mutable_accepted()->set_max_offered_chunks(offers);
    response.mutable_accepted()->set_durable_chunks(7);
    ASSERT_TRUE(session_.OnResponse(response).ok());
  }
  absl::Status Answer(uint64_t offer, std::vector<uint32_t> missing) {
    v1::UploadResponse response;
    response.mutable_missing()->set_offer_id(offer);
    for (const uint32_t position : missing) response.mutable_missing()->add_positions(position);
    return session_.OnResponse(response);
  }
  absl::Status Durable(uint64_t chunks) {
    v1::UploadResponse response;
    response.mutable_durable()->set_durable_chunks(chunks);
    return session_.OnResponse(response);
  }
  static PackedChunk Packed(size_t size) { return {format::Codec::kZstd, std::string(size, 'x')}; }

  UploadSession session_;
};

TEST_F(UploadSessionTest, BeginsAndWaitsForTheAnswer) {
  ASSERT_TRUE(session_.NextRequest()->has_begin());
  EXPECT_FALSE(session_.NextRequest());
  EXPECT_FALSE(session_.CanOffer());
}

TEST_F(UploadSessionTest, WithABaseTheFirstOffersDoNotWaitAndTheCommitDoes) {
  v1::UploadBegin begin = Begin();
  begin.set_base_snapshot_id("01JDBBBBBBBBBBBBBBBBBBBBBB");
  UploadSession::Limits limits = Limits();
  limits.early_chunks = 2;
  UploadSession session(begin, limits);
  ASSERT_TRUE(session.NextRequest()->has_begin());
  EXPECT_TRUE(session.CanOffer());
  EXPECT_FALSE(session.settled()) << "nothing was accepted";
  session.Offer(MakeChunk(0));
  session.Offer(MakeChunk(1));
  EXPECT_FALSE(session.CanOffer()) << "no more than the early ones";
  ASSERT_TRUE(session.NextRequest()->has_offer());

  UploadSession unchanged(begin, limits);
  ASSERT_TRUE(unchanged.NextRequest()->has_begin());
  unchanged.Commit(v1::UploadCommit());
  EXPECT_FALSE(unchanged.NextRequest()) << "what it is compared with is not known yet";
  v1::UploadResponse response;
  response.mutable_accepted()->set_window_bytes(1 << 20);
  response.mutable_accepted()->set_max_offered_chunks(256);
  ASSERT_TRUE(unchanged.OnResponse(response).ok());
  EXPECT_TRUE(unchanged.NextRequest()->has_commit());
  ASSERT_TRUE(session.OnResponse(response).ok());
  EXPECT_TRUE(session.CanOffer());
}

TEST_F(UploadSessionTest, SendsNoMoreThanMayBeUnreceived) {
  constexpr size_t kSize = 100 << 10;
  UploadSession::Limits limits = Limits();
  limits.message_bytes = kSize;
  limits.max_packed_bytes = 10 * kSize;
  UploadSession session(Begin(), limits);
  ASSERT_TRUE(session.NextRequest()->has_begin());
  v1::UploadResponse response;
  response.mutable_accepted()->set_window_bytes(100 << 20);
  response.mutable_accepted()->set_max_offered_chunks(256);
  response.mutable_accepted()->set_receive_window_bytes(3 * kSize);
  ASSERT_TRUE(session.OnResponse(response).ok());
  session.LimitUnreceived(2 * kSize);
  const auto send = [&](uint32_t number) {
    session.Offer(MakeChunk(number));
    session.FlushOffers();
    EXPECT_TRUE(session.NextRequest()->has_offer());
    v1::UploadResponse missing;
    missing.mutable_missing()->set_offer_id(number + 1);
    missing.mutable_missing()->add_positions(0);
    EXPECT_TRUE(session.OnResponse(missing).ok());
    const auto wanted = session.TakeWanted();
    session.GivePacked(wanted->number, Packed(kSize));
  };
  const auto received = [&](int64_t bytes) {
    v1::UploadResponse told;
    told.mutable_received()->set_bytes(bytes);
    EXPECT_TRUE(session.OnResponse(told).ok());
  };
  for (uint32_t number = 0; number < 2; ++number) {
    send(number);
    EXPECT_TRUE(session.NextRequest()->has_chunks());
  }
  send(2);
  EXPECT_FALSE(session.NextRequest()) << "as much is under way as the link is to have";
  received(kSize);
  EXPECT_TRUE(session.NextRequest()->has_chunks());
  session.LimitUnreceived(10 * kSize);
  send(3);
  EXPECT_TRUE(session.NextRequest()->has_chunks());
  send(4);
  EXPECT_FALSE(session.NextRequest()) << "as much as the controller takes";
  received(INT64_MAX);  // of what was never sent
  received(0);
  for (uint32_t number = 5; number < 7; ++number) {
    EXPECT_TRUE(session.NextRequest()->has_chunks());
    send(number);
  }
  EXPECT_TRUE(session.NextRequest()->has_chunks());
  send(7);
  EXPECT_FALSE(session.NextRequest());
  received(int64_t{kSize} * 7);
  EXPECT_TRUE(session.NextRequest()->has_chunks());
}

// What is left untold stops nothing: the controller does not tell each small message.
TEST_F(UploadSessionTest, WhatMayHaveBeenTakenOutUntoldDoesNotCount) {
  UploadSession::Limits limits = Limits();
  UploadSession session(Begin(), limits);
  ASSERT_TRUE(session.NextRequest()->has_begin());
  v1::UploadResponse response;
  response.mutable_accepted()->set_window_bytes(100 << 20);
  response.mutable_accepted()->set_max_offered_chunks(256);
  response.mutable_accepted()->set_receive_window_bytes(1);
  ASSERT_TRUE(session.OnResponse(response).ok());
  for (uint32_t number = 0; number < 20; ++number) {
    session.Offer(MakeChunk(number));
    session.FlushOffers();
    ASSERT_TRUE(session.NextRequest()->has_offer());
    v1::UploadResponse missing;
    missing.mutable_missing()->set_offer_id(number + 1);
    missing.mutable_missing()->add_positions(0);
    ASSERT_TRUE(session.OnResponse(missing).ok());
    session.GivePacked(session.TakeWanted()->number, Packed(900));
    ASSERT_TRUE(session.NextRequest()->has_chunks()) << number;
  }
}

// The smallest window that a controller gives, which tells of 64 KiB together: one chunk is always under way, whatever its size.
TEST_F(UploadSessionTest, ASmallWindowHoldsNoChunkUp) {
  UploadSession::Limits limits = UploadSession::Limits();
  UploadSession session(Begin(), limits);
  ASSERT_TRUE(session.NextRequest()->has_begin());
  v1::UploadResponse response;
  response.mutable_accepted()->set_window_bytes(100 << 20);
  response.mutable_accepted()->set_max_offered_chunks(256);
  response.mutable_accepted()->set_receive_window_bytes(64 << 10);
  ASSERT_TRUE(session.OnResponse(response).ok());
  int64_t sent = 0, told = 0;
  uint32_t number = 0;
  constexpr size_t kSizes[] = {1, 60 << 10, 65'535, 1, 256 << 10, 256 << 10, 65'536, 63 << 10, 256 << 10, 100 << 10, 65'535, 65'535};
  for (const size_t size : kSizes) {
    session.Offer(MakeChunk(number));
    session.FlushOffers();
    ASSERT_TRUE(session.NextRequest()->has_offer());
    v1::UploadResponse missing;
    missing.mutable_missing()->set_offer_id(++number);
    missing.mutable_missing()->add_positions(0);
    ASSERT_TRUE(session.OnResponse(missing).ok());
    session.GivePacked(session.TakeWanted()->number, Packed(size));
    ASSERT_TRUE(session.NextRequest()->has_chunks()) << number << " of " << size;
    sent += static_cast<int64_t>(size);
    EXPECT_LE(session.unreceived_bytes(), (64 << 10) - 1 + (256 << 10));
    if (sent - told < 64 << 10) continue;
    v1::UploadResponse received;
    received.mutable_received()->set_bytes(told = sent);
    ASSERT_TRUE(session.OnResponse(received).ok());
  }
}

TEST_F(UploadSessionTest, SendsOnlyWhatIsMissingInTheOrderOfTheOffers) {
  Accept();
  session_.Offer(MakeChunk(0));
  EXPECT_FALSE(session_.NextRequest()) << "an offer gathers";
  session_.Offer(MakeChunk(1));
  const auto offer = session_.NextRequest();
  ASSERT_TRUE(offer && offer->has_offer());
  EXPECT_EQ(offer->offer().offer_id(), 1u);
  EXPECT_EQ(offer->offer().chunks_size(), 2);
  session_.Offer(MakeChunk(2));
  session_.Offer(MakeChunk(3));
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  EXPECT_FALSE(session_.CanOffer()) << "bounded";
  ASSERT_TRUE(Answer(1, {1}).ok());
  ASSERT_TRUE(Answer(2, {0, 1}).ok());
  EXPECT_EQ(session_.counts().dealt_bytes, kPage);
  const auto a = session_.TakeWanted();
  const auto b = session_.TakeWanted();
  const auto c = session_.TakeWanted();
  ASSERT_TRUE(a && b && c);
  EXPECT_FALSE(session_.TakeWanted());
  session_.GivePacked(b->number, Packed(140));
  EXPECT_FALSE(session_.NextRequest()) << "the first one is not packed yet";
  session_.GivePacked(a->number, Packed(140));
  session_.GivePacked(c->number, Packed(140));
  const auto chunks = session_.NextRequest();
  ASSERT_TRUE(chunks && chunks->has_chunks());
  ASSERT_EQ(chunks->chunks().chunks_size(), 2) << "300 bytes are a message";
  EXPECT_EQ(chunks->chunks().chunks(0).name()[0], 1);
  EXPECT_EQ(chunks->chunks().chunks(1).name()[0], 2);
  const auto last = session_.NextRequest();
  ASSERT_TRUE(last && last->has_chunks());
  ASSERT_EQ(last->chunks().chunks_size(), 1);
  EXPECT_EQ(last->chunks().chunks(0).name()[0], 3);
  EXPECT_EQ(session_.counts().wire_bytes, 420);
  EXPECT_EQ(session_.counts().dealt_bytes, 4 * kPage);
}

TEST_F(UploadSessionTest, TheWindowHoldsUntilMarksCome) {
  Accept(/*window=*/290);
  for (uint32_t i = 0; i < 4; ++i) session_.Offer(MakeChunk(i));
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  ASSERT_TRUE(Answer(1, {0, 1, 2, 3}).ok());
  for (int i = 0; i < 4; ++i) session_.GivePacked(session_.TakeWanted()->number, Packed(140));
  const auto first = session_.NextRequest();
  ASSERT_TRUE(first && first->chunks().chunks_size() == 2) << "two fit into the window";
  EXPECT_FALSE(session_.NextRequest());
  ASSERT_TRUE(Durable(7).ok());
  EXPECT_FALSE(session_.NextRequest()) << "those are of an earlier stream";
  ASSERT_TRUE(Durable(9).ok());
  EXPECT_EQ(session_.counts().durable_bytes, 280);
  EXPECT_EQ(session_.NextRequest()->chunks().chunks_size(), 2);
}

// Two that are nearly as large as a message may be are not one: on a slow link it would outlast the answer to a ping.
TEST_F(UploadSessionTest, AMessageDoesNotGrowBeyondItsSize) {
  Accept();
  for (uint32_t i = 0; i < 4; ++i) session_.Offer(MakeChunk(i));
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  ASSERT_TRUE(Answer(1, {0, 1, 2, 3}).ok());
  for (const size_t size : {290, 290, 10, 1}) {
    const auto wanted = session_.TakeWanted();
    ASSERT_TRUE(wanted.has_value());
    session_.GivePacked(wanted->number, Packed(size));
  }
  EXPECT_EQ(session_.NextRequest()->chunks().chunks_size(), 1);
  EXPECT_EQ(session_.NextRequest()->chunks().chunks_size(), 2) << "300 bytes";
  EXPECT_EQ(session_.NextRequest()->chunks().chunks_size(), 1);
}

TEST_F(UploadSessionTest, OneChunkFitsIntoEveryWindow) {
  Accept(/*window=*/10);
  session_.Offer(MakeChunk(0));
  session_.FlushOffers();
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  ASSERT_TRUE(Answer(1, {0}).ok());
  session_.GivePacked(session_.TakeWanted()->number, Packed(400));
  EXPECT_TRUE(session_.NextRequest()->has_chunks());
}

TEST_F(UploadSessionTest, PackedChunksAreBounded) {
  Accept();
  for (uint32_t i = 0; i < 4; ++i) session_.Offer(MakeChunk(i));
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  ASSERT_TRUE(Answer(1, {0, 1, 2, 3}).ok());
  session_.GivePacked(session_.TakeWanted()->number, Packed(1000));
  EXPECT_FALSE(session_.TakeWanted()) << "full";
  EXPECT_TRUE(session_.NextRequest()->has_chunks());
  EXPECT_TRUE(session_.TakeWanted());
}

TEST_F(UploadSessionTest, ABudgetHoldsChunksBackAndNothingElse) {
  Accept();
  session_.Offer(MakeChunk(0));
  session_.FlushOffers();
  ASSERT_TRUE(session_.NextRequest(0)->has_offer());
  ASSERT_TRUE(Answer(1, {0}).ok());
  session_.GivePacked(session_.TakeWanted()->number, Packed(10));
  EXPECT_FALSE(session_.NextRequest(0));
  EXPECT_TRUE(session_.has_chunks_ready());
  EXPECT_TRUE(session_.NextRequest(1)->has_chunks());
}

TEST_F(UploadSessionTest, CommitsWhenEverythingHasLeft) {
  Accept();
  session_.Offer(MakeChunk(0));
  v1::UploadCommit commit;
  commit.set_page_size(kPage);
  session_.Commit(commit);
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  EXPECT_FALSE(session_.NextRequest());
  ASSERT_TRUE(Answer(1, {0}).ok());
  EXPECT_FALSE(session_.NextRequest());
  session_.GivePacked(session_.TakeWanted()->number, Packed(10));
  ASSERT_TRUE(session_.NextRequest()->has_chunks());
  const auto sent = session_.NextRequest();
  ASSERT_TRUE(sent && sent->has_commit());
  EXPECT_EQ(sent->commit().pages_sent(), 1u);
  EXPECT_FALSE(session_.committed());
  v1::UploadResponse response;
  response.mutable_committed()->set_snapshot_id("S");
  response.mutable_committed()->set_created(true);
  ASSERT_TRUE(session_.OnResponse(response).ok());
  EXPECT_EQ(session_.result().snapshot_id(), "S");
}

TEST_F(UploadSessionTest, ASessionThatWasCommittedBeforeEndsAtOnce) {
  Accept();
  v1::UploadResponse response;
  response.mutable_committed()->set_snapshot_id("S");
  ASSERT_TRUE(session_.OnResponse(response).ok());
  EXPECT_TRUE(session_.committed());
}

TEST_F(UploadSessionTest, WhatIsAgainstTheProtocolIsAnError) {
  Accept();
  session_.Offer(MakeChunk(0));
  session_.FlushOffers();
  ASSERT_TRUE(session_.NextRequest()->has_offer());
  EXPECT_EQ(ReasonOf(Answer(2, {})), "UPLOAD_PROTOCOL");
  EXPECT_EQ(ReasonOf(Answer(1, {1})), "UPLOAD_PROTOCOL");
  v1::UploadResponse early;
  early.mutable_committed()->set_created(true);
  EXPECT_EQ(ReasonOf(session_.OnResponse(early)), "UPLOAD_PROTOCOL");
  v1::UploadResponse later;
  EXPECT_TRUE(session_.OnResponse(later).ok()) << "a message of a later version is left alone";
}

TEST(RateLimitTest, LetsTheRateThroughAndNoMore) {
  RateLimit rate(1000);
  SteadyTime now(std::chrono::seconds(100));
  EXPECT_GT(rate.Budget(now), 0);
  rate.Spend(1250);
  EXPECT_LE(rate.Budget(now), 0);
  EXPECT_LE(rate.Budget(now += std::chrono::milliseconds(900)), 0);
  EXPECT_GT(rate.Budget(now += std::chrono::milliseconds(200)), 0);
  EXPECT_LE(rate.Budget(now + std::chrono::hours(1)), 250) << "no more than a quarter of a second is saved up";
  RateLimit none(0);
  none.Spend(1 << 30);
  EXPECT_EQ(none.Budget(now), INT64_MAX);
}

}  // namespace
}  // namespace litefleet::upload
