// Streams to peers that read, read slowly, and do not read at all, over a real gRPC channel in this process.
#include "common/rpc/server_stream.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "common/base/mutex.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::rpc {
namespace {

using std::chrono::milliseconds;

// What became of the stream of a test, and what stands for a snapshot that is read as long as the stream lives.
struct Fate {
  bool AwaitDone() {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    MutexLock lock(mu);
    while (!done) {
      if (!changed.WaitUntil(mu, deadline)) return done;
    }
    return true;
  }

  Mutex mu;
  CondVar changed;
  bool done ABSL_GUARDED_BY(mu) = false;
  std::shared_ptr<int> pinned = std::make_shared<int>();
};

// As a server keeps one of each call.
class Hold final : public CallHold {
 public:
  explicit Hold(grpc::CallbackServerContext* context) : context_(context) {}
  void Ended() override {
    const std::lock_guard lock(mu_);
    context_ = nullptr;
  }
  void Cancel() override {
    const std::lock_guard lock(mu_);
    if (context_ != nullptr) context_->TryCancel();
  }

 private:
  std::recursive_mutex mu_;  // gRPC may end the call before TryCancel returns
  grpc::CallbackServerContext* context_;
};

using Base = OutboundStream<grpc::ServerWriteReactor<v1::FetchResponse>, v1::FetchResponse>;

class Pour final : public Base {
 public:
  Pour(grpc::CallbackServerContext* context, StreamLimits limits, int messages, bool ends_with, Fate& fate)
      : Base(context, limits), left_(messages), ends_with_(ends_with), fate_(fate), pinned_(fate.pinned) {
    KeepUntilDone(std::make_shared<Hold>(context));
  }
  void Begin() { OnRoom(); }

 private:
  void OnRoom() override {
    const auto keep = shared_from_this();
    for (;;) {
      if (!next_.has_value()) {
        if (left_-- == 0) return End(absl::OkStatus());
        next_.emplace().mutable_header()->set_root_digest(std::string(256 << 10, 'x'));
        if (left_ == 0 && ends_with_) return EndWith(*std::move(next_));
      }
      if (!TryPush(*next_)) return;
      next_.reset();
    }
  }
  void OnStreamDone() override {
    MutexLock lock(fate_.mu);
    fate_.done = true;
    fate_.changed.SignalAll();
  }

  int left_;
  const bool ends_with_;
  std::optional<v1::FetchResponse> next_;
  Fate& fate_;
  const std::shared_ptr<int> pinned_;
};

class ServerStreamTest : public testing::Test, private v1::AgentService::CallbackService {
 protected:
  void SetUp() override {
    grpc::ServerBuilder builder;
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    stub_ = v1::AgentService::NewStub(server_->InProcessChannel(grpc::ChannelArguments()));
  }
  void TearDown() override { server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5)); }

  grpc::ServerWriteReactor<v1::FetchResponse>* Fetch(grpc::CallbackServerContext* context, const v1::FetchRequest*) override {
    return LaunchStream<Pour>(context, StreamLimits{.max_messages = 2, .write_timeout = timeout_}, messages_, ends_with_, fate_);
  }

  milliseconds timeout_{300};
  int messages_ = 100;
  bool ends_with_ = false;  // the last message goes with the end
  Fate fate_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<v1::AgentService::Stub> stub_;
};

TEST_F(ServerStreamTest, APeerThatDoesNotReadIsCutOff) {
  grpc::ClientContext context;
  const auto stream = stub_->Fetch(&context, v1::FetchRequest());
  v1::FetchResponse message;
  ASSERT_TRUE(stream->Read(&message));
  EXPECT_TRUE(fate_.AwaitDone()) << "it has stopped reading, and its connection is up";
  EXPECT_TRUE([&] {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (fate_.pinned.use_count() > 1 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    return fate_.pinned.use_count() == 1;
  }()) << "what the stream held goes with it";
  int more = 0;
  while (stream->Read(&message)) ++more;
  EXPECT_LT(more, messages_ - 1);
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ServerStreamTest, TheLastMessageGoesWithTheEnd) {
  ends_with_ = true;
  for (messages_ = 1; messages_ <= 8; ++messages_) {
    Fate& fate = fate_;
    {
      MutexLock lock(fate.mu);
      fate.done = false;
    }
    grpc::ClientContext context;
    const auto stream = stub_->Fetch(&context, v1::FetchRequest());
    v1::FetchResponse message;
    int seen = 0;
    while (stream->Read(&message)) ++seen;
    EXPECT_EQ(seen, messages_);
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_TRUE(fate.AwaitDone());
  }
}

TEST_F(ServerStreamTest, APeerThatDoesNotReadTheLastMessageIsCutOff) {
  ends_with_ = true;
  messages_ = 1;
  grpc::ClientContext context;
  const auto stream = stub_->Fetch(&context, v1::FetchRequest());
  EXPECT_TRUE(fate_.AwaitDone()) << "its connection is up";
  EXPECT_FALSE(stream->Finish().ok());
}

TEST_F(ServerStreamTest, APeerThatGoesBeforeTheLastMessageEndsTheCall) {
  ends_with_ = true;
  messages_ = 1;
  {
    grpc::ClientContext context;
    const auto stream = stub_->Fetch(&context, v1::FetchRequest());
    context.TryCancel();
    EXPECT_FALSE(stream->Finish().ok());
  }
  EXPECT_TRUE(fate_.AwaitDone());
}

TEST_F(ServerStreamTest, APeerThatReadsSlowlyIsNot) {
  messages_ = 30;
  timeout_ = milliseconds(1500);
  grpc::ClientContext context;
  const auto stream = stub_->Fetch(&context, v1::FetchRequest());
  v1::FetchResponse message;
  int seen = 0;
  const auto begun = std::chrono::steady_clock::now();
  while (stream->Read(&message)) {
    ++seen;
    std::this_thread::sleep_for(milliseconds(100));
  }
  EXPECT_GT(std::chrono::steady_clock::now() - begun, timeout_) << "longer than one write may take";
  EXPECT_EQ(seen, messages_);
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(fate_.AwaitDone());
}

}  // namespace
}  // namespace litefleet::rpc
