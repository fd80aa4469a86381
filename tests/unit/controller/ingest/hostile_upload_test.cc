// What a hostile device may say in an upload, and how much of it is held.
#include <gmock/gmock.h>

#include "controller/ingest/upload_session.h"
#include "fmt/format.h"
#include "tests/fakes/volatile_files.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::BeginRequest;
using fakes::ChunkRequest;
using fakes::CommitRequest;
using fakes::FakeDatabase;
using fakes::OfferRequest;
using fakes::RecordingSink;

class HostileTest : public IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    database_ = FakeDatabase::Make(4096, 64 * 4 + 3, 1);
  }
  // Sends the requests until one fails; returns its reason.
  std::string Refused(std::vector<v1::UploadRequest> requests) {
    auto sink = std::make_shared<RecordingSink>();
    auto session = *path_->ingest->NewUpload(device_, sink);
    std::string reason = "accepted";
    for (v1::UploadRequest& request : requests) {
      const absl::Status status = session->Handle(request);
      if (status.ok()) continue;
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
      reason = ReasonOf(status);
      break;
    }
    session->End();
    if (reason == "accepted" && sink->closed().has_value()) reason = ReasonOf(*sink->closed());  // found in the background
    EXPECT_EQ(path_->SnapshotCount(), 0u);
    return reason;
  }
  // Of a database of its own: what a refused upload left is of no use to the next one.
  v1::UploadRequest Begin() {
    return BeginRequest(database_, {.session_id = NewSession(), .database = fmt::format("main{}", ++databases_)});
  }
  v1::UploadRequest Changed(v1::UploadRequest request, const std::function<void(v1::UploadRequest&)>& change) {
    change(request);
    return request;
  }
  FakeDatabase database_;
  int databases_ = 0;
};

TEST_F(HostileTest, Begin) {
  const auto with = [&](const std::function<void(v1::UploadBegin&)>& change) {
    return Refused({Changed(Begin(), [&](v1::UploadRequest& r) { change(*r.mutable_begin()); })});
  };
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_session_id("x"); }), "BEGIN_INVALID");
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_operation_id("x"); }), "BEGIN_INVALID");
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_database("../etc"); }), "BEGIN_INVALID");
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_method(static_cast<v1::Method>(77)); }), "BEGIN_INVALID");
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_page_size(1000); }), "BEGIN_INVALID");
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_page_count(UINT32_MAX); }), "DATABASE_TOO_LARGE");
  EXPECT_EQ(with([](v1::UploadBegin& b) { b.set_page_size(65536), b.set_page_count(UINT32_MAX - 1); }), "DATABASE_TOO_LARGE");
}

TEST_F(HostileTest, Order) {
  EXPECT_EQ(Refused({OfferRequest(database_, 1, 0, 1)}), "UPLOAD_OUT_OF_ORDER");
  EXPECT_EQ(Refused({Begin(), Begin()}), "UPLOAD_OUT_OF_ORDER");
  EXPECT_EQ(Refused({CommitRequest(database_)}), "UPLOAD_OUT_OF_ORDER");
  EXPECT_EQ(Refused({v1::UploadRequest()}), "UPLOAD_OUT_OF_ORDER");
}

TEST_F(HostileTest, Offers) {
  const auto offer = [&](const std::function<void(v1::UploadOffer&)>& change) {
    return Refused({Begin(), Changed(OfferRequest(database_, 1, 0, 3), [&](v1::UploadRequest& r) { change(*r.mutable_offer()); })});
  };
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.set_offer_id(2); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.clear_chunks(); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.mutable_chunks(0)->set_name("short"); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.mutable_chunks(1)->mutable_runs(0)->set_first_page(66); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.mutable_chunks(1)->mutable_runs(0)->set_page_count(63); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.mutable_chunks(1)->clear_runs(); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { *o.mutable_chunks(1)->add_runs() = o.chunks(0).runs(0); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) { o.mutable_chunks()->SwapElements(0, 1); }), "OFFER_INVALID");
  EXPECT_EQ(offer([](v1::UploadOffer& o) {
              for (int i = 0; i < 300; ++i) *o.add_chunks() = o.chunks(0);
            }),
            "OFFER_INVALID");
  v1::UploadRequest beyond = OfferRequest(database_, 2, 4, 1);
  EXPECT_EQ(Refused({Begin(), OfferRequest(database_, 1, 0, 5), beyond}), "OFFER_INVALID");
}

TEST_F(HostileTest, Chunks) {
  const v1::UploadRequest offer = OfferRequest(database_, 1, 0, 3);
  const auto chunk = [&](const std::function<void(v1::ChunkData&)>& change) {
    return Refused({Begin(), offer,
                    Changed(ChunkRequest(database_, 0), [&](v1::UploadRequest& r) { change(*r.mutable_chunks()->mutable_chunks(0)); })});
  };
  EXPECT_EQ(Refused({Begin(), offer, ChunkRequest(database_, 1)}), "CHUNK_NOT_WANTED");
  EXPECT_EQ(Refused({Begin(), offer, ChunkRequest(database_, 0), ChunkRequest(database_, 0)}), "CHUNK_NOT_WANTED");
  EXPECT_EQ(Refused({Begin(), ChunkRequest(database_, 0)}), "CHUNK_NOT_WANTED");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.set_codec(static_cast<v1::Codec>(9)); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.set_raw_bytes(c.raw_bytes() + 4096); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.clear_data(); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.set_data(std::string(300'000, 'x')); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.set_data("no zstd frame"); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.mutable_data()->resize(c.data().size() / 2); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([](v1::ChunkData& c) { c.set_codec(v1::CODEC_RAW); }), "CHUNK_INVALID");
  EXPECT_EQ(chunk([&](v1::ChunkData& c) {
              const Bytes other = FakeDatabase::Make(4096, 64, 9).Extent(0);
              c.set_codec(v1::CODEC_RAW);
              c.set_data(std::string(AsText(other)));
            }),
            "CHUNK_INVALID");
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 1) << "only the one good chunk of the duplicate case";
}

TEST_F(HostileTest, Commits) {
  std::vector<v1::UploadRequest> start = {Begin(), OfferRequest(database_, 1, 0, 5)};
  for (uint32_t i = 0; i < 5; ++i) start.push_back(ChunkRequest(database_, i));
  const auto commit = [&](const std::function<void(v1::UploadCommit&)>& change) {
    auto requests = start;
    // From the second on the chunks are known, but those of another database: the device has to send them again.
    requests[0] = Begin();
    requests.push_back(Changed(CommitRequest(database_), [&](v1::UploadRequest& r) { change(*r.mutable_commit()); }));
    return Refused(requests);
  };
  EXPECT_EQ(commit([](v1::UploadCommit& c) { c.set_root_digest(std::string(32, 'x')); }), "ROOT_MISMATCH");
  EXPECT_EQ(commit([](v1::UploadCommit& c) { c.set_root_digest("x"); }), "COMMIT_INVALID");
  EXPECT_EQ(commit([](v1::UploadCommit& c) { c.set_root_version(2); }), "COMMIT_INVALID");
  EXPECT_EQ(commit([](v1::UploadCommit& c) { c.set_page_count(5); }), "COMMIT_INVALID");
  EXPECT_EQ(Refused({Begin(), CommitRequest(database_)}), "MANIFEST_INCOMPLETE");
  EXPECT_EQ(Refused({Begin(), OfferRequest(database_, 1, 0, 5), CommitRequest(database_)}), "CHUNKS_MISSING");
}

TEST_F(HostileTest, WindowAndOffersAreLimited) {
  IngestLimits limits;
  limits.window_bytes = 250'000;
  limits.max_expected_chunks = 4;
  Open(limits);
  const v1::UploadRequest offer = OfferRequest(database_, 1, 0, 3);
  EXPECT_EQ(Refused({Begin(), offer, ChunkRequest(database_, 0), ChunkRequest(database_, 1), ChunkRequest(database_, 2)}),
            "WINDOW_EXCEEDED");
  EXPECT_EQ(Refused({Begin(), OfferRequest(database_, 1, 0, 5)}), "TOO_MANY_OFFERS");
}

// However small their payload is.
TEST_F(HostileTest, ChunksThatAreNotDurableAreBounded) {
  std::atomic<bool> blocked = false;
  fakes::VolatileFiles files(1, 0, [&](fakes::FileCall call) {
    if (call == fakes::FileCall::kSync) blocked.wait(true);
    return fakes::FileFault::kNone;
  });
  IngestLimits limits;
  limits.mark_chunks = 4;
  path_ = std::make_unique<DataPath>(directory_, clock_, limits, 1 << 30, files);
  constexpr uint32_t kChunks = 60;
  database_ = FakeDatabase::Make(4096, 64 * kChunks, 1);
  blocked = true;
  std::atomic<uint32_t> sent = 0;
  auto sink = std::make_shared<RecordingSink>();
  auto session = *path_->ingest->NewUpload(device_, sink);
  std::thread device([&] {
    v1::UploadRequest begin = Begin();
    EXPECT_TRUE(session->Handle(begin).ok());
    v1::UploadRequest offer = OfferRequest(database_, 1, 0, kChunks);
    EXPECT_TRUE(session->Handle(offer).ok());
    for (uint32_t i = 0; i < kChunks; ++i) {
      v1::UploadRequest chunk = ChunkRequest(database_, i);
      const absl::Status status = session->Handle(chunk);
      EXPECT_TRUE(status.ok()) << status;
      ++sent;
    }
    v1::UploadRequest commit = CommitRequest(database_);
    const absl::Status status = session->Handle(commit);
    EXPECT_TRUE(status.ok()) << status;
    session->End();
  });
  for (int i = 0; i < 3000 && sent < 16; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_EQ(sent, 16u);
  blocked = false;
  blocked.notify_all();
  device.join();
  EXPECT_EQ(sent, kChunks);
  EXPECT_TRUE(sink->Next(v1::UploadResponse::kCommitted).has_value());
  EXPECT_EQ(path_->Count("select count(*) from chunk"), kChunks);
  session.reset();
  path_.reset();
}

TEST_F(HostileTest, ABaseThatIsNoIdIsRefused) {
  auto sink = std::make_shared<RecordingSink>();
  auto session = *path_->ingest->NewUpload(device_, sink);
  v1::UploadRequest request = Begin();
  request.mutable_begin()->set_base_snapshot_id("../x");
  EXPECT_EQ(ReasonOf(session->Handle(request)), "BEGIN_INVALID");
  session->End();
}

}  // namespace
}  // namespace litefleet::ingest
