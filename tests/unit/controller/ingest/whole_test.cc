// Small deltas that are one message.
#include <gmock/gmock.h>

#include "absl/cleanup/cleanup.h"
#include "common/base/status.h"
#include "tests/fakes/counted_syncs.h"
#include "tests/fakes/paged_device.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::PagedDatabase;
using Answer = v1::UploadResponse::MessageCase;
using testing::ElementsAre;

class Answers final : public UploadSink {
 public:
  void Send(const v1::UploadResponse& response) override { all.push_back(response); }
  void Close(const absl::Status& status) override { closed = status; }
  std::vector<Answer> kinds() const {
    std::vector<Answer> kinds;
    for (const v1::UploadResponse& one : all) kinds.push_back(one.message_case());
    return kinds;
  }
  std::vector<v1::UploadResponse> all;
  std::optional<absl::Status> closed;
};

struct Stream {
  Stream(Ingest& ingest, const DeviceId& device) : session(*ingest.NewUpload(device, answers)) {}
  ~Stream() { session->End(); }
  const std::shared_ptr<Answers> answers = std::make_shared<Answers>();
  const std::shared_ptr<UploadSession> session;
};

class WholeTest : public IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    path_ = std::make_unique<DataPath>(directory_, clock_, IngestLimits(), 4 << 20, store::PosixFileSystem(), /*threads=*/false);
    for (unsigned i = 0; i < 300; ++i) now_.pages.push_back(i + 1);
    fakes::PagedUpload first(*path_->ingest, device_, now_, {.session_id = NewSession(), .compare = false, .base = {}, .base_state = {}});
    while (first.Step()) {}
    first.End();
    ASSERT_TRUE(first.outcome().status.ok()) << first.outcome().status;
    base_ = first.outcome().snapshot;
  }
  // Of the pages that differ from `before`, a chunk each.
  v1::UploadRequest Whole(const PagedDatabase& before) {
    v1::UploadRequest request;
    v1::UploadWhole& whole = *request.mutable_whole();
    v1::UploadBegin& begin = *whole.mutable_begin();
    begin.set_session_id(NewSession());
    begin.set_database("main");
    begin.set_timeline(1);
    begin.set_method(v1::METHOD_CONTINUOUS);
    begin.set_page_size(now_.page_size);
    begin.set_page_count(now_.count());
    begin.set_base_snapshot_id(base_);
    begin.set_base_root_digest(std::string(before.Root().AsString()));
    whole.mutable_offer()->set_offer_id(1);
    for (uint32_t page = 1; page <= now_.count(); ++page) {
      if (before.pages[page - 1] == now_.pages[page - 1]) continue;
      v1::ChunkOffer& offer = *whole.mutable_offer()->add_chunks();
      offer.set_name(std::string(format::NameChunkOf(now_.page_size, now_.Page(page)).AsString()));
      offer.add_runs()->set_first_page(page);
      offer.mutable_runs(0)->set_page_count(1);
      v1::ChunkData& data = *whole.mutable_chunks()->add_chunks();
      data.set_name(offer.name());
      data.set_codec(v1::CODEC_RAW);
      data.set_raw_bytes(now_.page_size);
      data.set_data(std::string(AsText(now_.Page(page))));
    }
    v1::UploadCommit& commit = *whole.mutable_commit();
    commit.set_page_size(now_.page_size);
    commit.set_page_count(now_.count());
    commit.set_root_digest(std::string(now_.Root().AsString()));
    commit.set_root_version(format::kRootVersion);
    return request;
  }
  // As far as it is committed.
  std::string Send(v1::UploadRequest request) {
    Stream stream(*path_->ingest, device_);
    const absl::Status handled = stream.session->Handle(request);
    EXPECT_TRUE(handled.ok()) << handled;
    EXPECT_THAT(stream.answers->kinds(), ElementsAre(v1::UploadResponse::kCommitted));
    return stream.answers->all.empty() ? "" : stream.answers->all[0].committed().snapshot_id();
  }
  void ExpectReadsBack(const std::string& snapshot) {
    const auto bytes = path_->ReadBack(snapshot);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    EXPECT_TRUE(*bytes == now_.Run(1, now_.count()));
  }
  int64_t Chunks() { return path_->Count("select count(*) from chunk"); }

  const fakes::CountedSyncs counted_;  // of all that is opened later
  PagedDatabase now_{.page_size = 4096, .pages = {}};
  std::string base_;
};

TEST_F(WholeTest, IsCommittedWithOneAnswer) {
  for (unsigned step = 1; step <= 20; ++step) {
    const PagedDatabase before = now_;
    now_.pages[step * 10] += 1000 * step;
    now_.pages[step * 11] += 1000 * step;
    const int before_it = fakes::CountedSyncs::Count();
    const int64_t chunks = Chunks();
    base_ = Send(Whole(before));
    EXPECT_EQ(fakes::CountedSyncs::Count() - before_it, 1) << "of the catalog";
    EXPECT_GE(Chunks(), chunks + 2);
    EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
    ExpectReadsBack(base_);
  }
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), base_);
  EXPECT_EQ(path_->committed.size(), 21U);
}

TEST_F(WholeTest, WithoutAChangeItHasNoOffer) {
  const PagedDatabase before = now_;
  v1::UploadRequest request = Whole(before);
  request.mutable_whole()->clear_offer();
  ExpectReadsBack(Send(request));
}

TEST_F(WholeTest, SentAgainIsTheSameSnapshot) {
  const PagedDatabase before = now_;
  now_.pages[7] += 1000;
  const v1::UploadRequest request = Whole(before);
  const std::string snapshot = Send(request);
  EXPECT_EQ(Send(request), snapshot);
  EXPECT_EQ(path_->SnapshotCount(), 2U);
}

// Of the four messages that an agent would have sent, the first.
TEST_F(WholeTest, OnAnotherBaseItIsABegin) {
  const PagedDatabase before = now_;
  now_.pages[7] += 1000;
  v1::UploadRequest request = Whole(before);
  request.mutable_whole()->mutable_begin()->set_base_snapshot_id(NewSession());
  Stream stream(*path_->ingest, device_);
  ASSERT_TRUE(stream.session->Handle(request).ok());
  ASSERT_THAT(stream.answers->kinds(), ElementsAre(v1::UploadResponse::kAccepted));
  EXPECT_TRUE(stream.answers->all[0].accepted().takes_whole());
  EXPECT_EQ(stream.answers->all[0].accepted().base_snapshot_id(), "");
  EXPECT_FALSE(stream.answers->closed.has_value());
  v1::UploadRequest again = Whole(before);
  EXPECT_EQ(ReasonOf(stream.session->Handle(again)), "UPLOAD_OUT_OF_ORDER");
  EXPECT_EQ(path_->SnapshotCount(), 1U);
}

TEST_F(WholeTest, WhatWasLeftOutIsAskedFor) {
  const PagedDatabase before = now_;
  now_.pages[7] += 1000;
  now_.pages[9] += 1000;
  const v1::UploadRequest all = Whole(before);
  v1::UploadRequest request = all;
  request.mutable_whole()->mutable_chunks()->mutable_chunks()->DeleteSubrange(0, 1);
  Stream stream(*path_->ingest, device_);
  ASSERT_TRUE(stream.session->Handle(request).ok());
  ASSERT_THAT(stream.answers->kinds(), ElementsAre(v1::UploadResponse::kAccepted, v1::UploadResponse::kMissing));
  EXPECT_THAT(stream.answers->all[1].missing().positions(), ElementsAre(0, 1)) << "nothing of what was sent counts";
  v1::UploadRequest next;
  *next.mutable_chunks() = all.whole().chunks();
  ASSERT_TRUE(stream.session->Handle(next).ok());
  *next.mutable_commit() = all.whole().commit();
  ASSERT_TRUE(stream.session->Handle(next).ok());
  ASSERT_EQ(stream.answers->all.back().message_case(), v1::UploadResponse::kCommitted);
  ExpectReadsBack(stream.answers->all.back().committed().snapshot_id());
}

TEST_F(WholeTest, WhatTheStoreHasIsDroppedAndClaimed) {
  const PagedDatabase first = now_;
  now_.pages[7] += 1000;
  base_ = Send(Whole(first));
  const PagedDatabase second = now_;
  now_.pages[7] += 1000;
  base_ = Send(Whole(second));
  const PagedDatabase third = now_;
  now_ = second;
  const int64_t chunks = Chunks();
  v1::UploadRequest request = Whole(third);
  ASSERT_EQ(request.whole().offer().chunks_size(), 1);
  request.mutable_whole()->mutable_chunks()->mutable_chunks(0)->set_data("not even looked at");
  ExpectReadsBack(Send(request));
  EXPECT_EQ(Chunks(), chunks);
}

TEST_F(WholeTest, WhatIsNotOneIsRefused) {
  const PagedDatabase before = now_;
  now_.pages[7] += 1000;
  const auto refuse = [&](std::string_view reason, const std::function<void(v1::UploadWhole&)>& spoil) {
    v1::UploadRequest request = Whole(before);
    spoil(*request.mutable_whole());
    Stream stream(*path_->ingest, device_);
    EXPECT_EQ(ReasonOf(stream.session->Handle(request)), reason);
    EXPECT_THAT(stream.answers->kinds(), ElementsAre());
    EXPECT_EQ(ReasonOf(stream.answers->closed.value_or(absl::OkStatus())), reason);
  };
  refuse("WHOLE_INVALID", [](v1::UploadWhole& whole) { whole.mutable_begin()->clear_base_snapshot_id(); });
  refuse("WHOLE_INVALID", [](v1::UploadWhole& whole) { whole.mutable_begin()->set_compare(true); });
  refuse("WHOLE_INVALID", [](v1::UploadWhole& whole) { whole.clear_commit(); });
  refuse("WHOLE_INVALID", [](v1::UploadWhole& whole) {
    for (int i = 0; i < 8; ++i) *whole.mutable_offer()->add_chunks() = whole.offer().chunks(0);
  });
  refuse("WHOLE_INVALID", [](v1::UploadWhole& whole) {
    for (int i = 0; i < 8; ++i) whole.mutable_chunks()->add_chunks();
  });
  refuse("OFFER_INVALID", [](v1::UploadWhole& whole) { whole.mutable_offer()->set_offer_id(2); });
  refuse("OFFER_INVALID", [](v1::UploadWhole& whole) { whole.mutable_offer()->mutable_chunks(0)->set_name("short"); });
  refuse("CHUNK_INVALID", [](v1::UploadWhole& whole) { whole.mutable_chunks()->mutable_chunks(0)->mutable_data()->at(5) ^= 1; });
  refuse("ROOT_MISMATCH", [](v1::UploadWhole& whole) { whole.mutable_commit()->mutable_root_digest()->at(5) ^= 1; });
  refuse("COMMIT_INVALID", [](v1::UploadWhole& whole) { whole.mutable_commit()->set_page_count(1); });
  EXPECT_EQ(path_->SnapshotCount(), 1U);
  Stream begun(*path_->ingest, device_);
  v1::UploadRequest request = Whole(before);
  v1::UploadRequest begin;
  *begin.mutable_begin() = request.whole().begin();
  ASSERT_TRUE(begun.session->Handle(begin).ok());
  EXPECT_EQ(ReasonOf(begun.session->Handle(request)), "UPLOAD_OUT_OF_ORDER");
}

}  // namespace
}  // namespace litefleet::ingest
