// The control stream over a real gRPC channel in this process, with a fleet that the test plays.
#include "controller/rpc/control_reactor.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/mutex.h"
#include "common/base/status.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::rpc {
namespace {

using std::chrono::milliseconds;
using Stream = grpc::ClientReaderWriter<v1::ControlRequest, v1::ControlResponse>;

// Remembers what the stream told it. Only the calls that control streams make are of interest.
class PlayedFleet final : public fleet::Fleet {
 public:
  absl::Status Connected(const DeviceId& device, std::shared_ptr<fleet::DeviceLink> link, const v1::Hello& hello) override {
    EXPECT_EQ(device.value(), "device");
    if (hello.protocol_version() != 1) return Error(absl::StatusCode::kFailedPrecondition, "PROTOCOL_VERSION", "no");
    v1::ControlResponse welcome;
    welcome.mutable_welcome()->set_protocol_version(1);
    link->Send(welcome);
    MutexLock lock(mu_);
    link_ = std::move(link);
    ++connected_;
    changed_.SignalAll();
    return absl::OkStatus();
  }
  absl::Status Received(const DeviceId&, fleet::DeviceLink&, const v1::ControlRequest& message) override {
    EXPECT_EQ(inside_.fetch_add(1), 0) << "messages of a stream come one after the other";
    if (message.has_health() && message.health().free_bytes() > 0) std::this_thread::sleep_for(milliseconds(message.health().free_bytes()));
    absl::Status status;
    {
      MutexLock lock(mu_);
      if (message.has_progress()) seen_.push_back(message.progress().progress().done_bytes());
      if (message.has_result()) status = Error(absl::StatusCode::kInvalidArgument, "BAD_MESSAGE", "no");
      changed_.SignalAll();
    }
    inside_.fetch_sub(1);
    return status;
  }
  void Disconnected(const DeviceId&, fleet::DeviceLink&) override {
    EXPECT_EQ(inside_.load(), 0) << "not while a message is dealt with";
    MutexLock lock(mu_);
    ++disconnected_;
    link_.reset();
    changed_.SignalAll();
  }

  bool AwaitConnected(int count) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return connected_ >= count; });
  }
  bool AwaitDisconnected(int count) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return disconnected_ >= count; });
  }
  bool AwaitSeen(size_t count) {
    return Await([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return seen_.size() >= count; });
  }
  std::shared_ptr<fleet::DeviceLink> link() {
    MutexLock lock(mu_);
    return link_;
  }
  std::vector<int64_t> seen() {
    MutexLock lock(mu_);
    return seen_;
  }
  int disconnected() {
    MutexLock lock(mu_);
    return disconnected_;
  }

  bool IsConnected(const DeviceId&) const override { return false; }
  int ConnectedCount() const override { return 0; }
  void Disconnect(const DeviceId&, const absl::Status&) override {}
  void PoliciesChanged() override {}
  absl::StatusOr<std::vector<v1::Operation>> StartBackups(const std::vector<BackupOrder>&, std::chrono::seconds, const std::string&,
                                                          const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<v1::Operation> StartRestore(const DeviceId&, const v1::RestoreOrder&, std::chrono::seconds, const std::string&,
                                             const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<v1::Operation> StartUndo(const DeviceId&, const v1::UndoOrder&, std::chrono::seconds, const std::string&,
                                          const std::string&) override {
    return absl::UnimplementedError("");
  }
  absl::StatusOr<v1::Operation> StartDropUndo(const DeviceId&, const v1::DropUndoOrder&, std::chrono::seconds, const std::string&,
                                              const std::string&) override {
    return absl::UnimplementedError("");
  }
  void QueryPlan(const DeviceId&, const v1::Query&, milliseconds, absl::AnyInvocable<void(absl::StatusOr<v1::RestorePlan>)>) override {}
  absl::StatusOr<v1::Operation> Cancel(const OperationId&) override { return absl::UnimplementedError(""); }
  absl::StatusOr<v1::Operation> StartLocal(v1::OperationKind, const DeviceId&, const std::string&, const SnapshotId&, const std::string&,
                                           const std::string&, std::function<void()>) override {
    return absl::UnimplementedError("");
  }
  absl::Status UpdateLocal(const v1::Operation&) override { return absl::OkStatus(); }
  std::vector<v1::Operation> ActiveLocal() const override { return {}; }
  absl::Status AdoptLocal(const OperationId&, std::function<void()>) override { return absl::OkStatus(); }
  void FillLive(v1::Operation&) const override {}
  absl::StatusOr<uint64_t> Watch(const OperationId&, Watcher) override { return absl::UnimplementedError(""); }
  void Unwatch(uint64_t) override {}
  absl::StatusOr<bool> MayFetch(const DeviceId&, const OperationId&, const SnapshotId&) override { return false; }

 private:
  template <class Condition>
  bool Await(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    MutexLock lock(mu_);
    while (!condition()) {
      if (!changed_.WaitUntil(mu_, deadline)) return condition();
    }
    return true;
  }

  std::atomic<int> inside_{0};
  Mutex mu_;
  CondVar changed_;
  std::shared_ptr<fleet::DeviceLink> link_ ABSL_GUARDED_BY(mu_);
  std::vector<int64_t> seen_ ABSL_GUARDED_BY(mu_);
  int connected_ ABSL_GUARDED_BY(mu_) = 0;
  int disconnected_ ABSL_GUARDED_BY(mu_) = 0;
};

class Service final : public v1::AgentService::CallbackService {
 public:
  Service(const ControlDeps& deps, const absl::StatusOr<Caller>& caller) : deps_(deps), caller_(caller) {}
  grpc::ServerBidiReactor<v1::ControlRequest, v1::ControlResponse>* Control(grpc::CallbackServerContext* context) override {
    return NewControlReactor(deps_, caller_, context);
  }

 private:
  const ControlDeps deps_;
  const absl::StatusOr<Caller> caller_;
};

class ControlReactorTest : public testing::Test {
 protected:
  void Start(const absl::StatusOr<Caller>& caller, const std::function<void(ControlDeps&)>& change = {}) {
    ControlDeps deps;
    deps.fleet = &fleet_;
    deps.executor = &executor_;
    if (change) change(deps);
    service_ = std::make_unique<Service>(deps, caller);
    grpc::ServerBuilder builder;
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    stub_ = v1::AgentService::NewStub(server_->InProcessChannel({}));
  }
  void TearDown() override {
    if (server_ == nullptr) return;
    // A reactor that never finishes would hold this up beyond the deadline.
    const auto begin = std::chrono::steady_clock::now();
    server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
    server_->Wait();
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(15));
  }
  static Caller Device() {
    Caller caller;
    caller.role = Role::kDevice;
    caller.device = DeviceId("device");
    return caller;
  }
  std::unique_ptr<Stream> Open(grpc::ClientContext& context) {
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return stub_->Control(&context);
  }
  static bool Hello(Stream& stream, uint32_t version = 1) {
    v1::ControlRequest message;
    message.mutable_hello()->set_protocol_version(version);
    return stream.Write(message);
  }
  // Reads to the end and says how it ended.
  static absl::Status End(Stream& stream) {
    v1::ControlResponse message;
    while (stream.Read(&message)) {}
    return ToAbsl(stream.Finish());
  }

  PlayedFleet fleet_;
  ThreadPoolExecutor executor_{4, 256};
  std::unique_ptr<Service> service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AgentService::Stub> stub_;
};

TEST_F(ControlReactorTest, MessagesArriveInTheirOrderOneAtATime) {
  Start(Device());
  grpc::ClientContext context;
  auto stream = Open(context);
  ASSERT_TRUE(Hello(*stream));
  v1::ControlResponse welcome;
  ASSERT_TRUE(stream->Read(&welcome));
  EXPECT_TRUE(welcome.has_welcome());
  std::vector<int64_t> sent;
  for (int i = 0; i < 300; ++i) {
    v1::ControlRequest message;
    message.mutable_progress()->mutable_progress()->set_done_bytes(i);
    ASSERT_TRUE(stream->Write(message));
    sent.push_back(i);
  }
  ASSERT_TRUE(fleet_.AwaitSeen(300));
  EXPECT_EQ(fleet_.seen(), sent);
  stream->WritesDone();
  EXPECT_TRUE(End(*stream).ok());
  EXPECT_TRUE(fleet_.AwaitDisconnected(1));
}

TEST_F(ControlReactorTest, WhoMayNotIsToldWhy) {
  Start(Error(absl::StatusCode::kUnauthenticated, "CERTIFICATE_REVOKED", "revoked"));
  grpc::ClientContext context;
  auto stream = Open(context);
  Hello(*stream);
  EXPECT_EQ(ReasonOf(End(*stream)), "CERTIFICATE_REVOKED");
  EXPECT_EQ(fleet_.link(), nullptr);
}

TEST_F(ControlReactorTest, TheFirstMessageIsHello) {
  Start(Device());
  grpc::ClientContext context;
  auto stream = Open(context);
  v1::ControlRequest health;
  health.mutable_health();
  ASSERT_TRUE(stream->Write(health));
  EXPECT_EQ(ReasonOf(End(*stream)), "HELLO_EXPECTED");
}

TEST_F(ControlReactorTest, HelloComesInTime) {
  Start(Device(), [](ControlDeps& deps) { deps.hello_timeout = milliseconds(100); });
  grpc::ClientContext context;
  auto stream = Open(context);
  EXPECT_EQ(ReasonOf(End(*stream)), "HELLO_MISSING");
}

TEST_F(ControlReactorTest, WhatTheFleetRefusesEndsTheStreamWithItsReason) {
  Start(Device());
  {
    grpc::ClientContext context;
    auto stream = Open(context);
    ASSERT_TRUE(Hello(*stream, 7));
    EXPECT_EQ(ReasonOf(End(*stream)), "PROTOCOL_VERSION");
  }
  grpc::ClientContext context;
  auto stream = Open(context);
  ASSERT_TRUE(Hello(*stream));
  v1::ControlResponse welcome;
  ASSERT_TRUE(stream->Read(&welcome));
  v1::ControlRequest bad;
  bad.mutable_result();
  ASSERT_TRUE(stream->Write(bad));
  EXPECT_EQ(ReasonOf(End(*stream)), "BAD_MESSAGE");
  EXPECT_TRUE(fleet_.AwaitDisconnected(1));
}

TEST_F(ControlReactorTest, AnAbruptEndIsNoticedAlsoWhileAMessageIsDealtWith) {
  Start(Device());
  for (const int64_t busy_ms : {0, 200}) {
    const int before = fleet_.disconnected();
    grpc::ClientContext context;
    auto stream = Open(context);
    ASSERT_TRUE(Hello(*stream));
    ASSERT_TRUE(fleet_.AwaitConnected(before + 1));
    v1::ControlRequest health;
    health.mutable_health()->set_free_bytes(busy_ms);
    ASSERT_TRUE(stream->Write(health));
    context.TryCancel();
    EXPECT_TRUE(fleet_.AwaitDisconnected(before + 1));
    EXPECT_EQ(End(*stream).code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(fleet_.disconnected(), before + 1);
  }
}

TEST_F(ControlReactorTest, CloseEndsTheStreamAtOnceWithItsReason) {
  Start(Device());
  grpc::ClientContext context;
  auto stream = Open(context);
  ASSERT_TRUE(Hello(*stream));
  v1::ControlResponse welcome;
  ASSERT_TRUE(stream->Read(&welcome));
  ASSERT_TRUE(fleet_.AwaitConnected(1));
  // The welcome may be here before its write is known to be complete there: a stream that waits is what this is about.
  for (int i = 0; i < 20; ++i) {
    v1::ControlRequest message;
    message.mutable_progress()->mutable_progress()->set_done_bytes(i);
    ASSERT_TRUE(stream->Write(message));
    ASSERT_TRUE(fleet_.AwaitSeen(static_cast<size_t>(i) + 1));
  }
  const auto link = fleet_.link();
  link->Close(Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", "revoked"));
  link->Close(absl::AbortedError("a second one changes nothing"));
  EXPECT_EQ(ReasonOf(End(*stream)), "DEVICE_REVOKED");
  EXPECT_TRUE(fleet_.AwaitDisconnected(1));
  // The link outlives the call, and is harmless.
  v1::ControlResponse late;
  late.mutable_order()->set_operation_id("x");
  link->Send(late);
  link->Close(absl::OkStatus());
}

TEST_F(ControlReactorTest, ASlowReaderLosesItsStream) {
  Start(Device(), [](ControlDeps& deps) { deps.limits = {.max_messages = 16, .max_bytes = 1 << 20}; });
  grpc::ClientContext context;
  auto stream = Open(context);
  ASSERT_TRUE(Hello(*stream));
  ASSERT_TRUE(fleet_.AwaitConnected(1));
  const auto link = fleet_.link();
  v1::ControlResponse order;
  order.mutable_order()->set_operation_id(std::string(100'000, 'x'));
  for (int i = 0; i < 200; ++i) link->Send(order);
  EXPECT_TRUE(fleet_.AwaitDisconnected(1));
  int received = 0;
  v1::ControlResponse message;
  while (stream->Read(&message)) ++received;
  EXPECT_LT(received, 200);
  EXPECT_FALSE(stream->Finish().ok());
}

TEST_F(ControlReactorTest, RevocationDropsWhatIsQueuedForASlowReader) {
  Start(Device());
  grpc::ClientContext context;
  auto stream = Open(context);
  ASSERT_TRUE(Hello(*stream));
  ASSERT_TRUE(fleet_.AwaitConnected(1));
  const auto link = fleet_.link();
  v1::ControlResponse order;
  order.mutable_order()->set_operation_id(std::string(100'000, 'x'));
  for (int i = 0; i < 30; ++i) link->Send(order);
  link->Close(Error(absl::StatusCode::kPermissionDenied, "DEVICE_REVOKED", "revoked"));
  EXPECT_TRUE(fleet_.AwaitDisconnected(1));
  int received = 0;
  v1::ControlResponse message;
  while (stream->Read(&message)) ++received;
  EXPECT_LT(received, 30);
  EXPECT_FALSE(stream->Finish().ok());
}

TEST_F(ControlReactorTest, ShutdownEndsOpenStreams) {
  Start(Device());
  grpc::ClientContext context;
  auto stream = Open(context);
  ASSERT_TRUE(Hello(*stream));
  ASSERT_TRUE(fleet_.AwaitConnected(1));
  server_->Shutdown(std::chrono::system_clock::now() + milliseconds(200));
  EXPECT_FALSE(End(*stream).ok());
  EXPECT_TRUE(fleet_.AwaitDisconnected(1));
}

TEST_F(ControlReactorTest, ManyStreamsComeAndGo) {
  Start(Device());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 25; ++i) {
        grpc::ClientContext context;
        auto stream = Open(context);
        Hello(*stream);
        v1::ControlResponse message;
        if (i % 2 == 0) stream->Read(&message);
        if ((i + t) % 3 == 0) {
          if (const auto link = fleet_.link()) link->Close(absl::AbortedError("closed"));
        }
        if (i % 4 == 0) {
          stream->WritesDone();
        } else {
          context.TryCancel();
        }
        End(*stream).IgnoreError();
      }
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace litefleet::rpc
