// The streams of a controller over a real server on the loopback, with a real catalog, store and fleet: clients that are slow, that go
// away, that are revoked, that send what they may not. After each of them nothing of it is left: no upload, no pin, no watch, no place of
// an executor.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <functional>
#include <future>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "common/base/proto_time.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/fleet/device_fleet.h"
#include "controller/rpc/download_reactor.h"
#include "controller/rpc/fetch_reactor.h"
#include "controller/rpc/live_calls.h"
#include "controller/rpc/upload_reactor.h"
#include "controller/rpc/watch_reactor.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_service.grpc.pb.h"
#include "litefleet/v1/agent_service.grpc.pb.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::rpc {
namespace {

using fakes::FakeDatabase;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr uint32_t kPageSize = 4096;

class NoReports final : public fleet::DeviceReports {
 public:
  absl::StatusOr<std::string> NameOfActive(const DeviceId&) override { return std::string("kiosk"); }
  absl::Status Said(const DeviceId&, SystemTime, const v1::Hello*, int64_t, const v1::Health*) override { return absl::OkStatus(); }
  absl::Status Databases(const DeviceId&, SystemTime, std::span<const v1::DatabaseHealth>) override { return absl::OkStatus(); }
  absl::StatusOr<std::string> NewestSnapshot(const DeviceId&, const std::string&) override { return std::string(); }
  absl::Status Gap(const DeviceId&, const v1::CoverageGap&, SystemTime) override { return absl::OkStatus(); }
  absl::StatusOr<std::optional<bool>> CheckChain(const DeviceId&, const v1::ChainCheck&, SystemTime) override { return std::nullopt; }
};

// Counts what is read, so that a test sees how far a stream runs ahead of its client.
class CountingReaders final : public restore::SnapshotReaderFactory {
 public:
  explicit CountingReaders(restore::SnapshotReaderFactory& real) : real_(real) {}
  absl::StatusOr<std::unique_ptr<restore::SnapshotReader>> Open(const SnapshotId& snapshot,
                                                                std::span<const restore::WantedRun> wanted) override {
    LF_ASSIGN_OR_RETURN(auto reader, real_.Open(snapshot, wanted));
    return std::make_unique<Reader>(*this, std::move(reader));
  }
  absl::StatusOr<std::unique_ptr<restore::SnapshotReader>> OpenDifferent(const SnapshotId& snapshot,
                                                                         std::span<const restore::WantedRun> wanted,
                                                                         std::string have) override {
    return real_.OpenDifferent(snapshot, wanted, std::move(have));
  }
  absl::StatusOr<std::unique_ptr<restore::NameReader>> OpenNames(const SnapshotId& snapshot) override { return real_.OpenNames(snapshot); }
  std::optional<std::deque<restore::StoredChunk>> instead;  // what readers have
  std::atomic<int> chunks{0};
  std::atomic<int> open{0};

 private:
  class Reader final : public restore::SnapshotReader {
   public:
    Reader(CountingReaders& counts, std::unique_ptr<restore::SnapshotReader> real) : counts_(counts), real_(std::move(real)) {
      ++counts_.open;
    }
    ~Reader() override { --counts_.open; }
    const restore::SnapshotGeometry& geometry() const override { return real_->geometry(); }
    absl::StatusOr<std::optional<restore::StoredChunk>> Next() override {
      ++counts_.chunks;
      if (!counts_.instead.has_value()) return real_->Next();
      if (counts_.instead->empty()) return std::nullopt;
      restore::StoredChunk chunk = std::move(counts_.instead->front());
      counts_.instead->pop_front();
      return chunk;
    }

   private:
    CountingReaders& counts_;
    const std::unique_ptr<restore::SnapshotReader> real_;
  };
  restore::SnapshotReaderFactory& real_;
};

class ReactorsTest : public ingest::IngestTest {
 protected:
  class AgentService final : public v1::AgentService::CallbackService {
   public:
    explicit AgentService(ReactorsTest& test) : test_(test) {}
    grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* Upload(grpc::CallbackServerContext* context) override {
      return NewUploadReactor(context, {test_.path_->ingest.get(), test_.path_->session_executor.get()}, test_.Device(*context));
    }
    grpc::ServerWriteReactor<v1::FetchResponse>* Fetch(grpc::CallbackServerContext* context, const v1::FetchRequest* request) override {
      return NewFetchReactor(context, {test_.readers_.get(), test_.fleet_.get(), test_.streams_.get()}, test_.Device(*context), *request);
    }

   private:
    ReactorsTest& test_;
  };
  class AdminService final : public v1::AdminService::CallbackService {
   public:
    explicit AdminService(ReactorsTest& test) : test_(test) {}
    grpc::ServerWriteReactor<v1::DownloadSnapshotResponse>* DownloadSnapshot(grpc::CallbackServerContext* context,
                                                                             const v1::DownloadSnapshotRequest* request) override {
      return LaunchDownload(context, test_.operator_, *test_.handlers_, *test_.streams_, request->snapshot());
    }
    grpc::ServerWriteReactor<v1::WatchOperationResponse>* WatchOperation(grpc::CallbackServerContext* context,
                                                                         const v1::WatchOperationRequest* request) override {
      return LaunchWatch(context, test_.operator_, *test_.handlers_, *test_.streams_, request->operation());
    }

   private:
    ReactorsTest& test_;
  };

  static void SetUpTestSuite() {
    // Each test makes a channel of its own.
    static const GrpcRuntime runtime;
    KeepCallbackThreads();
  }
  void SetUp() override {
    IngestTest::SetUp();
    Open({.max_uploads = 4});
    identities_ = std::make_unique<catalog::IdentityCatalog>(*path_->db);
    operations_ = std::make_unique<catalog::OperationCatalog>(*path_->db);
    fleet_ = *fleet::DeviceFleet::Create({operations_.get(), &reports_, &clock_, "test"}, {.own_ticker = false});
    readers_ = std::make_unique<CountingReaders>(*path_->readers);
    AdminDependencies parts;
    parts.catalog = path_->db.get();
    parts.identities = identities_.get();
    parts.snapshots = path_->snapshots.get();
    parts.operations = operations_.get();
    parts.fleet = fleet_.get();
    parts.readers = readers_.get();
    parts.clock = &clock_;
    handlers_ = std::make_unique<AdminHandlers>(parts);
    agent_ = std::make_unique<AgentService>(*this);
    admin_ = std::make_unique<AdminService>(*this);
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
    builder.RegisterService(agent_.get());
    builder.RegisterService(admin_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    grpc::ChannelArguments arguments;
    arguments.SetMaxSendMessageSize(-1);
    const auto channel = grpc::CreateCustomChannel(fmt::format("127.0.0.1:{}", port), grpc::InsecureChannelCredentials(), arguments);
    device_stub_ = v1::AgentService::NewStub(channel);
    admin_stub_ = v1::AdminService::NewStub(channel);
  }
  void TearDown() override {
    // A reactor that never finishes would hold this up.
    const auto begin = std::chrono::steady_clock::now();
    server_->Shutdown(std::chrono::system_clock::now() + seconds(5));
    server_->Wait();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5));
    EXPECT_EQ(path_->ingest->uploads(), 0u);
    streams_.reset();  // what is still queued
    EXPECT_EQ(readers_->open, 0);
    fleet_.reset();
    IngestTest::TearDown();
  }

  Caller Device(const grpc::ServerContextBase& context) {
    Caller caller;
    caller.role = Role::kDevice;
    caller.device = device_;
    caller.live_call = live_->Add(device_.value(), context);
    return caller;
  }
  static bool Await(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(milliseconds(5));
    }
    return true;
  }
  // What a stream reads ahead of a client that does not read, when it has come to a rest.
  int ChunksAtRest() const {
    int before = -1;
    EXPECT_TRUE(Await([&] {
      std::this_thread::sleep_for(milliseconds(200));
      const int now = readers_->chunks;
      return std::exchange(before, now) == now && now > 0;
    }));
    return readers_->chunks;
  }
  FakeDatabase Big() const { return FakeDatabase::Make(kPageSize, 64 * 200, 7); }  // 200 extents, 50 MiB
  std::string Store(const FakeDatabase& database) {
    const auto outcome = IngestTest::Upload(database, device_);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return outcome.snapshot_id;
  }
  bool Pinned(const std::string& snapshot) const { return path_->readers->pins().IsPinned(SnapshotId(snapshot)); }
  std::string StartRestore(const std::string& snapshot) {
    v1::RestoreOrder order;
    order.set_database("main");
    order.set_snapshot_id(snapshot);
    return fleet_->StartRestore(device_, order, seconds(3600), "", "operator:test")->id();
  }

  struct Fetching {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::FetchResponse>> stream;
  };
  std::unique_ptr<Fetching> Fetch(const std::string& operation, const std::string& snapshot) {
    auto fetching = std::make_unique<Fetching>();
    v1::FetchRequest request;
    request.set_operation_id(operation);
    request.set_snapshot_id(snapshot);
    fetching->stream = device_stub_->Fetch(&fetching->context, request);
    return fetching;
  }
  // To the end; pages that came.
  static absl::Status ReadAll(Fetching& fetching, uint64_t& pages) {
    v1::FetchResponse message;
    while (fetching.stream->Read(&message)) {
      for (const v1::FetchedChunk& chunk : message.chunks().chunks()) pages += chunk.runs(0).page_count();
    }
    return ToAbsl(fetching.stream->Finish());
  }

  struct Uploading {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::UploadRequest, v1::UploadResponse>> stream;
  };
  std::unique_ptr<Uploading> Upload() {
    auto uploading = std::make_unique<Uploading>();
    uploading->context.set_deadline(std::chrono::system_clock::now() + seconds(30));
    uploading->stream = device_stub_->Upload(&uploading->context);
    return uploading;
  }
  static std::optional<v1::UploadResponse> Answer(Uploading& uploading, v1::UploadResponse::MessageCase wanted) {
    v1::UploadResponse response;
    while (uploading.stream->Read(&response)) {
      if (response.message_case() == wanted) return response;
    }
    return std::nullopt;
  }
  static std::string EndReason(Uploading& uploading) {
    v1::UploadResponse response;
    while (uploading.stream->Read(&response)) {}
    return ReasonOf(ToAbsl(uploading.stream->Finish()));
  }

  NoReports reports_;
  std::unique_ptr<catalog::IdentityCatalog> identities_;
  std::unique_ptr<catalog::OperationCatalog> operations_;
  std::unique_ptr<fleet::DeviceFleet> fleet_;
  std::unique_ptr<CountingReaders> readers_;
  std::unique_ptr<AdminHandlers> handlers_;
  absl::Status operator_;
  const std::shared_ptr<LiveCalls> live_ = std::make_shared<LiveCalls>();
  // One thread: who holds it holds up everybody.
  std::unique_ptr<ThreadPoolExecutor> streams_ = std::make_unique<ThreadPoolExecutor>(1, 256);
  std::unique_ptr<AgentService> agent_;
  std::unique_ptr<AdminService> admin_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AgentService::Stub> device_stub_;
  std::unique_ptr<v1::AdminService::Stub> admin_stub_;
};

// ---- fetch

TEST_F(ReactorsTest, ASlowFetchHoldsNeitherMemoryNorTheOnlyThread) {
  const std::string snapshot = Store(Big());
  const std::string operation = StartRestore(snapshot);
  const auto slow = Fetch(operation, snapshot);
  const int ahead = ChunksAtRest();
  EXPECT_LT(ahead, 60) << "of 200: what the queue and the connection hold";
  EXPECT_TRUE(Pinned(snapshot));
  const auto quick = Fetch(operation, snapshot);
  uint64_t pages = 0;
  EXPECT_TRUE(ReadAll(*quick, pages).ok());
  EXPECT_EQ(pages, 64u * 200);
  pages = 0;
  EXPECT_TRUE(ReadAll(*slow, pages).ok());
  EXPECT_EQ(pages, 64u * 200) << "everything, in the end";
  EXPECT_TRUE(Await([&] { return readers_->open == 0 && !Pinned(snapshot); }));
}

// An agent refuses a message that is larger. What is put together has its size when it was compressed, and may gain nothing.
TEST_F(ReactorsTest, WhatDoesNotCompressFitsIntoAMessage) {
  const std::string snapshot = Store(Big());
  const std::string operation = StartRestore(snapshot);
  std::mt19937_64 random(1);
  struct Case {
    std::vector<size_t> together, stored;  // KiB
    bool stored_first;
  };
  for (const Case& each : {Case{{256, 256, 256, 256}, {100}, true}, Case{{256, 256, 256, 252}, {256}, false},
                           Case{{256, 256, 256, 256}, {}, true}, Case{{4, 256, 256, 256, 256, 256, 256, 256}, {255}, true}}) {
    std::deque<restore::StoredChunk> chunks;
    uint64_t bytes = 0;
    const auto add = [&](size_t kib, bool stored) {
      restore::StoredChunk& chunk = chunks.emplace_back();
      chunk.raw_bytes = static_cast<uint32_t>(kib << 10);
      chunk.page_count = chunk.raw_bytes / 4096;
      Bytes content(chunk.raw_bytes);
      for (std::byte& byte : content) byte = static_cast<std::byte>(random());
      bytes += content.size();
      if (stored) {
        chunk.data.assign(AsText(content));
      } else {
        chunk.raw = std::move(content);
      }
    };
    for (int turn = 0; turn < 2; ++turn) {
      for (const size_t kib : (turn == 0) == each.stored_first ? each.stored : each.together) add(kib, (turn == 0) == each.stored_first);
    }
    readers_->instead = std::move(chunks);
    const auto fetching = Fetch(operation, snapshot);
    v1::FetchResponse message;
    uint64_t came = 0;
    while (fetching->stream->Read(&message)) {
      EXPECT_LE(message.ByteSizeLong(), static_cast<size_t>(kMaxMessageBytes));
      for (const v1::FetchedChunk& chunk : message.chunks().chunks()) came += chunk.chunk().data().size();
    }
    EXPECT_TRUE(fetching->stream->Finish().ok());
    EXPECT_EQ(came, bytes);
  }
}

TEST_F(ReactorsTest, AFetchWhoseClientGoesAwayLetsGoOfTheSnapshot) {
  const std::string snapshot = Store(Big());
  const std::string operation = StartRestore(snapshot);
  for (int i = 0; i < 10; ++i) {
    const auto fetching = Fetch(operation, snapshot);
    v1::FetchResponse message;
    ASSERT_TRUE(fetching->stream->Read(&message));
    EXPECT_TRUE(message.has_header());
    fetching->context.TryCancel();
    while (fetching->stream->Read(&message)) {}
    EXPECT_EQ(fetching->stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  EXPECT_TRUE(Await([&] { return readers_->open == 0 && !Pinned(snapshot); }));
  uint64_t pages = 0;
  EXPECT_TRUE(ReadAll(*Fetch(operation, snapshot), pages).ok()) << "the executor has its place back";
}

TEST_F(ReactorsTest, ADeviceThatIsRevokedLosesItsFetch) {
  const std::string snapshot = Store(Big());
  const auto fetching = Fetch(StartRestore(snapshot), snapshot);
  v1::FetchResponse message;
  ASSERT_TRUE(fetching->stream->Read(&message));
  ChunksAtRest();
  live_->CancelAllOf(device_.value());
  uint64_t pages = 0;
  EXPECT_TRUE(absl::IsCancelled(ReadAll(*fetching, pages)));
  EXPECT_LT(pages, 64u * 200);
  EXPECT_TRUE(Await([&] { return readers_->open == 0 && !Pinned(snapshot); }));
}

TEST_F(ReactorsTest, AFetchWithoutAnOrderAndOneOfWrongPagesGetNothing) {
  const std::string snapshot = Store(FakeDatabase::Make(kPageSize, 100, 3));
  const std::string other = Store(FakeDatabase::Make(kPageSize, 100, 4));
  const std::string operation = StartRestore(snapshot);
  uint64_t pages = 0;
  EXPECT_EQ(ReasonOf(ReadAll(*Fetch(NewUlid(clock_.Now()), snapshot), pages)), "ORDER_NOT_FOUND");
  EXPECT_EQ(ReasonOf(ReadAll(*Fetch(operation, other), pages)), "ORDER_NOT_FOUND") << "another snapshot than ordered";
  v1::FetchRequest request;
  request.set_operation_id(operation);
  request.set_snapshot_id(snapshot);
  request.add_runs()->set_first_page(90);
  request.mutable_runs(0)->set_page_count(50);
  Fetching beyond;
  beyond.stream = device_stub_->Fetch(&beyond.context, request);
  EXPECT_EQ(ReasonOf(ReadAll(beyond, pages)), "RUNS_INVALID");
  EXPECT_EQ(pages, 0u);
}

// ---- upload

TEST_F(ReactorsTest, AnUploadWhoseClientGoesAwayKeepsWhatItSentAndNoPlace) {
  const FakeDatabase database = FakeDatabase::Make(kPageSize, 64 * 8, 1);
  const std::string session = NewSession();
  // More often than there are places.
  for (uint32_t sent = 0; sent < 6; ++sent) {
    const auto uploading = Upload();
    ASSERT_TRUE(uploading->stream->Write(fakes::BeginRequest(database, {.session_id = session})));
    const auto accepted = Answer(*uploading, v1::UploadResponse::kAccepted);
    ASSERT_TRUE(accepted.has_value()) << EndReason(*uploading);
    EXPECT_EQ(accepted->accepted().durable_chunks(), sent);
    ASSERT_TRUE(uploading->stream->Write(fakes::OfferRequest(database, 1, 0, sent + 1)));
    ASSERT_TRUE(Answer(*uploading, v1::UploadResponse::kMissing).has_value());
    ASSERT_TRUE(uploading->stream->Write(fakes::ChunkRequest(database, sent)));
    // Ends the call without a commit, after what was written.
    uploading->stream->WritesDone();
    EXPECT_NE(EndReason(*uploading), "");
    EXPECT_TRUE(Await([&] { return path_->ingest->uploads() == 0; }));
  }
  EXPECT_EQ(path_->SnapshotCount(), 0u);
}

TEST_F(ReactorsTest, AnUploadThatIsCancelledMidwayIsGone) {
  const FakeDatabase database = FakeDatabase::Make(kPageSize, 64 * 8, 1);
  for (int i = 0; i < 10; ++i) {
    const auto uploading = Upload();
    ASSERT_TRUE(uploading->stream->Write(fakes::BeginRequest(database, {.session_id = NewSession()})));
    ASSERT_TRUE(Answer(*uploading, v1::UploadResponse::kAccepted).has_value());
    uploading->stream->Write(fakes::OfferRequest(database, 1, 0, 8));
    uploading->context.TryCancel();
    EXPECT_EQ(uploading->stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
    EXPECT_TRUE(Await([&] { return path_->ingest->uploads() == 0; }));
  }
}

TEST_F(ReactorsTest, ADeviceThatIsRevokedLosesItsUpload) {
  const FakeDatabase database = FakeDatabase::Make(kPageSize, 64 * 8, 1);
  const auto uploading = Upload();
  ASSERT_TRUE(uploading->stream->Write(fakes::BeginRequest(database, {.session_id = NewSession()})));
  ASSERT_TRUE(Answer(*uploading, v1::UploadResponse::kAccepted).has_value());
  live_->CancelAllOf(device_.value());
  v1::UploadResponse response;
  while (uploading->stream->Read(&response)) {}
  EXPECT_EQ(uploading->stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(Await([&] { return path_->ingest->uploads() == 0; }));
}

TEST_F(ReactorsTest, MessagesOutOfOrderEndTheUploadAndNothingElse) {
  const FakeDatabase database = FakeDatabase::Make(kPageSize, 64 * 4, 1);
  const auto begin = [&] { return fakes::BeginRequest(database, {.session_id = NewSession()}); };
  const std::vector<std::vector<v1::UploadRequest>> wrong = {
      {v1::UploadRequest()},
      {fakes::OfferRequest(database, 1, 0, 1)},
      {fakes::ChunkRequest(database, 0)},
      {fakes::CommitRequest(database)},
      {begin(), begin()},
      {begin(), fakes::ChunkRequest(database, 0)},  // nobody asked for it
      {begin(), fakes::CommitRequest(database)},    // of nothing
  };
  for (size_t i = 0; i < wrong.size(); ++i) {
    const auto uploading = Upload();
    for (const v1::UploadRequest& message : wrong[i]) uploading->stream->Write(message);
    EXPECT_NE(EndReason(*uploading), "") << i;
    EXPECT_TRUE(Await([&] { return path_->ingest->uploads() == 0; })) << i;
  }
  EXPECT_EQ(path_->SnapshotCount(), 0u);
  EXPECT_NE(Store(database), "");
}

TEST_F(ReactorsTest, AnOversizedMessageEndsTheUploadWithAReason) {
  const FakeDatabase database = FakeDatabase::Make(kPageSize, 64 * 4, 1);
  const auto uploading = Upload();
  ASSERT_TRUE(uploading->stream->Write(fakes::BeginRequest(database, {.session_id = NewSession()})));
  ASSERT_TRUE(Answer(*uploading, v1::UploadResponse::kAccepted).has_value());
  v1::UploadRequest huge;
  huge.mutable_chunks()->add_chunks()->set_data(std::string(2 << 20, 'x'));
  uploading->stream->Write(huge);
  v1::UploadResponse response;
  while (uploading->stream->Read(&response)) {}
  EXPECT_EQ(uploading->stream->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Await([&] { return path_->ingest->uploads() == 0; }));
  EXPECT_NE(Store(database), "");
}

// ---- download

TEST_F(ReactorsTest, DownloadsAreBoundedAndLetGo) {
  const std::string snapshot = Store(Big());
  v1::DownloadSnapshotRequest request;
  request.set_snapshot(snapshot);
  grpc::ClientContext slow_context;
  const auto slow = admin_stub_->DownloadSnapshot(&slow_context, request);
  EXPECT_LT(ChunksAtRest(), 60);
  for (int i = 0; i < 5; ++i) {
    grpc::ClientContext context;
    const auto gone = admin_stub_->DownloadSnapshot(&context, request);
    v1::DownloadSnapshotResponse message;
    ASSERT_TRUE(gone->Read(&message));
    context.TryCancel();
    while (gone->Read(&message)) {}
    gone->Finish();
  }
  EXPECT_TRUE(Await([&] { return readers_->open == 1; })) << "the slow one's";
  uint64_t bytes = 0;
  v1::DownloadSnapshotResponse message;
  while (slow->Read(&message)) bytes += message.pages().raw_bytes();
  EXPECT_TRUE(slow->Finish().ok());
  EXPECT_EQ(bytes, uint64_t{kPageSize} * 64 * 200);
  EXPECT_TRUE(Await([&] { return readers_->open == 0 && !Pinned(snapshot); }));
}

TEST_F(ReactorsTest, WhoMayNotCallGetsTheReasonAndNothingElse) {
  const std::string snapshot = Store(FakeDatabase::Make(kPageSize, 100, 3));
  operator_ = Error(absl::StatusCode::kPermissionDenied, "WRONG_ROLE", "no");
  grpc::ClientContext context;
  v1::DownloadSnapshotRequest request;
  request.set_snapshot(snapshot);
  const auto stream = admin_stub_->DownloadSnapshot(&context, request);
  v1::DownloadSnapshotResponse message;
  EXPECT_FALSE(stream->Read(&message));
  EXPECT_EQ(ReasonOf(ToAbsl(stream->Finish())), "WRONG_ROLE");
  EXPECT_EQ(readers_->chunks, 0);
}

// ---- watch

TEST_F(ReactorsTest, WatchersThatGoAwayLeaveTheirPlace) {
  const std::string operation = StartRestore(Store(FakeDatabase::Make(kPageSize, 100, 3)));
  v1::WatchOperationRequest request;
  request.set_operation(operation);
  // More often than an operation may be watched.
  for (int i = 0; i < 80; ++i) {
    grpc::ClientContext context;
    const auto watch = admin_stub_->WatchOperation(&context, request);
    v1::WatchOperationResponse message;
    ASSERT_TRUE(watch->Read(&message)) << i;
    context.TryCancel();
    watch->Finish();
  }
  grpc::ClientContext context;
  const auto watch = admin_stub_->WatchOperation(&context, request);
  v1::WatchOperationResponse message;
  ASSERT_TRUE(watch->Read(&message));
  EXPECT_EQ(message.operation().id(), operation);
  ASSERT_TRUE(fleet_->Cancel(OperationId(operation)).ok());
  while (watch->Read(&message)) {}
  EXPECT_TRUE(watch->Finish().ok());
  EXPECT_EQ(message.operation().state(), v1::OPERATION_STATE_CANCELLED);
}

TEST_F(ReactorsTest, WatchersThatGoAwayLeaveTheirPlaceWhileTheExecutorIsFull) {
  const std::string operation = StartRestore(Store(FakeDatabase::Make(kPageSize, 100, 3)));
  struct Watching {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<v1::WatchOperationResponse>> stream;
  };
  v1::WatchOperationRequest request;
  request.set_operation(operation);
  std::vector<std::unique_ptr<Watching>> watchers;
  for (size_t i = 0; i < fleet::OperationTable::kMaxWatchesPerOperation; ++i) {
    Watching& watching = *watchers.emplace_back(std::make_unique<Watching>());
    watching.stream = admin_stub_->WatchOperation(&watching.context, request);
    v1::WatchOperationResponse message;
    ASSERT_TRUE(watching.stream->Read(&message)) << i;
  }
  const auto has_room = [&] {
    const auto watch = fleet_->Watch(OperationId(operation), [](const v1::Operation&) {});
    if (watch.ok()) fleet_->Unwatch(*watch);
    return watch.ok();
  };
  EXPECT_FALSE(has_room());
  std::promise<void> go_on;
  ASSERT_TRUE(streams_->TryPost([wait = go_on.get_future().share()] { wait.wait(); }));
  while (streams_->TryPost([] {})) {}
  for (const auto& watching : watchers) {
    watching->context.TryCancel();
    watching->stream->Finish();
  }
  EXPECT_TRUE(Await(has_room));
  go_on.set_value();
}

TEST_F(ReactorsTest, ASlowWatcherSeesTheEndAndNotEveryStep) {
  const auto started =
      fleet_->StartLocal(v1::OPERATION_KIND_CHECK, device_, "main", SnapshotId(NewUlid(clock_.Now())), "", "operator:test", [] {});
  ASSERT_TRUE(started.ok()) << started.status();
  v1::WatchOperationRequest request;
  request.set_operation(started->id());
  grpc::ClientContext context;
  const auto watch = admin_stub_->WatchOperation(&context, request);
  v1::Operation now = *started;
  now.set_state(v1::OPERATION_STATE_RUNNING);
  const std::string filler(2000, 'x');
  for (int i = 1; i <= 3000; ++i) {
    now.mutable_progress()->set_done_bytes(i);
    now.mutable_progress()->set_phase(filler);
    ASSERT_TRUE(fleet_->UpdateLocal(now).ok());
  }
  now.set_state(v1::OPERATION_STATE_SUCCEEDED);
  ASSERT_TRUE(fleet_->UpdateLocal(now).ok());
  int64_t last = -1;
  int seen = 0;
  v1::WatchOperationResponse message;
  while (watch->Read(&message)) {
    EXPECT_GE(message.operation().progress().done_bytes(), last) << "never an older one";
    last = message.operation().progress().done_bytes();
    ++seen;
  }
  EXPECT_TRUE(watch->Finish().ok());
  EXPECT_EQ(message.operation().state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_LT(seen, 3000);
}

}  // namespace
}  // namespace litefleet::rpc
