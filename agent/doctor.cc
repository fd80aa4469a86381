#include "agent/doctor.h"

#include <netdb.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "agent/capture/copied_files.h"
#include "agent/capture/database_header.h"
#include "agent/capture/files_source.h"
#include "agent/capture/lock_table.h"
#include "agent/capture/user_database.h"
#include "agent/control/controller_client.h"
#include "agent/json_text.h"
#include "agent/restore/in_use.h"
#include "agent/restore/target_place.h"
#include "agent/rules/order_rules.h"
#include "agent/state/identity.h"
#include "agent/state/state_directory.h"
#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/check/checker.h"
#include "common/crypto/server_chain.h"
#include "common/crypto/tls_peer.h"
#include "common/crypto/x509.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "fmt/ostream.h"

namespace litefleet {
namespace {

using Level = Finding::Level;

// A device that was never set, or a machine that forgot: nothing of this program existed then.
constexpr int64_t kPlausibleSeconds = 1'760'000'000;
constexpr int64_t kOffsetWarnMillis = 5'000;
// What a device reads at least; so long a backup in rollback-journal mode holds writers up.
constexpr uint64_t kReadBytesPerSecond = 200'000'000;

class Examination {
 public:
  std::vector<Finding> findings;

  void Add(Level level, std::string_view check, std::string message, std::string fix = {}, std::string subject = {}) {
    findings.push_back({level, std::string(check), std::move(subject), std::move(message), std::move(fix)});
  }
  void Fail(std::string_view check, const absl::Status& status, std::string_view fix, std::string subject = {}) {
    const std::string hint = HintOf(status);
    Add(Level::kFail, check, MessageOf(status), hint.empty() ? std::string(fix) : hint, std::move(subject));
  }
};

// Whatever the rule is: where others may write the file, they may take a rule that defends out of it.
void LookAtTrust(const std::string& config_path, const config::AgentConfig& config, Examination& found) {
  const absl::Status trusted = rules::OrderRules::CheckConfigFile(config_path);
  if (trusted.ok())
    return found.Add(Level::kOk, "configuration-trust", fmt::format("{} can be written by root and this user alone", config_path));
  const bool defends = std::any_of(config.databases.begin(), config.databases.end(), [](const config::DatabaseConfig& database) {
    return database.push_restore == "signed" || database.push_restore == "local-confirm";
  });
  found.Add(defends ? Level::kFail : Level::kWarn, "configuration-trust",
            MessageOf(trusted) + (defends ? "; restores from afar are refused" : ""), HintOf(trusted));
}

void LookAtState(const config::AgentConfig& config, Examination& found) {
  struct stat st {};
  if (stat(config.state.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) {
    return found.Add(Level::kFail, "state", fmt::format("there is no state directory {}", config.state),
                     "enrol this device: litefleet-agent enroll");
  }
  if (access(config.state.c_str(), R_OK | W_OK | X_OK) != 0) {
    return found.Add(Level::kFail, "state", fmt::format("{} may not be written by this user", config.state),
                     "run the agent as the owner of the directory");
  }
  if (const std::string name = io::NetworkFileSystemName(config.state); !name.empty() && !config.allow_network_file_system) {
    return found.Add(Level::kFail, "state", fmt::format("{} is on a network file system ({})", config.state, name),
                     "keep the state on a local disk");
  }
  if ((st.st_mode & 077) != 0) {
    found.Add(Level::kWarn, "state", fmt::format("{} can be read by others", config.state), fmt::format("chmod 700 {}", config.state));
  } else {
    found.Add(Level::kOk, "state", config.state);
  }
  const absl::StatusOr<uint64_t> free = io::FreeBytes(config.state);
  if (!free.ok()) return found.Fail("state-space", free.status(), "look at the disk");
  const absl::StatusOr<uint64_t> reserve = config.disk_reserve.At(config.state);
  if (!reserve.ok()) return found.Fail("state-space", reserve.status(), "look at the disk");
  if (*free < *reserve) {
    found.Add(Level::kFail, "state-space", fmt::format("{} MiB are free at {}, less than the reserve", *free >> 20, config.state),
              fmt::format("free at least {} MiB there, or lower `[limits] disk_reserve`", *reserve >> 20));
  } else {
    found.Add(Level::kOk, "state-space", fmt::format("{} MiB are free", *free >> 20));
  }
}

std::optional<state::DeviceIdentity> LookAtIdentity(const config::AgentConfig& config, const Clock& clock, Examination& found) {
  absl::StatusOr<state::DeviceIdentity> identity = state::LoadIdentity(config.state);
  if (!identity.ok()) {
    found.Fail("identity", identity.status(), "enrol this device: litefleet-agent enroll");
    return std::nullopt;
  }
  struct stat st {};
  const std::string key = config.state + "/identity/key.pem";
  if (stat(key.c_str(), &st) == 0 && (st.st_mode & 077) != 0) {
    found.Add(Level::kFail, "identity", fmt::format("{} can be read by others", key), fmt::format("chmod 600 {}", key));
  } else {
    found.Add(Level::kOk, "identity", fmt::format("{} ({})", identity->name, identity->device.value()));
  }
  const absl::StatusOr<SystemTime> expiry = state::ExpiryOf(*identity);
  const SystemTime now = clock.Now();
  if (!expiry.ok()) {
    found.Fail("certificate", expiry.status(), "enrol this device anew with a token made by --for-device");
  } else if (*expiry <= now) {
    found.Add(Level::kFail, "certificate", fmt::format("the certificate expired at {}", FormatRfc3339(*expiry)),
              "start the agent: it gets a new one by its key; or enrol anew with a token made by --for-device");
  } else if (*expiry - now < std::chrono::hours(24 * 25)) {
    // It should have been renewed by now.
    found.Add(Level::kWarn, "certificate", fmt::format("the certificate ends at {}", FormatRfc3339(*expiry)),
              "let the agent reach the controller: it renews by itself");
  } else {
    found.Add(Level::kOk, "certificate", fmt::format("valid until {}", FormatRfc3339(*expiry)));
  }
  return *std::move(identity);
}

// gRPC does not tell why a handshake failed, nor who refused whom: what is shown at the address is looked at without it.
void TellWhyNot(const rpc::Address& address, const state::DeviceIdentity& identity, const absl::Status& answer,
                std::chrono::milliseconds timeout, Examination& found) {
  const char* const reach = "look whether the controller runs, and whether a firewall is between";
  if (address.is_unix()) return found.Fail("tls", answer, reach);
  const absl::StatusOr<crypto::Certificate> root = crypto::CertificateFromPem(identity.ca_certificate);
  if (!root.ok()) return found.Fail("tls", root.status(), "enrol this device anew");
  const auto shown = crypto::ShownCertificates(address.host, address.port, timeout);
  if (absl::IsUnavailable(shown.status())) return found.Fail("tls", shown.status(), reach);
  if (!shown.ok()) {
    return found.Add(
        Level::kFail, "tls",
        fmt::format("what answers at {} does not speak TLS as a controller does: {}", address.Text(), MessageOf(shown.status())),
        "correct `controller` in the configuration: another program listens there");
  }
  const absl::Status trusted = crypto::CheckServerChain(*shown, **root, address.host);
  if (ReasonOf(trusted) == "CONTROLLER_UNTRUSTED") {
    return found.Add(
        Level::kFail, "tls",
        fmt::format("{} shows a certificate that the CA which this device knows has not signed: {}", address.Text(), MessageOf(trusted)),
        "correct `controller` in the configuration; where the controller was made anew, with another CA, enrol this device anew "
        "with a token of it and another state directory; else somebody is in between");
  }
  if (!trusted.ok()) return found.Fail("tls", trusted, "use a name that the certificate has");
  found.Add(
      Level::kFail, "tls",
      fmt::format("{} is the controller of this device, and ended the connection: {}", address.Text(), MessageOf(answer)),
      "look at `certificate` above, and into the controller's log: it refuses certificates that have ended or that its CA did not sign");
}

void LookAtController(const config::AgentConfig& config, const std::optional<state::DeviceIdentity>& identity,
                      std::chrono::milliseconds timeout, Examination& found) {
  if (!config.controller.is_unix()) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* addresses = nullptr;
    const int error = getaddrinfo(config.controller.host.c_str(), nullptr, &hints, &addresses);
    if (error != 0) {
      return found.Add(Level::kFail, "name-resolution", fmt::format("{} has no address: {}", config.controller.host, gai_strerror(error)),
                       "correct `controller` in the configuration, or the name servers of this device");
    }
    freeaddrinfo(addresses);
    found.Add(Level::kOk, "name-resolution", fmt::format("{} has an address", config.controller.host));
  }
  if (!identity) return;
  const rpc::ChannelOptions options{config.controller,
                                    {identity->private_key, identity->certificate_chain, identity->ca_certificate},
                                    "litefleet-agent/" LITEFLEET_VERSION};
  const absl::Status answer = control::ProbeController(options, timeout);
  if (answer.ok())
    return found.Add(Level::kOk, "tls", fmt::format("{} answers, and is the controller of this device", config.controller.Text()));
  TellWhyNot(config.controller, *identity, answer, timeout, found);
}

void LookAtClock(const config::AgentConfig& config, const Clock& clock, Examination& found) {
  const SystemTime now = clock.Now();
  const char* fix = "set the clock, for instance by systemd-timesyncd or chrony; backups go on meanwhile";
  if (ToUnixMillis(now) / 1000 < kPlausibleSeconds) {
    return found.Add(Level::kWarn, "clock", fmt::format("the clock says {}", FormatRfc3339(now)), fix);
  }
  const absl::StatusOr<state::StateDirectory> state = state::StateDirectory::Open(config.state);
  const auto connection = state.ok() ? state->ReadConnection() : std::nullopt;
  if (!connection || connection->welcomed_at_ms() == 0)
    return found.Add(Level::kOk, "clock", fmt::format("{}, not compared with a controller yet", FormatRfc3339(now)));
  const int64_t offset = connection->clock_offset_ms();
  if (offset > kOffsetWarnMillis || offset < -kOffsetWarnMillis) {
    return found.Add(Level::kWarn, "clock", fmt::format("it differed from the controller's by {} ms when they last spoke", offset), fix);
  }
  found.Add(Level::kOk, "clock", fmt::format("{} ms from the controller's", offset));
}

void LookAtSpace(const config::AgentConfig& config, const config::DatabaseConfig& database, uint64_t size, Examination& found) {
  const absl::StatusOr<uint64_t> free = io::FreeBytes(io::DirectoryOf(database.path));
  if (!free.ok()) return found.Fail("database-space", free.status(), "look at the disk", database.name);
  const absl::StatusOr<uint64_t> reserve = config.disk_reserve.At(io::DirectoryOf(database.path));
  if (!reserve.ok()) return found.Fail("database-space", reserve.status(), "look at the disk", database.name);
  // A live restore keeps the staging file, the undo copy, and the log or journal of the copy, for a while.
  const uint64_t needed = 3 * size + *reserve;
  if (*free >= needed)
    return found.Add(Level::kOk, "database-space", fmt::format("{} MiB are free beside it", *free >> 20), {}, database.name);
  // Restores of every form begin with the staging file.
  const uint64_t staging = size + *reserve;
  if (*free < staging) {
    return found.Add(Level::kFail, "database-space",
                     fmt::format("{} MiB are free beside it, and every restore needs {} MiB with the reserve", *free >> 20, staging >> 20),
                     "free space there, lower `[limits] disk_reserve`, or restore this database elsewhere", database.name);
  }
  found.Add(Level::kWarn, "database-space", fmt::format("{} MiB are free beside it, a restore may need {} MiB", *free >> 20, needed >> 20),
            "free space there, or restore this database elsewhere or with --mode replace", database.name);
}

// Backups only read; a restore makes its files beside the database.
void LookAtDirectory(const config::DatabaseConfig& database, Examination& found) {
  const auto place = restore::TargetPlace::Resolve(database.path);
  const absl::Status writable = place.ok() ? place->CheckWritable() : place.status();
  if (!writable.ok()) return found.Fail("database-directory", writable, "look at the directory, its owner and its mode", database.name);
  found.Add(Level::kOk, "database-directory", fmt::format("{} can be written", place->directory()), {}, database.name);
}

// By the kernel's table of locks it is seen whether others have a database open.
void LookAtLocks(const config::DatabaseConfig& database, Examination& found) {
  const auto show = capture::LocksShow(io::DirectoryOf(database.path));
  if (!show.has_value()) return;  // nothing can be made there
  if (!*show) {
    return found.Add(
        Level::kWarn, "database-locks",
        fmt::format("a lock on a file beside it is not found in /proc/locks: whether others have {} open is not seen", database.path),
        "back it up by a schedule, not with `method = \"continuous\"`; restore with --mode live", database.name);
  }
  found.Add(Level::kOk, "database-locks",
            restore::InContainer() ? "who has it open is seen, but for those outside of this container" : "who has it open is seen", {},
            database.name);
}

void LookAtJournalMode(const config::DatabaseConfig& database, bool wal, uint64_t size, Examination& found) {
  if (wal) return found.Add(Level::kOk, "database-journal-mode", "WAL: backups never block writers", {}, database.name);
  const std::chrono::milliseconds stall(size * 1000 / kReadBytesPerSecond);
  if (stall <= database.rollback_stall) {
    return found.Add(Level::kOk, "database-journal-mode",
                     fmt::format("rollback journal: a backup holds writers up for about {} ms", stall.count()), {}, database.name);
  }
  const bool shares = capture::CanShareBlocks(io::DirectoryOf(database.path));
  if (shares && database.method == "file") {
    return found.Add(Level::kOk, "database-journal-mode",
                     "rollback journal: a backup holds writers up for milliseconds, since this file system shares blocks", {},
                     database.name);
  }
  found.Add(Level::kWarn, "database-journal-mode",
            fmt::format("rollback journal: a backup would hold writers up for about {} ms, rollback_stall allows {} ms", stall.count(),
                        database.rollback_stall.count()),
            fmt::format("set `pragma journal_mode=wal` in the application, or raise rollback_stall{}",
                        shares ? ", or use `method = \"file\"`, which locks for milliseconds: this file system shares blocks" : ""),
            database.name);
}

void LookAtDatabase(const config::AgentConfig& config, const config::DatabaseConfig& database, Examination& found) {
  LookAtDirectory(database, found);
  LookAtLocks(database, found);
  struct stat st {};
  const bool present = stat(database.path.c_str(), &st) == 0;
  struct stat shm {};
  const bool has_shm = stat((database.path + "-shm").c_str(), &shm) == 0;
  capture::UserDatabaseOptions options;
  options.path = database.path;
  options.busy_timeout = database.busy_timeout;
  options.allow_network_fs = config.allow_network_file_system;
  absl::StatusOr<std::unique_ptr<capture::UserDatabase>> opened = capture::UserDatabase::Open(options);
  absl::Status status = opened.status();
  if (opened.ok()) {
    status = (*opened)->CheckWalIsThere();
    if (status.ok()) status = (*opened)->BeginRead();
    if (status.ok()) {
      const absl::StatusOr<Bytes> start = (*opened)->ReadStart(capture::kHeaderBytes);
      if (start.ok()) {
        const auto header = capture::ParseHeader(*start);
        found.Add(Level::kOk, "database-opens",
                  fmt::format("{}, {} mode", database.path, header && header->wal ? "WAL" : "rollback journal"), {}, database.name);
        LookAtJournalMode(database, header && header->wal, static_cast<uint64_t>(st.st_size), found);
      } else {
        status = start.status();
      }
      (*opened)->EndRead();
    }
    if (const absl::Status closed = (*opened)->Close(); status.ok()) status = closed;
  }
  if (!status.ok()) return found.Fail("database-opens", status, "look at the file, its owner and its mode", database.name);
  if (has_shm && shm.st_uid != st.st_uid) {
    found.Add(Level::kFail, "database-shm-owner",
              fmt::format("{}-shm belongs to user {}, the database to user {}", database.path, shm.st_uid, st.st_uid),
              fmt::format("stop what uses it, then: chown --reference={0} {0}-shm {0}-wal", database.path), database.name);
  } else if (has_shm) {
    found.Add(Level::kOk, "database-shm-owner", "-shm belongs to the database's owner", {}, database.name);
  }
  if (present) LookAtSpace(config, database, static_cast<uint64_t>(st.st_size), found);
}

void LookAtFiles(const config::DatabaseConfig& database, Examination& found) {
  const RealClock clock;
  capture::FilesOptions options;
  options.root = database.path;
  options.rules = *database.files;
  options.clock = &clock;
  const auto facts = capture::FactsOfFiles(options);
  if (!facts.ok()) return found.Fail("files", facts.status(), HintOf(facts.status()), database.name);
  found.Add(Level::kOk, "files", fmt::format("what include means below {} can be read", database.path), {}, database.name);
  if (access(database.path.c_str(), W_OK | X_OK) != 0)
    return found.Add(Level::kWarn, "files", fmt::format("{} cannot be written: the files can be backed up, not restored", database.path),
                     "look at the directory, its owner and its mode", database.name);
}

// That it can be started is not enough: it has to come through its sandbox and to answer.
void LookAtHelper(const DoctorParts& parts, Examination& found) {
  const check::Checker checker({.helper = parts.check_helper, .limits = {}});
  const std::string& helper = checker.helper();
  const char* const fix = "install litefleet-check of this version beside litefleet-agent; restores need it";
  if (helper.empty() || access(helper.c_str(), X_OK) != 0) {
    return found.Add(Level::kFail, "check-helper",
                     helper.empty() ? "the program litefleet-check was not found" : fmt::format("{} cannot be started", helper), fix);
  }
  const io::UniqueFd empty(memfd_create("litefleet-doctor", MFD_CLOEXEC));  // a database without a page
  const auto until = std::chrono::steady_clock::now() + parts.probe_timeout;
  const check::CheckResult result =
      checker.Check(empty.get(), {.cancelled = [&] { return std::chrono::steady_clock::now() >= until; }, .progress = {}});
  std::string why;
  if (absl::IsCancelled(result.status)) {
    why = fmt::format("no answer within {} ms", parts.probe_timeout.count());
  } else if (!result.status.ok()) {
    why = MessageOf(result.status);
  } else if (result.verdict.state != check::State::kOk) {
    why = fmt::format("of an empty database it says \"{}\"", result.Text());
  }
  if (why.empty()) return found.Add(Level::kOk, "check-helper", helper);
  found.Add(Level::kFail, "check-helper", fmt::format("{} does not work: {}", helper, why),
            fmt::format("{}; look at the memory of the machine, and whether something keeps processes from their sandbox", fix));
}

const char* Word(Level level) { return level == Level::kOk ? "ok" : level == Level::kWarn ? "warn" : "fail"; }

}  // namespace

std::vector<Finding> Diagnose(const std::string& config_path, const absl::StatusOr<config::AgentConfig>& config, const DoctorParts& parts) {
  const RealClock real;
  const Clock& clock = parts.clock != nullptr ? *parts.clock : real;
  Examination found;
  if (!config.ok()) {
    found.Fail("configuration", config.status(), "correct the file");
    return found.findings;
  }
  if (config->databases.empty()) {
    found.Add(Level::kWarn, "configuration", fmt::format("{} names no database", config_path), "add a [[database]] with name and path");
  } else {
    found.Add(Level::kOk, "configuration", fmt::format("{}, {} databases", config_path, config->databases.size()));
  }
  LookAtTrust(config_path, *config, found);
  LookAtState(*config, found);
  const std::optional<state::DeviceIdentity> identity = LookAtIdentity(*config, clock, found);
  LookAtController(*config, identity, parts.probe_timeout, found);
  if (io::Exists(config->state)) LookAtClock(*config, clock, found);
  LookAtHelper(parts, found);
  for (const config::DatabaseConfig& database : config->databases)
    database.files ? LookAtFiles(database, found) : LookAtDatabase(*config, database, found);
  return found.findings;
}

int RunDoctor(const std::string& config_path, const absl::StatusOr<config::AgentConfig>& config, bool json, std::ostream& out) {
  const std::vector<Finding> findings = Diagnose(config_path, config);
  int failed = 0;
  int warned = 0;
  std::string items;
  for (const Finding& finding : findings) {
    failed += finding.level == Level::kFail ? 1 : 0;
    warned += finding.level == Level::kWarn ? 1 : 0;
    if (json) {
      items += fmt::format("{}{{\"level\":\"{}\",\"check\":{},\"database\":{},\"message\":{},\"fix\":{}}}", items.empty() ? "" : ",",
                           Word(finding.level), JsonText(finding.check), JsonTextOrNull(finding.subject), JsonText(finding.message),
                           JsonTextOrNull(finding.fix));
      continue;
    }
    fmt::print(out, "{:<4}  {}{}: {}\n", Word(finding.level), finding.check, finding.subject.empty() ? "" : " of " + finding.subject,
               finding.message);
    if (!finding.fix.empty()) fmt::print(out, "      fix: {}\n", finding.fix);
  }
  if (json) {
    fmt::print(out, "{{\"schema\":1,\"kind\":\"doctor\",\"ok\":{},\"failed\":{},\"warned\":{},\"findings\":[{}]}}\n", failed == 0, failed,
               warned, items);
  } else {
    fmt::print(out, "{}\n",
               failed != 0   ? fmt::format("{} failed, {} to look at", failed, warned)
               : warned != 0 ? fmt::format("{} to look at", warned)
                             : "all is well");
  }
  return failed != 0 ? 1 : 0;
}

}  // namespace litefleet
