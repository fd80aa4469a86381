// Many devices in one process: real enrolment, a connection with a certificate of its own for each, the real agent service.
//
//   fleet_load commits --controller HOST:PORT --token-file FILE --devices 200 --seconds 10   each uploads one small delta after the other
//   fleet_load idle    --controller HOST:PORT --token-file FILE --devices 2000 --seconds 60  each holds a control stream
//
// Prints a line {"ready":N} when all are set up and the measured time begins, and at the end one line of results. Messages go as the agent
// sends them: a first backup as begin, offer, chunks, commit, each after the answer that it needs; deltas as one message, or with --parts
// as an older agent does. Only `committed` counts.
#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "agent/enroll/preflight.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/crypto/token.h"
#include "common/crypto/x509.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "common/rpc/channel.h"
#include "common/rpc/client_stream.h"
#include "common/rpc/status.h"
#include "fmt/format.h"
#include "litefleet/v1/agent_service.grpc.pb.h"
#include "tests/tools/queued_stream.h"

namespace litefleet {
namespace {

using std::chrono::duration;
using std::chrono::seconds;

constexpr uint32_t kPageSize = 4096;
constexpr auto kTimeout = seconds(120);
constexpr int kEnrollers = 8;

struct Options {
  std::string controller;
  std::string token_file;
  size_t devices = 200;
  int seconds = 10;
  int warm_seconds = 2;
  int every_seconds = 0;
  uint32_t base_pages = 1024;
  uint32_t delta_pages = 3;
  std::string prefix = "load";
  bool parts = false;
};

struct Device {
  rpc::Identity identity;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::AgentService::Stub> stub;
};

// Connects all devices: a key and a certificate each, asked for over one connection.
absl::Status EnrollAll(const Options& options, std::vector<Device>& devices) {
  std::ifstream file(options.token_file);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  LF_ASSIGN_OR_RETURN(const crypto::EnrollmentToken token, crypto::ParseToken(text));
  LF_ASSIGN_OR_RETURN(const rpc::Address address, rpc::ParseAddress(options.controller));
  LF_ASSIGN_OR_RETURN(const std::string root, enroll::FetchTrustedRoot(address, token.ca_fingerprint, kTimeout));
  LF_ASSIGN_OR_RETURN(const auto channel, rpc::MakeChannel({address, {"", "", root}, "fleet_load"}));
  const auto stub = v1::AgentService::NewStub(channel);
  devices.resize(options.devices);
  std::atomic<size_t> next{0};
  Mutex mu;
  absl::Status status;
  const auto one = [&](size_t number) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::GenerateKey());
    v1::EnrollRequest request;
    LF_ASSIGN_OR_RETURN(*request.mutable_csr(), crypto::MakeSigningRequest(*key, "load"));
    request.set_device_name(fmt::format("{}-{}", options.prefix, number));
    request.set_token(token.secret);
    v1::EnrollResponse response;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kTimeout);
    LF_RETURN_IF_ERROR(rpc::ToAbsl(stub->Enroll(&context, request, &response)));
    Device& device = devices[number];
    LF_ASSIGN_OR_RETURN(device.identity.private_key, crypto::KeyToPem(*key));
    device.identity.certificate_chain = response.certificate_chain();
    device.identity.ca_certificate = root;
    LF_ASSIGN_OR_RETURN(device.channel, rpc::MakeChannel({address, device.identity, "fleet_load"}));
    device.stub = v1::AgentService::NewStub(device.channel);
    return absl::OkStatus();
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kEnrollers; ++i) {
    threads.emplace_back([&] {
      for (size_t number = next++; number < options.devices; number = next++) {
        const absl::Status enrolled = one(number);
        if (enrolled.ok()) continue;
        MutexLock lock(mu);
        status.Update(enrolled);
        return;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return status;
}

void FillPage(std::minstd_rand& random, std::span<std::byte> page) {
  for (size_t i = 0; i < page.size(); i += 16) {  // half of it compresses
    const uint64_t noise = uint64_t{random()} << 32 | random();
    std::memcpy(page.data() + i, &noise, sizeof noise);
    std::memset(page.data() + i + sizeof noise, 7, sizeof noise);
  }
}

struct Content {
  v1::ChunkOffer offer;
  v1::ChunkData data;
};

// What a device knows of its one database: digests, as the agent's ledger has them.
class Database {
 public:
  Database(uint32_t page_count, unsigned seed) : pages_(page_count), random_(seed) {}

  // All extents, for the first upload.
  std::vector<Content> Create() {
    std::vector<Content> all;
    for (uint32_t extent = 0; extent < format::ExtentCount(kPageSize, page_count()); ++extent) {
      all.push_back(Change(format::FirstPageOf(kPageSize, extent), format::PagesIn(kPageSize, page_count(), extent)));
    }
    return all;
  }
  // Some consecutive pages, as an application that appends or updates rows changes them.
  std::vector<Content> Mutate(uint32_t count) {
    std::vector<Content> changed;
    changed.push_back(Change(static_cast<uint32_t>(random_()) % (page_count() - count + 1) + 1, count));
    return changed;
  }
  std::string Root() const {
    format::RootBuilder root(kPageSize, page_count());
    for (uint32_t extent = 0; extent < format::ExtentCount(kPageSize, page_count()); ++extent) root.Add(extents_[extent]);
    return std::string(root.Finish().AsString());
  }
  uint32_t page_count() const { return static_cast<uint32_t>(pages_.size()); }

 private:
  Content Change(uint32_t first, uint32_t count) {
    thread_local format::ChunkCompressor compressor(1);
    Bytes raw(size_t{count} * kPageSize);
    FillPage(random_, raw);
    std::vector<format::PageDigest> digests;
    format::DigestPages(kPageSize, raw, digests);
    std::copy(digests.begin(), digests.end(), pages_.begin() + first - 1);
    extents_.resize(format::ExtentCount(kPageSize, page_count()));
    const uint32_t per = format::PagesPerExtent(kPageSize);
    for (uint32_t extent = (first - 1) / per; extent <= (first + count - 2) / per; ++extent) {
      const size_t at = size_t{extent} * per;
      extents_[extent] = format::NameChunk(kPageSize, std::span(pages_).subspan(at, format::PagesIn(kPageSize, page_count(), extent)));
    }
    Content content;
    const std::string name(format::NameChunk(kPageSize, digests).AsString());
    content.offer.set_name(name);
    v1::PageRun& run = *content.offer.add_runs();
    run.set_first_page(first);
    run.set_page_count(count);
    content.data.set_name(name);
    content.data.set_raw_bytes(static_cast<uint32_t>(raw.size()));
    const auto codec = compressor.Compress(raw, *content.data.mutable_data());
    content.data.set_codec(static_cast<v1::Codec>(codec.ok() ? *codec : format::Codec::kRaw));
    return content;
  }

  std::vector<format::PageDigest> pages_;
  std::vector<format::ChunkName> extents_;
  std::minstd_rand random_;
};

struct Uploaded {
  absl::Status status = absl::UnknownError("not ended");
  std::string snapshot;
};

// One upload from begin to committed.
class Upload final : public QueuedStream<v1::UploadRequest, v1::UploadResponse> {
 public:
  Upload(v1::AgentService::Stub& stub, v1::UploadRequest begin, std::vector<Content> contents, v1::UploadRequest commit, bool parts,
         std::function<void(Uploaded)> done)
      : stub_(stub),
        begin_(std::move(begin)),
        contents_(std::move(contents)),
        commit_(std::move(commit)),
        whole_(!parts && !begin_base_.empty()),
        done_(std::move(done)) {}

  void Start() {
    context()->set_deadline(std::chrono::system_clock::now() + kTimeout);
    stub_.async()->Upload(context(), this);
    Begin();
    if (whole_) return PostWhole();
    Post(std::move(begin_));
    if (!begin_base_.empty()) Offer();  // as an agent does that has a base
  }

 private:
  void FillOffer(v1::UploadOffer& offer) {
    offer.set_offer_id(1);
    for (const Content& content : contents_) *offer.add_chunks() = content.offer;
  }
  void Offer() {
    v1::UploadRequest request;
    FillOffer(*request.mutable_offer());
    Post(std::move(request));
  }
  void PostWhole() {
    v1::UploadRequest request;
    v1::UploadWhole& whole = *request.mutable_whole();
    *whole.mutable_begin() = std::move(*begin_.mutable_begin());
    FillOffer(*whole.mutable_offer());
    for (Content& content : contents_) *whole.mutable_chunks()->add_chunks() = std::move(content.data);
    *whole.mutable_commit() = std::move(*commit_.mutable_commit());
    Post(std::move(request));
  }
  bool Received(v1::UploadResponse& response) override {
    switch (response.message_case()) {
      case v1::UploadResponse::kAccepted:
        if (whole_) return Stop("did not take an upload as a whole");
        if (response.accepted().base_snapshot_id() != begin_base_) return Stop("took another base");
        if (begin_base_.empty()) Offer();
        break;
      case v1::UploadResponse::kMissing:
        for (const uint32_t position : response.missing().positions()) {
          v1::UploadRequest request;
          if (position >= contents_.size()) return Stop("wants a chunk that was not offered");
          *request.mutable_chunks()->add_chunks() = std::move(contents_[position].data);
          Post(std::move(request));
        }
        Post(std::move(commit_));
        break;
      case v1::UploadResponse::kCommitted:
        snapshot_ = response.committed().snapshot_id();
        Leave();
        break;
      default:
        break;
    }
    return true;
  }
  void Closed(absl::Status status) override {
    if (status.ok() && snapshot_.empty()) status = absl::UnknownError("the upload ended without a snapshot");
    done_({failure_.empty() ? std::move(status) : absl::InternalError(failure_), snapshot_});
  }

  bool Stop(const char* why) {
    failure_ = fmt::format("the controller {}", why);
    Abort();
    return true;
  }
  v1::AgentService::Stub& stub_;
  v1::UploadRequest begin_;
  const std::string begin_base_ = begin_.begin().base_snapshot_id();
  std::vector<Content> contents_;
  v1::UploadRequest commit_;
  const bool whole_;
  const std::function<void(Uploaded)> done_;
  std::string snapshot_;
  std::string failure_;
};

// Shared by all devices that upload.
struct Load {
  explicit Load(const Options& wanted) : options(wanted) {}
  const Options& options;
  std::atomic<bool> measuring{false};
  std::atomic<bool> stop{false};
  Mutex mu;
  CondVar changed;
  size_t based ABSL_GUARDED_BY(mu) = 0;
  size_t running ABSL_GUARDED_BY(mu) = 0;
  std::vector<double> latencies ABSL_GUARDED_BY(mu);  // seconds, of commits that began and ended while measured
  absl::Status status ABSL_GUARDED_BY(mu);
};

class Uploader {
 public:
  Uploader(Load& load, Device& device, unsigned seed) : load_(load), device_(device), database_(load.options.base_pages, seed) {}

  void Next() {
    const bool first = snapshot_.empty();
    v1::UploadRequest begin;
    begin.mutable_begin()->set_session_id(NewUlid(clock_.Now()));
    begin.mutable_begin()->set_database("main");
    begin.mutable_begin()->set_timeline(1);
    // The first is a backup, the deltas are syncs of continuous capture: nobody else sends such small ones so often.
    begin.mutable_begin()->set_method(first ? v1::METHOD_ONLINE : v1::METHOD_CONTINUOUS);
    begin.mutable_begin()->set_page_size(kPageSize);
    begin.mutable_begin()->set_page_count(database_.page_count());
    begin.mutable_begin()->set_base_snapshot_id(snapshot_);
    begin.mutable_begin()->set_base_root_digest(root_);
    std::vector<Content> contents = first ? database_.Create() : database_.Mutate(load_.options.delta_pages);
    root_ = database_.Root();
    v1::UploadRequest commit;
    commit.mutable_commit()->set_page_size(kPageSize);
    commit.mutable_commit()->set_page_count(database_.page_count());
    commit.mutable_commit()->set_root_digest(root_);
    commit.mutable_commit()->set_root_version(format::kRootVersion);
    commit.mutable_commit()->set_journal_mode(v1::JOURNAL_MODE_WAL);
    commit.mutable_commit()->set_source_check(v1::CHECK_STATE_UNKNOWN);
    commit.mutable_commit()->mutable_age()->set_seconds(0);
    commit.mutable_commit()->set_pages_sent(first ? database_.page_count() : load_.options.delta_pages);
    const bool measured = load_.measuring;
    const SteadyTime start = clock_.Steady();
    const auto done = [this, first, measured, start](Uploaded uploaded) { Done(first, measured, start, std::move(uploaded)); };
    std::make_shared<Upload>(*device_.stub, std::move(begin), std::move(contents), std::move(commit), load_.options.parts, done)->Start();
  }

 private:
  void Done(bool first, bool measured, SteadyTime start, Uploaded uploaded) {
    const double took = duration<double>(clock_.Steady() - start).count();
    {
      MutexLock lock(load_.mu);
      if (!uploaded.status.ok()) {
        load_.status.Update(uploaded.status);
        load_.stop = true;
      }
      if (first) ++load_.based;
      if (measured && load_.measuring && uploaded.status.ok()) load_.latencies.push_back(took);
      if (load_.stop) {
        --load_.running;
        load_.changed.SignalAll();
        return;
      }
      load_.changed.SignalAll();
    }
    snapshot_ = std::move(uploaded.snapshot);
    Next();
  }

  Load& load_;
  Device& device_;
  const RealClock clock_;
  Database database_;
  std::string snapshot_;
  std::string root_;
};

void Sleep(int count) { std::this_thread::sleep_for(seconds(count)); }

// What was committed since the last time.
void TellInterval(Load& load) {
  std::vector<double> latencies;
  {
    MutexLock lock(load.mu);
    latencies.swap(load.latencies);
  }
  const double longest = latencies.empty() ? 0 : *std::max_element(latencies.begin(), latencies.end());
  fmt::print("{{\"commits\":{},\"longest_ms\":{:.2f}}}\n", latencies.size(), 1000 * longest);
  std::fflush(stdout);
}

absl::Status RunCommits(const Options& options, std::vector<Device>& devices) {
  Load load(options);
  std::vector<std::unique_ptr<Uploader>> uploaders;
  for (size_t i = 0; i < devices.size(); ++i)
    uploaders.push_back(std::make_unique<Uploader>(load, devices[i], static_cast<unsigned>(i) + 1));
  {
    MutexLock lock(load.mu);
    load.running = devices.size();
  }
  for (const auto& uploader : uploaders) uploader->Next();
  {
    MutexLock lock(load.mu);
    while (load.based < devices.size() && !load.stop) load.changed.Wait(load.mu);
  }
  if (!load.stop) Sleep(options.warm_seconds);
  fmt::print("{{\"ready\":{}}}\n", devices.size());
  std::fflush(stdout);
  const auto start = std::chrono::steady_clock::now();
  load.measuring = true;
  for (int i = 0; i < options.seconds && !load.stop; ++i) {
    Sleep(1);
    if (options.every_seconds > 0 && (i + 1) % options.every_seconds == 0) TellInterval(load);
  }
  std::vector<double> latencies;
  absl::Status status;
  const double took = duration<double>(std::chrono::steady_clock::now() - start).count();
  {
    MutexLock lock(load.mu);
    load.measuring = false;
    load.stop = true;
    latencies = load.latencies;
    status = load.status;
    fmt::print("{{\"ended\":{}}}\n", latencies.size());
    std::fflush(stdout);
    while (load.running > 0) load.changed.Wait(load.mu);
  }
  LF_RETURN_IF_ERROR(status);
  std::sort(latencies.begin(), latencies.end());
  const auto at = [&](double share) {
    return latencies.empty()
               ? 0.0
               : 1000 * latencies[std::min(latencies.size() - 1, static_cast<size_t>(share * static_cast<double>(latencies.size())))];
  };
  fmt::print("{{\"commits\":{},\"seconds\":{:.3f},\"p50_ms\":{:.2f},\"p99_ms\":{:.2f},\"longest_ms\":{:.2f}}}\n", latencies.size(), took,
             at(0.5), at(0.99), at(1));
  return absl::OkStatus();
}

// The control stream of a device that has nothing to do: it says hello, and its health when the controller wants it.
class Control final : public rpc::ClientStream<v1::ControlRequest, v1::ControlResponse> {
 public:
  Control(Device& device, std::atomic<size_t>& welcomed, std::atomic<size_t>& closed)
      : device_(device), welcomed_(welcomed), closed_(closed) {}
  void Start() {
    device_.stub->async()->Control(context(), this);
    Begin();
    v1::ControlRequest request;
    v1::Hello& hello = *request.mutable_hello();
    hello.set_protocol_version(1);
    hello.set_agent_version(LITEFLEET_VERSION);
    hello.set_platform("load");
    hello.set_boot_id("load");
    hello.mutable_device_time()->set_seconds(std::chrono::duration_cast<seconds>(RealClock().Now().time_since_epoch()).count());
    v1::DatabaseHealth& database = *hello.add_databases();
    database.set_name("main");
    database.set_path("/var/lib/app/main.db");
    database.set_present(true);
    Send(std::move(request));
  }

 private:
  bool Received(v1::ControlResponse& response) override {
    if (response.has_welcome()) ++welcomed_;
    return true;
  }
  void Written() override {}
  void Closed(absl::Status status) override {
    if (closed_++ == 0) fmt::print(stderr, "fleet_load: a control stream ended: {}\n", MessageOf(status));
  }

  Device& device_;
  std::atomic<size_t>& welcomed_;
  std::atomic<size_t>& closed_;
};

absl::Status RunIdle(const Options& options, std::vector<Device>& devices) {
  constexpr size_t kConnecting = 200;  // at once: more would run into the handshake's deadline
  std::atomic<size_t> welcomed{0};
  std::atomic<size_t> closed{0};
  std::vector<std::shared_ptr<Control>> streams;
  for (Device& device : devices) {
    const auto deadline = std::chrono::steady_clock::now() + kTimeout;
    while (streams.size() >= welcomed + kConnecting && closed == 0) {
      if (std::chrono::steady_clock::now() > deadline) return absl::DeadlineExceededError("the controller does not welcome devices");
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    streams.push_back(std::make_shared<Control>(device, welcomed, closed));
    streams.back()->Start();
  }
  const auto deadline = std::chrono::steady_clock::now() + kTimeout;
  while (welcomed < devices.size() && closed == 0 && std::chrono::steady_clock::now() < deadline) Sleep(1);
  if (welcomed < devices.size())
    return absl::UnavailableError(fmt::format("{} of {} devices are connected", welcomed.load(), devices.size()));
  fmt::print("{{\"ready\":{}}}\n", devices.size());
  std::fflush(stdout);
  Sleep(options.seconds);
  const size_t lost = closed;
  fmt::print("{{\"connected\":{},\"lost\":{}}}\n", welcomed.load() - lost, lost);
  std::fflush(stdout);
  for (const auto& stream : streams) stream->Abort();
  return lost == 0 ? absl::OkStatus() : absl::UnavailableError(fmt::format("{} streams ended", lost));
}

int Main(int argc, char** argv) {
  CLI::App app("Many devices in one process");
  app.require_subcommand(1);
  Options options;
  CLI::App* commits = app.add_subcommand("commits", "Each device uploads one small delta after the other");
  CLI::App* idle = app.add_subcommand("idle", "Each device holds a control stream and has nothing to do");
  for (CLI::App* command : {commits, idle}) {
    command->add_option("--controller", options.controller)->required();
    command->add_option("--token-file", options.token_file)->required();
    command->add_option("--devices", options.devices)->check(CLI::Range(1, 100'000));
    command->add_option("--seconds", options.seconds);
    command->add_option("--prefix", options.prefix, "of the devices' names");
  }
  commits->add_option("--warm", options.warm_seconds, "seconds before the measured time");
  commits->add_flag("--parts", options.parts, "deltas as an older agent sends them");
  commits->add_option("--every-seconds", options.every_seconds, "print what was committed in so many, in place of all together");
  commits->add_option("--base-pages", options.base_pages);
  commits->add_option("--pages", options.delta_pages, "of a delta");
  CLI11_PARSE(app, argc, argv);
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
  }
  const rpc::GrpcRuntime runtime;
  auto devices = std::make_unique<std::vector<Device>>();
  absl::Status status = EnrollAll(options, *devices);
  if (status.ok()) status = *commits ? RunCommits(options, *devices) : RunIdle(options, *devices);
  if (!status.ok()) fmt::print(stderr, "fleet_load: {}\n", MessageOf(status));
  rpc::EndProcess(status.ok() ? 0 : 1);
}

}  // namespace
}  // namespace litefleet

int main(int argc, char** argv) { return litefleet::Main(argc, argv); }
