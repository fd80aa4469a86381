// Small syncs that are one message.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/upload/session.h"
#include "common/base/status.h"

namespace litefleet::upload {
namespace {

constexpr uint32_t kPage = 4096;
constexpr char kBase[] = "01JDBBBBBBBBBBBBBBBBBBBBBB";

class WholeTest : public testing::Test {
 protected:
  static v1::UploadBegin Begin() {
    v1::UploadBegin begin;
    begin.set_session_id("01JDAAAAAAAAAAAAAAAAAAAAAA");
    begin.set_method(v1::METHOD_CONTINUOUS);
    begin.set_page_size(kPage);
    begin.set_page_count(64);
    begin.set_base_snapshot_id(kBase);
    return begin;
  }
  static Chunk MakeChunk(uint32_t number) {
    Chunk chunk;
    chunk.name.bytes[0] = static_cast<std::byte>(number);
    chunk.runs = {{.first_page = number + 1, .page_count = 1}};
    chunk.raw_bytes = kPage;
    chunk.payload = std::make_shared<Payload>();
    return chunk;
  }
  static v1::UploadCommit Commit() {
    v1::UploadCommit commit;
    commit.set_page_size(kPage);
    return commit;
  }
  void PackAll() {
    while (const auto wanted = session_.TakeWanted()) {
      ASSERT_NE(wanted->chunk.payload, nullptr);
      session_.GivePacked(wanted->number, {format::Codec::kZstd, std::string(100, 'x')});
    }
  }
  absl::Status Accept() {
    v1::UploadResponse response;
    response.mutable_accepted()->set_window_bytes(1 << 20);
    response.mutable_accepted()->set_max_offered_chunks(256);
    response.mutable_accepted()->set_base_snapshot_id(kBase);
    response.mutable_accepted()->set_takes_whole(true);
    return session_.OnResponse(response);
  }

  UploadSession session_{Begin(), UploadSession::Limits()};
};

TEST_F(WholeTest, ASmallSyncIsOneMessage) {
  EXPECT_TRUE(session_.whole());
  EXPECT_FALSE(session_.NextRequest()) << "not even the begin: there may be little to come";
  session_.Offer(MakeChunk(3));
  session_.Offer(MakeChunk(5));
  EXPECT_FALSE(session_.TakeWanted()) << "nor is it packed";
  session_.Commit(Commit());
  EXPECT_FALSE(session_.NextRequest());
  PackAll();
  EXPECT_FALSE(session_.NextRequest(0)) << "the rate";
  const auto request = session_.NextRequest();
  ASSERT_TRUE(request && request->has_whole());
  const v1::UploadWhole& whole = request->whole();
  EXPECT_EQ(whole.begin().base_snapshot_id(), kBase);
  EXPECT_EQ(whole.offer().offer_id(), 1U);
  ASSERT_EQ(whole.offer().chunks_size(), 2);
  EXPECT_EQ(whole.offer().chunks(1).runs(0).first_page(), 6U);
  ASSERT_EQ(whole.chunks().chunks_size(), 2);
  EXPECT_EQ(whole.chunks().chunks(1).name(), whole.offer().chunks(1).name());
  EXPECT_EQ(whole.commit().pages_sent(), 2U);
  EXPECT_TRUE(session_.sent_whole());
  EXPECT_TRUE(session_.commit_sent());
  EXPECT_FALSE(session_.NextRequest());
  v1::UploadResponse response;
  response.mutable_committed()->set_snapshot_id("S");
  response.mutable_committed()->set_created(true);
  ASSERT_TRUE(session_.OnResponse(response).ok());
  EXPECT_TRUE(session_.committed());
  EXPECT_EQ(session_.counts().dealt_bytes, 2 * kPage);
  EXPECT_EQ(session_.counts().wire_bytes, 200);
}

TEST_F(WholeTest, WithoutAChangeThereIsNoOffer) {
  session_.Commit(Commit());
  const auto request = session_.NextRequest();
  ASSERT_TRUE(request && request->has_whole());
  EXPECT_FALSE(request->whole().has_offer());
}

TEST_F(WholeTest, WhatIsNotSmallOrNotQuickGoesInParts) {
  for (uint32_t i = 0; i < 9; ++i) session_.Offer(MakeChunk(i));
  EXPECT_FALSE(session_.whole());
  EXPECT_TRUE(session_.NextRequest()->has_begin());
  EXPECT_TRUE(session_.NextRequest()->has_offer());

  UploadSession large(Begin(), UploadSession::Limits());
  Chunk chunk = MakeChunk(1);
  chunk.raw_bytes = 65 << 10;
  large.Offer(std::move(chunk));
  EXPECT_TRUE(large.NextRequest()->has_begin());

  UploadSession moved(Begin(), UploadSession::Limits());
  chunk = MakeChunk(1);
  chunk.sources = {{.first_page = 9, .page_count = 1}};
  moved.Offer(std::move(chunk));
  EXPECT_TRUE(moved.NextRequest()->has_begin());

  UploadSession waits(Begin(), UploadSession::Limits());
  waits.FlushOffers();
  EXPECT_TRUE(waits.NextRequest()->has_begin());

  v1::UploadBegin backup = Begin();
  backup.set_method(v1::METHOD_ONLINE);
  EXPECT_TRUE(UploadSession(backup, UploadSession::Limits()).NextRequest()->has_begin());
  EXPECT_TRUE(UploadSession(Begin(), UploadSession::Limits{.whole_bytes = 0}).NextRequest()->has_begin());
}

// The controller does not have what was left out for it, as far as this device knows: all of it is sent again.
TEST_F(WholeTest, WhatIsNotTakenGoesOnInParts) {
  session_.Offer(MakeChunk(3));
  session_.Offer(MakeChunk(5));
  session_.Commit(Commit());
  PackAll();
  ASSERT_TRUE(session_.NextRequest()->has_whole());
  ASSERT_TRUE(Accept().ok());
  EXPECT_FALSE(session_.commit_sent());
  EXPECT_FALSE(session_.NextRequest()) << "the offer is not answered";
  v1::UploadResponse response;
  response.mutable_missing()->set_offer_id(1);
  response.mutable_missing()->add_positions(1);
  ASSERT_TRUE(session_.OnResponse(response).ok());
  PackAll();
  const auto chunks = session_.NextRequest();
  ASSERT_TRUE(chunks && chunks->has_chunks());
  ASSERT_EQ(chunks->chunks().chunks_size(), 1);
  EXPECT_EQ(chunks->chunks().chunks(0).name()[0], 5);
  const auto commit = session_.NextRequest();
  ASSERT_TRUE(commit && commit->has_commit());
  EXPECT_EQ(commit->commit().pages_sent(), 1U) << "what was not taken is no page that the controller has got";
  response.mutable_committed()->set_created(true);
  EXPECT_TRUE(session_.OnResponse(response).ok());
}

}  // namespace
}  // namespace litefleet::upload
