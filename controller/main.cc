// litefleet-controller: init, serve, host, operator, rebuild, export-keys, version.
#include <grpcpp/grpcpp.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "common/base/heap.h"
#include "common/base/status.h"
#include "common/io/admin_socket.h"
#include "common/io/named_file.h"
#include "common/obs/log.h"
#include "common/obs/notify.h"
#include "common/rpc/channel.h"
#include "common/usage/explain.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/identity/authority.h"
#include "controller/rebuild_command.h"
#include "controller/server.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr std::chrono::seconds kMaintainEvery{60};
constexpr unsigned kStopSeconds = 10;

constexpr int kUsage = 2;
constexpr int kPartly = 3;  // a rebuild that could not recover all

int ExitCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
      return kUsage;
    case absl::StatusCode::kNotFound:
      return 4;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return 5;
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
      return 6;
    case absl::StatusCode::kDataLoss:
      return 8;
    default:
      return 1;
  }
}

int Fail(const absl::Status& status) {
  fmt::print(stderr, "litefleet-controller: {}\n", MessageOf(status));
  if (const std::string hint = HintOf(status); !hint.empty()) fmt::print(stderr, "  {}\n", hint);
  return ExitCode(status.code());
}

absl::StatusOr<config::ControllerConfig> LoadConfig(const std::string& file, const std::string& listen) {
  config::ControllerConfig config;
  if (!file.empty()) {
    auto read = config::ReadControllerConfig(file);
    // Whatever is wrong with it, it is the configuration that is wrong.
    if (!read.ok()) return Error(absl::StatusCode::kInvalidArgument, "CONFIG_INVALID", MessageOf(read.status()), HintOf(read.status()));
    config = *std::move(read);
  }
  if (!listen.empty()) config.listen = listen;
  return config;
}

struct ServeArguments {
  std::string data, listen, config, ready_file;
};

void Reload(Server& server, const ServeArguments& arguments) {
  obs::NotifyReloading();
  const auto config = LoadConfig(arguments.config, arguments.listen);
  const absl::Status status = config.ok() ? server.Reload(*config) : config.status();
  if (status.ok()) {
    spdlog::info("configuration and certificates were read again");
  } else {
    spdlog::error("reload: {}; what was there stays", MessageOf(status));
  }
  obs::Notify("READY=1");
}

int Serve(const ServeArguments& arguments) {
  const auto config = LoadConfig(arguments.config, arguments.listen);
  if (!config.ok()) return Fail(config.status());
  if (!arguments.ready_file.empty()) {
    // Before anybody is served, and not after.
    if (const absl::Status ready = io::CheckNamedOutput(arguments.ready_file, "--ready-file"); !ready.ok()) return Fail(ready);
  }
  if (const absl::Status status = obs::SetupLog({config->log_level, config->log_format}); !status.ok()) return Fail(status);

  // Before the first thread: all of them inherit it, and this one alone takes the signals.
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);

  // Before SQLite is used. Counting what it allocates takes a lock of the whole process each time, and nobody asks for the sum.
  sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
  const rpc::GrpcRuntime grpc_runtime;
  auto server = Server::Start({DataDirectory{arguments.data}, *config, arguments.ready_file, arguments.config,
                               [&arguments] { return LoadConfig(arguments.config, arguments.listen); }});
  if (!server.ok()) return Fail(server.status());
  obs::Notify("READY=1");

  const auto watchdog = obs::WatchdogInterval();
  auto maintain_at = std::chrono::steady_clock::now() + kMaintainEvery;
  for (;;) {
    const auto wait = std::min<std::chrono::milliseconds>(watchdog.value_or(kMaintainEvery), kMaintainEvery);
    const timespec timeout{static_cast<time_t>(wait.count() / 1000), static_cast<long>(wait.count() % 1000) * 1'000'000};
    const int signal = sigtimedwait(&signals, nullptr, &timeout);
    if (watchdog.has_value()) obs::Notify("WATCHDOG=1");
    if (signal == SIGTERM || signal == SIGINT) break;
    if (signal == SIGHUP) Reload(**server, arguments);
    if (std::chrono::steady_clock::now() >= maintain_at) {
      (*server)->Maintain();
      maintain_at = std::chrono::steady_clock::now() + kMaintainEvery;
    }
  }
  spdlog::info("stopping");
  obs::Notify("STOPPING=1");
  // A second signal ends the process at once, and so does time.
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  alarm(kStopSeconds);
  server->reset();
  spdlog::info("stopped");
  return 0;
}

absl::Status RunExportKeys(const DataDirectory& data, const std::string& passphrase_file, const std::string& output) {
  LF_ASSIGN_OR_RETURN(const std::string passphrase, ReadPassphrase(passphrase_file, /*twice=*/true));
  LF_RETURN_IF_ERROR(ExportKeys(data, passphrase, output));
  fmt::print("the keys of the CA are in {}, encrypted with the passphrase; keep both apart from the store\n", output);
  return absl::OkStatus();
}

void PrintReport(const DataDirectory& data, const RebuildOutcome& outcome) {
  const rebuild::RebuildReport& report = outcome.report;
  const auto& things = report.things;
  fmt::print("read {} packs, {} records, {:.1f} MiB\n", report.packs, report.records, static_cast<double>(report.bytes) / 1048576);
  fmt::print("recovered {} devices, {} databases, {} snapshots, {} chunks, {} operators, {} policies\n", things.devices, things.databases,
             things.snapshots, things.chunks, things.operators, things.policies);
  if (report.damaged_bytes > 0) fmt::print("damaged: {} bytes of packs\n", report.damaged_bytes);
  if (report.snapshots_lost > 0) fmt::print("not recovered: {} snapshots\n", report.snapshots_lost);
  for (const auto* lines : {&report.problems, &things.notes}) {
    for (const std::string& line : *lines) fmt::print("  {}\n", line);
  }
  if (outcome.backup_made_at.has_value()) {
    fmt::print("from the catalog's backup of {}: {} operations ({} of them had not ended and count as failed), {} verdicts of checks\n",
               FormatRfc3339(*outcome.backup_made_at), outcome.history.operations, outcome.history.interrupted, outcome.history.verdicts);
  }
  for (const std::string& note : outcome.backup_notes) fmt::print("  {}\n", note);
  fmt::print("tokens that were made before are void\n");
  if (outcome.new_authority) fmt::print("the CA is a new one: every device must enrol again\n");
  if (!things.must_enroll_again.empty()) {
    fmt::print("devices that must enrol again (litefleet token create --for-device NAME):\n");
    for (const std::string& name : things.must_enroll_again) fmt::print("  {}\n", name);
  }
  if (outcome.new_operator) fmt::print("the first operator's new identity is in {}\n", data.admin_pem());
  fmt::print("next: litefleet-controller serve --data {}\n", data.path);
}

// Whether everything could be read and recovered: what stood in damaged bytes nobody knows.
absl::StatusOr<bool> RunRebuild(const DataDirectory& data, RebuildWish wish, const std::string& keys, const std::string& passphrase_file,
                                const Clock& clock) {
  if (!keys.empty()) {
    LF_ASSIGN_OR_RETURN(wish.keys, io::ReadNamedFile(keys,
                                                     {"--keys",
                                                      "name the file that `litefleet-controller export-keys` has written; without "
                                                      "--keys the CA is made anew, and every device has to enrol again"},
                                                     1 << 20));
    LF_ASSIGN_OR_RETURN(wish.passphrase, ReadPassphrase(passphrase_file, /*twice=*/false));
  }
  if (isatty(STDERR_FILENO) != 0) {
    wish.progress = [](uint64_t done, uint64_t total) {
      fmt::print(stderr, "\r{} of {} MiB{}", done >> 20, total >> 20, done == total ? "\n" : "");
    };
  }
  LF_ASSIGN_OR_RETURN(const RebuildOutcome outcome, RebuildDataDirectory(data, wish, clock));
  PrintReport(data, outcome);
  return outcome.report.problems.empty();
}

}  // namespace
}  // namespace litefleet

static int Main(int argc, char** argv) {
  using namespace litefleet;
  umask(0077);
  const char* from_environment = getenv("LITEFLEET_DATA");
  const std::string default_data = from_environment != nullptr && *from_environment != '\0' ? from_environment : io::kDefaultDataDirectory;

  CLI::App app("Stores, catalogs, proves and restores the backups of a fleet of SQLite databases.", "litefleet-controller");
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("litefleet-controller " LITEFLEET_VERSION));
  ServeArguments serve_arguments;
  std::string data = default_data, name, role = "admin", output;
  std::vector<std::string> hosts;
  bool allow_network = false;
  const auto add_data = [&](CLI::App* command) { command->add_option("--data", data, "The data directory")->capture_default_str(); };

  CLI::App* init = app.add_subcommand("init", "Make a data directory: CA, catalog, store, first operator");
  add_data(init);
  init->add_option("--host", hosts, "Name or address by which agents reach this controller; may be repeated");
  init->add_flag("--allow-network-file-system", allow_network, "Use a directory on NFS, SMB or the like all the same");

  CLI::App* serve = app.add_subcommand("serve", "Serve agents and operators");
  add_data(serve);
  serve->add_option("--listen", serve_arguments.listen, "HOST:PORT to listen on; port 0 takes a free one (default [::]:8742)");
  serve->add_option("--config", serve_arguments.config, "controller.toml");
  serve->add_option("--ready-file", serve_arguments.ready_file, "Written with HOST:PORT when serving, removed at the end");

  CLI::App* host = app.add_subcommand("host", "Change what the server's certificate names");
  host->require_subcommand(1);
  CLI::App* host_add = host->add_subcommand("add", "Certify another name or address");
  CLI::App* host_remove = host->add_subcommand("remove", "Certify a name or address no more");
  for (CLI::App* command : {host_add, host_remove}) {
    add_data(command);
    command->add_option("NAME", name, "Host name or IP address")->required();
  }

  CLI::App* operators = app.add_subcommand("operator", "Operators who connect from elsewhere");
  operators->require_subcommand(1);
  CLI::App* create = operators->add_subcommand("create", "Make an operator's identity file");
  add_data(create);
  create->add_option("NAME", name, "The operator's name")->required();
  create
      ->add_option("--role", role,
                   "What it may do: admin everything; viewer look at the fleet, but neither change anything nor download backups")
      ->check(CLI::IsMember({std::string(catalog::kAdminRole), std::string(catalog::kViewerRole)}))
      ->capture_default_str();
  create->add_option("--output", output, "The file to write")->required();

  CLI::App* revoke = operators->add_subcommand("revoke", "Make an operator's identity file worthless");
  add_data(revoke);
  revoke->add_option("NAME", name, "The operator's name")->required();

  std::string keys, passphrase_file;
  CLI::App* rebuild = app.add_subcommand("rebuild", "Make a lost catalog anew out of the packs of the store");
  add_data(rebuild);
  rebuild->add_option("--keys", keys, "Where the CA is lost as well: a file that export-keys has written");
  rebuild->add_option("--passphrase-file", passphrase_file, "File whose first line opens the keys; else the terminal is asked");
  rebuild->add_option("--host", hosts, "Name or address that a new CA certifies; may be repeated");

  CLI::App* export_keys = app.add_subcommand("export-keys", "Write the keys of the CA to a file, encrypted with a passphrase");
  add_data(export_keys);
  export_keys->add_option("--output", output, "The file to write")->required();
  export_keys->add_option("--passphrase-file", passphrase_file, "File whose first line is the passphrase; else the terminal is asked");

  CLI::App* version = app.add_subcommand("version", "Print the version");

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return error.get_exit_code() == 0 ? app.exit(error) : Fail(usage::Explain(app, error));
  }
  if (version->parsed()) {
    fmt::print("litefleet-controller {}\ngRPC {}\n", LITEFLEET_VERSION, grpc::Version());
    return 0;
  }
  const DataDirectory directory{data};
  const RealClock clock;
  if (serve->parsed()) {
    serve_arguments.data = data;
    return Serve(serve_arguments);
  }
  absl::Status status;
  if (init->parsed()) {
    status = InitDataDirectory(directory, hosts, allow_network, clock);
    if (status.ok()) {
      fmt::print("{} is ready: certificate authority, catalog, store, and the first operator in {}\n", data, directory.admin_pem());
      const auto authority = identity::Authority::Open(directory.ca());
      if (authority.ok()) fmt::print("certified hosts: {}\n", fmt::join((*authority)->hosts(), ", "));
      fmt::print("next: litefleet-controller serve --data {}\n", data);
    }
  } else if (rebuild->parsed()) {
    RebuildWish wish;
    wish.hosts = hosts;
    const absl::StatusOr<bool> all = RunRebuild(directory, std::move(wish), keys, passphrase_file, clock);
    if (all.ok() && !*all) return kPartly;
    status = all.status();
  } else if (export_keys->parsed()) {
    status = RunExportKeys(directory, passphrase_file, output);
  } else if (create->parsed()) {
    status = CreateOperator(directory, name, role, output, clock);
    if (status.ok()) fmt::print("operator {} is in {}; it holds a private key\n", name, output);
  } else if (revoke->parsed()) {
    status = RevokeOperator(directory, name, clock);
    if (status.ok()) fmt::print("operator {} may do nothing any more\n", name);
  } else {
    status = ChangeHost(directory, name, host_add->parsed());
    if (status.ok())
      fmt::print("{} is {}certified{}\n", name, host_add->parsed() ? "" : "no longer ",
                 directory.ServingPid() > 0 ? "; the running controller was told" : "");
  }
  return status.ok() ? 0 : Fail(status);
}

int main(int argc, char** argv) {
  // A commit opens up to 28 MiB of chunks, on any of 64 threads. In a heap for each few of them that adds up: 455 MiB after sixty deltas of
  // one device with 16 heaps on two cores, 156 MiB with two, in the same time.
  litefleet::SetUpHeap({.arenas = static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 2u, 8u)), .kept = 16 << 20});
  litefleet::rpc::EndProcess(Main(argc, argv));
}
