// What upload streams cost when nobody does anything: small deltas, a message and an answer each, from memory by gRPC alone, without TLS.
// The rate of commits that no controller over this gRPC can exceed on a machine.
//
//   stream_floor serve                                             prints {"port":N}, runs until its input ends
//   stream_floor load --port N --devices 200 --seconds 10          as many connections, each one stream after the other; prints
//   {"streams":N,"seconds":S}
#include <grpcpp/grpcpp.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "litefleet/v1/agent_service.grpc.pb.h"
#include "tests/tools/queued_stream.h"

namespace litefleet {
namespace {

constexpr size_t kPayload = 6 << 10;  // three pages, compressed

class Answers final : public grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse> {
 public:
  Answers() { StartRead(&request_); }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::OK);
    response_.mutable_committed()->set_snapshot_id("01ARZ3NDEKTSV4RRFFQ69G5FAV");
    StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

  v1::UploadRequest request_;
  v1::UploadResponse response_;
};

class Service final : public v1::AgentService::CallbackService {
  grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* Upload(grpc::CallbackServerContext* /*context*/) override {
    return new Answers();
  }
};

struct Load {
  std::atomic<uint64_t> ended{0};
  std::atomic<bool> stop{false};
  std::atomic<size_t> running{0};
};

// One stream after the other over one connection.
class Stream final : public QueuedStream<v1::UploadRequest, v1::UploadResponse> {
 public:
  Stream(v1::AgentService::Stub& stub, Load& load) : stub_(stub), load_(load) {}
  void Start() {
    stub_.async()->Upload(context(), this);
    Begin();
    v1::UploadRequest request;
    v1::UploadWhole& whole = *request.mutable_whole();
    whole.mutable_begin()->set_session_id("01ARZ3NDEKTSV4RRFFQ69G5FAV");
    whole.mutable_begin()->set_database("main");
    v1::ChunkOffer& offer = *whole.mutable_offer()->add_chunks();
    offer.set_name(std::string(32, 'n'));
    offer.add_runs()->set_page_count(3);
    v1::ChunkData& chunk = *whole.mutable_chunks()->add_chunks();
    chunk.set_name(offer.name());
    chunk.set_data(std::string(kPayload, 'p'));
    whole.mutable_commit()->set_root_digest(std::string(32, 'r'));
    Post(std::move(request));
  }

 private:
  bool Received(v1::UploadResponse&) override {
    Leave();
    return true;
  }
  void Closed(absl::Status status) override {
    if (status.ok()) ++load_.ended;
    if (status.ok() && !load_.stop) {
      std::make_shared<Stream>(stub_, load_)->Start();
    } else {
      --load_.running;
    }
  }

  v1::AgentService::Stub& stub_;
  Load& load_;
};

int Serve() {
  Service service;
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  fmt::print("{{\"port\":{}}}\n", port);
  std::fflush(stdout);
  while (std::getchar() != EOF) {}
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

int Run(int port, size_t devices, int seconds) {
  Load load;
  std::vector<std::unique_ptr<v1::AgentService::Stub>> stubs;
  grpc::ChannelArguments own;
  own.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  for (size_t i = 0; i < devices; ++i) {
    stubs.push_back(
        v1::AgentService::NewStub(grpc::CreateCustomChannel(fmt::format("127.0.0.1:{}", port), grpc::InsecureChannelCredentials(), own)));
  }
  load.running = devices;
  for (const auto& stub : stubs) std::make_shared<Stream>(*stub, load)->Start();
  std::this_thread::sleep_for(std::chrono::seconds(2));
  fmt::print("{{\"ready\":{}}}\n", devices);
  std::fflush(stdout);
  const uint64_t before = load.ended;
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::sleep_for(std::chrono::seconds(seconds));
  const uint64_t streams = load.ended - before;
  const double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  fmt::print("{{\"streams\":{},\"seconds\":{:.3f}}}\n", streams, took);
  std::fflush(stdout);
  load.stop = true;
  const auto deadline = start + std::chrono::seconds(seconds + 30);
  while (load.running > 0 && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return load.running == 0 && streams > 0 ? 0 : 1;
}

int Main(int argc, char** argv) {
  CLI::App app("The cost of upload streams in which nothing is done");
  app.require_subcommand(1);
  int port = 0;
  int seconds = 10;
  size_t devices = 200;
  const CLI::App* serve = app.add_subcommand("serve");
  CLI::App* load = app.add_subcommand("load");
  load->add_option("--port", port)->required();
  load->add_option("--devices", devices)->check(CLI::Range(1, 10'000));
  load->add_option("--seconds", seconds)->check(CLI::Range(1, 3600));
  CLI11_PARSE(app, argc, argv);
  return *serve ? Serve() : Run(port, devices, seconds);
}

}  // namespace
}  // namespace litefleet

int main(int argc, char** argv) { return litefleet::Main(argc, argv); }
