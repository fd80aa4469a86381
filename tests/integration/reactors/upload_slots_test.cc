// The places for uploads over a real server on the loopback: who waits for one, who goes away meanwhile, who is told that there is none.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "controller/flow/fair_slots.h"
#include "controller/rpc/live_calls.h"
#include "controller/rpc/upload_reactor.h"
#include "fmt/format.h"
#include "litefleet/v1/agent_service.grpc.pb.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::rpc {
namespace {

class UploadSlotsTest : public ingest::IngestTest {
 protected:
  using FakeDatabase = fakes::FakeDatabase;
  using seconds = std::chrono::seconds;
  static constexpr uint32_t kPageSize = 4096;

  class AgentService final : public v1::AgentService::CallbackService {
   public:
    explicit AgentService(UploadSlotsTest& test) : test_(test) {}
    grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* Upload(grpc::CallbackServerContext* context) override {
      Caller caller;
      caller.role = Role::kDevice;
      caller.device = test_.device_;
      caller.live_call = test_.live_->Add(test_.device_.value(), *context);
      const UploadDeps deps{.ingest = test_.path_->ingest.get(), .executor = test_.path_->session_executor.get(), .slots = &test_.slots_};
      return NewUploadReactor(context, deps, caller);
    }

   private:
    UploadSlotsTest& test_;
  };

  static void SetUpTestSuite() {
    static const GrpcRuntime runtime;
    KeepCallbackThreads();
  }
  void SetUp() override {
    IngestTest::SetUp();
    Open({.max_uploads = 4});
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(&agent_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = v1::AgentService::NewStub(grpc::CreateChannel(fmt::format("127.0.0.1:{}", port), grpc::InsecureChannelCredentials()));
  }
  void TearDown() override {
    server_->Shutdown(std::chrono::system_clock::now() + seconds(5));
    server_->Wait();
    EXPECT_TRUE(Await([&] { return path_->ingest->uploads() == 0; }));
    IngestTest::TearDown();
  }

  static bool Await(const std::function<bool()>& condition) {
    const auto deadline = std::chrono::steady_clock::now() + seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return true;
  }
  struct Uploading {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<v1::UploadRequest, v1::UploadResponse>> stream;
  };
  std::unique_ptr<Uploading> Upload() {
    auto uploading = std::make_unique<Uploading>();
    uploading->context.set_deadline(std::chrono::system_clock::now() + seconds(30));
    uploading->stream = stub_->Upload(&uploading->context);
    uploading->stream->Write(fakes::BeginRequest(database_, {.session_id = NewSession()}));
    return uploading;
  }
  static bool Answers(Uploading& uploading, v1::UploadResponse::MessageCase wanted) {
    v1::UploadResponse response;
    while (uploading.stream->Read(&response)) {
      if (response.message_case() == wanted) return true;
    }
    return false;
  }
  static absl::Status End(Uploading& uploading) {
    v1::UploadResponse response;
    while (uploading.stream->Read(&response)) {}
    return ToAbsl(uploading.stream->Finish());
  }
  // One that has begun, and holds its place.
  std::unique_ptr<Uploading> Begun() {
    auto uploading = Upload();
    EXPECT_TRUE(Answers(*uploading, v1::UploadResponse::kAccepted)) << End(*uploading);
    return uploading;
  }
  // One that waits for a place: with those before it so many.
  std::unique_ptr<Uploading> Waiting(size_t number) {
    auto uploading = Upload();
    EXPECT_TRUE(Await([&] { return slots_.waiting() == number; }));
    return uploading;
  }
  static void Cancel(Uploading& uploading) {
    uploading.context.TryCancel();
    EXPECT_TRUE(absl::IsCancelled(End(uploading)));
  }
  // Without a commit, after what was written.
  static void Stop(Uploading& uploading) {
    uploading.stream->WritesDone();
    EXPECT_FALSE(End(uploading).ok());
  }

  const FakeDatabase database_ = FakeDatabase::Make(kPageSize, 64 * 8, 1);
  const std::shared_ptr<LiveCalls> live_ = std::make_shared<LiveCalls>();
  flow::FairSlots slots_{flow::FairSlots::Limits{.slots = 1, .max_waiting = 2, .patience = seconds(10), .own_thread = false}, clock_};
  AgentService agent_{*this};
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AgentService::Stub> stub_;
};

TEST_F(UploadSlotsTest, AnUploadWaitsForItsPlaceAndGoesOn) {
  const auto first = Begun();
  const auto second = Waiting(1);
  EXPECT_EQ(path_->ingest->uploads(), 1u) << "who waits costs the data path nothing";
  Stop(*first);
  EXPECT_TRUE(Answers(*second, v1::UploadResponse::kAccepted)) << End(*second);
  EXPECT_EQ(slots_.taken(), 1u);
  Stop(*second);
  EXPECT_TRUE(Await([&] { return slots_.taken() == 0 && slots_.devices() == 0; }));
}

TEST_F(UploadSlotsTest, APlaceComesBackFromWhoeverGoesAway) {
  for (int i = 0; i < 10; ++i) {
    // While it holds the place: who waits gets it.
    const auto holds = Begun();
    const auto next = Waiting(1);
    Cancel(*holds);
    EXPECT_TRUE(Answers(*next, v1::UploadResponse::kAccepted)) << i;
    // While it waits: the place goes to the one after it.
    const auto gone = Waiting(1);
    const auto last = Waiting(2);
    Cancel(*gone);
    Stop(*next);
    EXPECT_TRUE(Answers(*last, v1::UploadResponse::kAccepted)) << i;
    // Where nobody comes after it, it is free.
    const auto alone = Waiting(1);
    Cancel(*alone);
    Cancel(*last);
    EXPECT_TRUE(Await([&] { return slots_.taken() == 0 && slots_.waiting() == 0; })) << i;
  }
  EXPECT_EQ(slots_.devices(), 0u);
}

TEST_F(UploadSlotsTest, WhoWaitsTooLongOrIsOneTooManyIsToldSo) {
  const auto holds = Begun();
  const auto second = Waiting(1);
  const auto third = Waiting(2);
  EXPECT_EQ(ReasonOf(End(*Upload())), "TOO_MANY_UPLOADS") << "at once";
  clock_.Advance(seconds(10));
  slots_.Tick();
  EXPECT_EQ(ReasonOf(End(*second)), "TOO_MANY_UPLOADS");
  EXPECT_EQ(ReasonOf(End(*third)), "TOO_MANY_UPLOADS");
  // The one that holds the place knows nothing of it.
  EXPECT_EQ(slots_.taken(), 1u);
  holds->stream->Write(fakes::OfferRequest(database_, 1, 0, 8));
  EXPECT_TRUE(Answers(*holds, v1::UploadResponse::kMissing)) << End(*holds);
  Stop(*holds);
  EXPECT_TRUE(Await([&] { return slots_.taken() == 0; }));
  Stop(*Begun());
}

TEST_F(UploadSlotsTest, ADeviceThatIsRevokedLosesItsPlaceAndItsTurn) {
  const auto holds = Begun();
  const auto waits = Waiting(1);
  live_->CancelAllOf(device_.value());
  EXPECT_TRUE(absl::IsCancelled(End(*holds)));
  EXPECT_TRUE(absl::IsCancelled(End(*waits)));
  EXPECT_TRUE(Await([&] { return slots_.taken() == 0 && slots_.waiting() == 0; }));
}

}  // namespace
}  // namespace litefleet::rpc
