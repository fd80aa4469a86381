// What a device may have under way in a stream.
#include "tests/fakes/upload_device.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::FakeDatabase;

class ReceiveWindowTest : public IngestTest {};

// A device may have no more under way than it has not been told of: of all but the last 64 KiB it hears.
TEST_F(ReceiveWindowTest, WhatWasReceivedIsTold) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 20, 1);
  auto sink = std::make_shared<fakes::RecordingSink>();
  auto session = *path_->ingest->NewUpload(device_, sink);
  v1::UploadRequest begin = fakes::BeginRequest(database, {.session_id = "01JDBBBBBBBBBBBBBBBBBBBBBB"});
  ASSERT_TRUE(session->Handle(begin).ok());
  const auto accepted = sink->Next(v1::UploadResponse::kAccepted);
  ASSERT_TRUE(accepted.has_value());
  EXPECT_EQ(accepted->accepted().receive_window_bytes(), IngestLimits().receive_window_bytes);
  v1::UploadRequest offer = fakes::OfferRequest(database, 1, 0, 20);
  ASSERT_TRUE(session->Handle(offer).ok());
  int64_t sent = 0, told = 0;
  for (uint32_t extent = 0; extent < 20; ++extent) {
    v1::UploadRequest chunk = fakes::ChunkRequest(database, extent);
    sent += static_cast<int64_t>(chunk.chunks().chunks(0).data().size());
    ASSERT_TRUE(session->Handle(chunk).ok());
    while (sent - told >= 64 << 10) {
      const auto received = sink->Next(v1::UploadResponse::kReceived);
      ASSERT_TRUE(received.has_value()) << sent << " bytes were sent";
      told = received->received().bytes();
      ASSERT_LE(told, sent);
    }
  }
  EXPECT_GT(told, 0);
  session->End();
}

TEST_F(ReceiveWindowTest, TheWindowsOfAllUploadsFitIntoWhatConnectionsMayHave) {
  const auto shared = [](int64_t connections, int uploads) {
    IngestLimits limits;
    const bool fits = limits.ShareReceiveWindow(connections, uploads);
    // A chunk goes out while less than what is told together was not told, whatever the window (agent/upload/session).
    const int64_t under_way = std::max<int64_t>(limits.receive_window_bytes, (64 << 10) + (256 << 10));
    EXPECT_EQ(fits, under_way * std::max(uploads, 1) <= connections / 2) << connections << " " << uploads;
    return limits.receive_window_bytes;
  };
  EXPECT_EQ(shared(512 << 20, 256), 1 << 20);
  EXPECT_EQ(shared(512 << 20, 8), 2 << 20);
  EXPECT_EQ(shared(512 << 20, 1024), 256 << 10);
  EXPECT_EQ(shared(512 << 20, 3000), (256 << 20) / 3000);
  EXPECT_EQ(shared(512 << 20, 4096), 64 << 10);
  EXPECT_EQ(shared(512 << 20, 4097), 64 << 10);
  EXPECT_EQ(shared(32 << 20, 100'000), 64 << 10);
  EXPECT_EQ(shared(0, 0), 64 << 10);
}

}  // namespace
}  // namespace litefleet::ingest
