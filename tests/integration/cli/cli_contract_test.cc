// The program litefleet itself, run against an admin service that answers whatever a test wants: exit codes, JSON, pages, broken streams.
#include <fcntl.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "common/rpc/status.h"
#include "fmt/format.h"
#include "litefleet/v1/admin_service.grpc.pb.h"

extern char** environ;

namespace litefleet {
namespace {

using grpc::ServerContext;
using grpc::Status;

constexpr char kOperation[] = "01J9ZK00000000000000000001";
constexpr char kSnapshot[] = "01J9ZK00000000000000000002";

Status Failure(absl::StatusCode code, const char* reason) { return rpc::ToGrpc(Error(code, reason, "it went wrong", "do better")); }

v1::Operation Backup(v1::OperationState state) {
  v1::Operation operation;
  operation.set_id(kOperation);
  operation.set_kind(v1::OPERATION_KIND_BACKUP);
  operation.set_state(state);
  operation.set_device_id("d");
  operation.set_device_name("kiosk");
  operation.set_database("orders");
  operation.set_device_connected(true);
  if (state == v1::OPERATION_STATE_SUCCEEDED) operation.set_snapshot_id(kSnapshot);
  return operation;
}

class FakeAdmin final : public v1::AdminService::Service {
 public:
  Status GetStatus(ServerContext*, const v1::GetStatusRequest*, v1::GetStatusResponse*) override { return status; }
  Status ListDevices(ServerContext*, const v1::ListDevicesRequest* request, v1::ListDevicesResponse* response) override {
    const int first = request->page_token().empty() ? 0 : std::stoi(request->page_token());
    for (int i = first; i < std::min(first + 2, devices); ++i) {
      v1::Device* device = response->add_devices();
      device->set_name(fmt::format("d{}", i));
      device->set_state(v1::DEVICE_STATE_ACTIVE);
    }
    if (first + 2 < devices) response->set_next_page_token(std::to_string(first + 2));
    return Status::OK;
  }
  Status StartBackups(ServerContext*, const v1::StartBackupsRequest* request, v1::StartBackupsResponse* response) override {
    if (!status.ok()) return status;
    for (int i = 0; i < request->databases_size(); ++i) *response->add_operations() = operation;
    return Status::OK;
  }
  Status GetOperation(ServerContext*, const v1::GetOperationRequest*, v1::GetOperationResponse* response) override {
    *response->mutable_operation() = operation;
    return Status::OK;
  }
  Status GetSnapshot(ServerContext*, const v1::GetSnapshotRequest*, v1::GetSnapshotResponse* response) override {
    *response->mutable_snapshot() = snapshot;
    return Status::OK;
  }
  Status WatchOperation(ServerContext* context, const v1::WatchOperationRequest*,
                        grpc::ServerWriter<v1::WatchOperationResponse>* writer) override {
    return watch(++watches, *context, *writer);
  }
  Status DownloadSnapshot(ServerContext*, const v1::DownloadSnapshotRequest*,
                          grpc::ServerWriter<v1::DownloadSnapshotResponse>* writer) override {
    v1::DownloadSnapshotResponse message;
    *message.mutable_header()->mutable_snapshot() = snapshot;
    writer->Write(message);
    for (size_t at = 0; at < data.size(); at += 262'144) {
      message.mutable_pages()->set_codec(v1::CODEC_RAW);
      message.mutable_pages()->set_data(data.substr(at, 262'144));
      message.mutable_pages()->set_raw_bytes(static_cast<uint32_t>(message.pages().data().size()));
      writer->Write(message);
    }
    return status;
  }
  Status PlanRestore(ServerContext*, const v1::PlanRestoreRequest*, v1::PlanRestoreResponse* response) override {
    response->set_target("kiosk/orders");
    *response->mutable_snapshot() = snapshot;
    response->mutable_plan()->set_mode(v1::RESTORE_MODE_LIVE);
    response->mutable_plan()->set_from_device(true);
    return Status::OK;
  }
  Status StartRestore(ServerContext*, const v1::StartRestoreRequest* request, v1::StartRestoreResponse* response) override {
    ++restores;
    mode = request->restore().mode();
    *response->mutable_operation() = operation;
    response->mutable_operation()->set_kind(v1::OPERATION_KIND_RESTORE);
    return Status::OK;
  }

  Status PlanUndo(ServerContext*, const v1::PlanUndoRequest*, v1::PlanUndoResponse* response) override {
    response->set_target("kiosk/orders");
    response->mutable_plan()->set_kept_by(kOperation);
    return Status::OK;
  }
  Status StartUndo(ServerContext*, const v1::StartUndoRequest*, v1::StartUndoResponse*) override {
    ++undos;
    return Failure(absl::StatusCode::kInternal, "UNDONE");
  }

  Status status;
  int devices = 0;
  v1::Operation operation;
  v1::Snapshot snapshot;
  std::string data;
  std::atomic<int> watches = 0;
  std::atomic<int> restores = 0;
  std::atomic<int> undos = 0;
  v1::RestoreMode mode = v1::RESTORE_MODE_UNSPECIFIED;
  std::function<Status(int, ServerContext&, grpc::ServerWriter<v1::WatchOperationResponse>&)> watch;
};

struct Result {
  int code = -1;
  std::string out, err;
};

class CliContract : public testing::Test {
 protected:
  CliContract() {
    char name[] = "/tmp/litefleet-clic-XXXXXX";
    directory_ = mkdtemp(name);
    Serve();
  }
  ~CliContract() override {
    server_->Shutdown(std::chrono::system_clock::now());
    std::filesystem::remove_all(directory_);
  }
  void Serve() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("unix:" + directory_ + "/admin.sock", grpc::InsecureServerCredentials());
    builder.RegisterService(&admin_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
  }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  pid_t Start(std::vector<std::string> args) {
    args.insert(args.begin(), {LITEFLEET_PROGRAM, "--data", directory_});
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, Path("out").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&files, 2, Path("err").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid = -1;
    EXPECT_EQ(posix_spawn(&pid, LITEFLEET_PROGRAM, &files, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&files);
    return pid;
  }
  Result End(pid_t pid) {
    int status = 0;
    EXPECT_EQ(waitpid(pid, &status, 0), pid);
    Result result;
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    result.out = io::ReadFile(Path("out")).value();
    result.err = io::ReadFile(Path("err")).value();
    return result;
  }
  Result Run(std::vector<std::string> args) { return End(Start(std::move(args))); }

  void HaveSnapshot() {
    admin_.data.resize(600 * 1024);
    for (size_t i = 0; i < admin_.data.size(); ++i) admin_.data[i] = static_cast<char>(i * 2654435761U >> 11);
    format::RootBuilder root(4096, 150);
    for (size_t at = 0; at < admin_.data.size(); at += format::kExtentBytes)
      root.Add(format::NameChunkOf(4096, AsBytes(std::string_view(admin_.data).substr(at, format::kExtentBytes))));
    admin_.snapshot.set_id(kSnapshot);
    admin_.snapshot.set_device_name("kiosk");
    admin_.snapshot.set_database("orders");
    admin_.snapshot.set_page_size(4096);
    admin_.snapshot.set_page_count(150);
    admin_.snapshot.set_size_bytes(static_cast<int64_t>(admin_.data.size()));
    admin_.snapshot.set_root_digest(std::string(root.Finish().AsString()));
  }

  std::string directory_;
  FakeAdmin admin_;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(CliContract, ErrorsHaveTheirExitCodesAndJson) {
  const std::pair<absl::StatusCode, int> kCodes[] = {{absl::StatusCode::kInternal, 1},        {absl::StatusCode::kInvalidArgument, 2},
                                                     {absl::StatusCode::kNotFound, 4},        {absl::StatusCode::kPermissionDenied, 5},
                                                     {absl::StatusCode::kUnauthenticated, 5}, {absl::StatusCode::kFailedPrecondition, 6},
                                                     {absl::StatusCode::kUnavailable, 7},     {absl::StatusCode::kDataLoss, 8}};
  for (const auto& [code, exit] : kCodes) {
    admin_.status = Failure(code, "SOME_REASON");
    const Result result = Run({"status", "-o", "json"});
    EXPECT_EQ(result.code, exit) << result.err;
    EXPECT_EQ(result.out, "");
    EXPECT_NE(result.err.find("\"reason\":\"SOME_REASON\",\"message\":\"it went wrong\",\"hint\":\"do better\"}}"), std::string::npos)
        << result.err;
  }
  EXPECT_EQ(Run({"status"}).err, "error: it went wrong\n  hint: do better\n");
}

TEST_F(CliContract, ListsFetchAllPages) {
  EXPECT_EQ(Run({"device", "list", "-o", "json"}).out, "{\"schema\":1,\"kind\":\"device_list\",\"items\":[],\"next_page_token\":null}\n");
  admin_.devices = 5;
  EXPECT_EQ(Run({"-o", "name", "device", "list"}).out, "d0\nd1\nd2\nd3\nd4\n");
}

TEST_F(CliContract, AWatchThatBreaksIsBegunAgain) {
  admin_.operation = Backup(v1::OPERATION_STATE_RUNNING);
  admin_.watch = [&](int nth, ServerContext&, auto& writer) {
    v1::WatchOperationResponse message;
    *message.mutable_operation() = Backup(nth < 3 ? v1::OPERATION_STATE_RUNNING : v1::OPERATION_STATE_SUCCEEDED);
    writer.Write(message);
    return nth < 3 ? Status(grpc::StatusCode::UNAVAILABLE, "gone") : Status::OK;
  };
  const Result result = Run({"backup", "kiosk/orders", "-o", "json"});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(admin_.watches, 3);
  EXPECT_TRUE(
      result.out.starts_with(fmt::format("{{\"schema\":1,\"document\":\"operation\",\"id\":\"{}\",\"kind\":\"backup\"", kOperation)))
      << result.out;
  EXPECT_NE(result.out.find(fmt::format("\"snapshot\":\"{}\"", kSnapshot)), std::string::npos);
  const Result name = Run({"backup", "kiosk/orders", "-o", "name"});
  EXPECT_EQ(name.out, std::string(kSnapshot) + "\n");
}

TEST_F(CliContract, AnOperationsEndIsTheExitCode) {
  admin_.operation = Backup(v1::OPERATION_STATE_QUEUED);
  v1::Operation failed = Backup(v1::OPERATION_STATE_FAILED);
  failed.mutable_error()->set_code(9);
  failed.mutable_error()->set_message("cannot be opened");
  failed.mutable_error()->mutable_info()->set_reason("DATABASE_DAMAGED");
  failed.mutable_error()->mutable_info()->set_hint("use --mode replace");
  admin_.watch = [&](int, ServerContext&, auto& writer) {
    v1::WatchOperationResponse message;
    *message.mutable_operation() = failed;
    writer.Write(message);
    return Status::OK;
  };
  Result result = Run({"restore", "kiosk/orders", "--yes", "--mode", "live", "-o", "json"});
  EXPECT_EQ(result.code, 6);
  EXPECT_EQ(admin_.mode, v1::RESTORE_MODE_LIVE);
  EXPECT_NE(result.out.find("\"state\":\"failed\""), std::string::npos) << "the document is printed";
  EXPECT_NE(result.err.find("--mode replace"), std::string::npos);
  result = Run({"operation", "watch", kOperation, "-o", "json"});
  EXPECT_EQ(result.code, 6);
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << result.out;
}

// A controller that knows undos alone is not taken to undo instead: the call has a name of its own.
TEST_F(CliContract, AnOlderControllerDropsNoUndoAndUndoesNothing) {
  for (const bool named : {true, false}) {
    std::vector<std::string> args{"undo", "kiosk/orders", "--drop", "--yes", "-o", "json"};
    if (named) args.insert(args.end(), {"--restore", kOperation});
    const Result result = Run(args);
    EXPECT_NE(result.code, 0);
    EXPECT_NE(result.err.find("VERSION_MISMATCH"), std::string::npos) << result.err;
  }
  EXPECT_EQ(admin_.undos, 0);
}

TEST_F(CliContract, AnOfflineDeviceEndsTheWaitNotTheOperation) {
  admin_.operation = Backup(v1::OPERATION_STATE_QUEUED);
  admin_.operation.set_device_connected(false);
  admin_.watch = [&](int, ServerContext& context, auto& writer) {
    v1::WatchOperationResponse message;
    *message.mutable_operation() = admin_.operation;
    writer.Write(message);
    while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return Status::CANCELLED;
  };
  const Result result = Run({"backup", "kiosk/orders", "--timeout", "1s"});
  EXPECT_EQ(result.code, 7);
  EXPECT_NE(result.err.find("stays queued"), std::string::npos) << result.err;
  EXPECT_NE(result.err.find(kOperation), std::string::npos);
  const Result detached = Run({"backup", "kiosk/orders", "--detach", "-o", "json"});
  EXPECT_EQ(detached.code, 0);
  EXPECT_NE(detached.out.find("\"state\":\"queued\""), std::string::npos);
}

TEST_F(CliContract, ADeviceThatBlinksDoesNotMakeTheTimeoutBeginAnew) {
  admin_.operation = Backup(v1::OPERATION_STATE_RUNNING);
  admin_.watch = [&](int, ServerContext& context, auto& writer) {
    v1::WatchOperationResponse message;
    *message.mutable_operation() = admin_.operation;
    for (bool connected = false; !context.IsCancelled(); connected = !connected) {
      message.mutable_operation()->set_device_connected(connected);
      writer.Write(message);
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
    }
    return Status::CANCELLED;
  };
  const Result result = Run({"backup", "kiosk/orders", "--timeout", "1s"});
  EXPECT_EQ(result.code, 7);
  EXPECT_NE(result.err.find("goes on when it connects"), std::string::npos) << result.err;
}

TEST_F(CliContract, WordsOfADeviceCannotDriveTheTerminal) {
  admin_.operation = Backup(v1::OPERATION_STATE_FAILED);
  admin_.operation.mutable_error()->set_code(13);
  admin_.operation.mutable_error()->set_message("fdp.\u202egnp\033[2J\nno alarms");
  const Result text = Run({"operation", "show", kOperation});
  EXPECT_NE(text.out.find("fdp.\\u202egnp\\u001b[2J no alarms"), std::string::npos) << text.out;
  const Result json = Run({"operation", "show", kOperation, "-o", "json"});
  EXPECT_NE(json.out.find("\"message\":\"fdp.\\u202egnp\\u001b[2J\\nno alarms\""), std::string::npos) << json.out;
}

TEST_F(CliContract, WhatIsNamedWronglyIsAnErrorOfVersionToo) {
  const Result address = Run({"--server", "http://x:1", "version"});
  EXPECT_EQ(address.code, 2);
  EXPECT_TRUE(address.out.starts_with("litefleet ")) << "its own version it says all the same";
  EXPECT_NE(address.err.find("http://x:1"), std::string::npos) << address.err;
  const Result identity = Run({"--server", "localhost:1", "--identity", Path("nope.pem"), "status"});
  EXPECT_EQ(identity.code, 4);
  EXPECT_NE(identity.err.find("hint: name the file with key, certificate and CA"), std::string::npos) << identity.err;
}

TEST_F(CliContract, CtrlCDetachesAndSaysHowToGoOn) {
  admin_.operation = Backup(v1::OPERATION_STATE_RUNNING);
  admin_.watch = [&](int, ServerContext& context, auto& writer) {
    v1::WatchOperationResponse message;
    *message.mutable_operation() = admin_.operation;
    writer.Write(message);
    while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return Status::CANCELLED;
  };
  const pid_t pid = Start({"backup", "kiosk/orders"});
  while (admin_.watches == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  kill(pid, SIGINT);
  const Result result = End(pid);
  EXPECT_EQ(result.code, 130);
  EXPECT_NE(result.err.find(fmt::format("litefleet operation watch {}", kOperation)), std::string::npos) << result.err;
  EXPECT_NE(result.err.find(fmt::format("litefleet operation cancel {}", kOperation)), std::string::npos);
}

TEST_F(CliContract, WhatDestroysNeedsYesWithoutATerminal) {
  HaveSnapshot();
  admin_.operation = Backup(v1::OPERATION_STATE_RUNNING);
  const Result refused = Run({"restore", "kiosk/orders"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_NE(refused.err.find("--yes"), std::string::npos);
  EXPECT_EQ(admin_.restores, 0);
  const Result plan = Run({"restore", "kiosk/orders", "--plan"});
  EXPECT_EQ(plan.code, 0);
  EXPECT_NE(plan.out.find("restore of kiosk/orders (live)"), std::string::npos) << plan.out;
  EXPECT_EQ(admin_.restores, 0);
}

TEST_F(CliContract, DownloadsAreProvenBeforeTheyGetTheirName) {
  HaveSnapshot();
  ASSERT_EQ(Run({"snapshot", "download", kSnapshot, "--output", Path("a.db")}).code, 0);
  EXPECT_EQ(io::ReadFile(Path("a.db")).value(), admin_.data);
  EXPECT_EQ(Run({"snapshot", "download", kSnapshot, "--output", Path("a.db")}).code, 6) << "it exists";
  EXPECT_EQ(Run({"snapshot", "download", kSnapshot, "--output", Path("a.db"), "--force"}).code, 0);
  const Result piped = Run({"snapshot", "download", kSnapshot, "--output", "-"});
  EXPECT_EQ(piped.code, 0);
  EXPECT_EQ(piped.out, admin_.data);

  const std::string good = admin_.data;
  const auto fails = [&](const char* what) {
    const Result result = Run({"snapshot", "download", kSnapshot, "--output", Path("b.db")});
    EXPECT_EQ(result.code, 8) << what << ": " << result.err;
    EXPECT_FALSE(io::Exists(Path("b.db"))) << what;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) EXPECT_NE(entry.path().extension(), ".part") << what;
  };
  admin_.data[300'000] ^= 1;
  fails("a flipped bit");
  EXPECT_EQ(Run({"snapshot", "download", kSnapshot, "--output", "-"}).code, 8);
  admin_.data = good.substr(0, good.size() - 4096);
  fails("a part is missing");
  admin_.data = good + std::string(4096, 'x');
  fails("more than there is");
  admin_.data = good;
  admin_.status = Failure(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED");
  fails("an error after all data");
  admin_.status = Status::OK;
  EXPECT_EQ(Run({"snapshot", "download", kSnapshot, "--output", Path("no/such/b.db")}).code, 4);
}

TEST_F(CliContract, WithoutAControllerItIs7AndWithoutPermission5) {
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  std::filesystem::remove(Path("admin.sock"));
  const Result gone = Run({"status"});
  EXPECT_EQ(gone.code, 7);
  EXPECT_NE(gone.err.find("hint:"), std::string::npos);
  std::ofstream(Path("admin.sock")) << "no socket";
  EXPECT_EQ(Run({"status"}).code, 2);
  EXPECT_EQ(Run({"version"}).code, 0) << "its own version it always knows";
}

}  // namespace
}  // namespace litefleet
