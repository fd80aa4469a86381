#include "controller/doctor/doctor.h"

#include <dirent.h>
#include <netdb.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include <algorithm>
#include <memory>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/crypto/server_chain.h"
#include "common/crypto/tls_peer.h"
#include "common/crypto/x509.h"
#include "common/io/admin_socket.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace litefleet::doctor {
namespace {

using std::chrono::hours;

void LookAtConfiguration(const Parts& parts, Findings& findings) {
  const std::string name = parts.config_file.empty() ? "the built-in configuration" : parts.config_file;
  const auto waiting = parts.configuration();
  if (!waiting.ok()) {
    const std::string hint = HintOf(waiting.status());
    findings.Fail("configuration", fmt::format("{}; what was read at the start is in force", MessageOf(waiting.status())),
                  hint.empty() ? "correct the file: the controller would not start with it" : hint);
  } else if (!waiting->empty()) {
    findings.Warn("configuration", fmt::format("{} has changed since the start: {}", name, fmt::join(*waiting, ", ")),
                  "restart the controller for these to take effect");
  } else {
    findings.Ok("configuration", fmt::format("{} is in force", name));
  }
}

void LookAtSpace(const std::string& data, uint64_t reserve, Findings& findings) {
  struct statvfs space = {};
  if (statvfs(data.c_str(), &space) != 0) {
    findings.Fail("store-space", fmt::format("the free space of {} cannot be read", data), "check that the file system is mounted");
    return;
  }
  const auto unit = static_cast<uint64_t>(space.f_frsize);
  const uint64_t free = space.f_bavail * unit;
  const uint64_t total = std::max<uint64_t>(space.f_blocks * unit, 1);
  const std::string text =
      fmt::format("{} MiB of {} MiB are free where {} is, uploads leave {} MiB", free >> 20, total >> 20, data, reserve >> 20);
  const std::string fix = "make room on this file system, or move the data directory to a larger one";
  if (free <= reserve) {
    findings.Fail("store-space", text, fix);
  } else if (free < reserve + (uint64_t{512} << 20) || free < total / 20) {
    findings.Warn("store-space", text, fix);
  } else {
    findings.Ok("store-space", text);
  }
  if (space.f_files != 0 && space.f_favail < 1000) {
    findings.Warn("store-inodes", fmt::format("{} files can still be made where {} is", static_cast<uint64_t>(space.f_favail), data),
                  "remove small files there");
  }
  if (const std::string network = io::NetworkFileSystemName(data); !network.empty()) {
    findings.Warn("store-file-system", fmt::format("{} is on {}, where locks and syncs may not hold", data, network),
                  "use a local file system");
  }
}

void LookAtCatalog(const catalog::CatalogDb& catalog, Findings& findings) {
  const auto complaints = catalog.CheckIntegrity();
  const std::string fix = "stop the controller and make the catalog anew from the packs: litefleet-controller rebuild";
  if (!complaints.ok()) {
    findings.Fail("catalog", fmt::format("{} cannot be checked: {}", catalog.path(), MessageOf(complaints.status())), fix);
  } else if (!complaints->empty()) {
    findings.Fail("catalog", fmt::format("{} is damaged: {}", catalog.path(), complaints->front()), fix);
  } else {
    findings.Ok("catalog", fmt::format("{} is sound", catalog.path()));
  }
}

void LookAtCatalogBackups(const Parts& parts, SystemTime now, Findings& findings) {
  const std::string fix = "see the controller's log, and whether the store's file system can be written to";
  const auto backups = parts.catalog_backups();
  if (!backups.ok()) {
    findings.Fail("catalog-backup", fmt::format("the backups of the catalog cannot be read: {}", MessageOf(backups.status())), fix);
    return;
  }
  const auto every = std::chrono::seconds(backups->every().seconds());
  if (!backups->last_error().empty()) {
    findings.Fail("catalog-backup", fmt::format("the catalog could not be backed up: {}", backups->last_error()), fix);
  } else if (!backups->has_newest_at()) {
    findings.Warn("catalog-backup", "the catalog was not backed up yet", "the first backup is made a moment after the start: look again");
  } else if (const SystemTime made = FromProtoTime(backups->newest_at()); now - made > 2 * every + hours(1)) {
    findings.Fail("catalog-backup", fmt::format("the newest backup of the catalog is of {}", FormatRfc3339(made)), fix);
  } else {
    findings.Ok("catalog-backup", fmt::format("{} of {} backups of the catalog are there, the newest of {}", backups->count(),
                                              backups->keep(), FormatRfc3339(made)));
  }
}

void LookAtCertificate(const std::string& path, const std::string& pem, SystemTime now, Findings& findings) {
  const auto certificate = crypto::CertificateFromPem(pem);
  if (!certificate.ok()) {
    findings.Fail("certificate", fmt::format("{} cannot be read: {}", path, MessageOf(certificate.status())),
                  "put the file back from a backup of the data directory");
    return;
  }
  const SystemTime ends = crypto::NotAfter(**certificate);
  const std::string until = FormatRfc3339(ends).substr(0, 10);
  const auto left = ends - now;
  const bool root = crypto::IsSelfSigned(**certificate);
  const std::string fix = root ? "renewing the root means to enrol every device anew: plan it well before that day"
                               : "restart the controller, which renews its certificates; for an operator make a new file with "
                                 "`litefleet-controller operator create`";
  if (left < hours(0)) {
    findings.Fail("certificate", fmt::format("{} expired on {}", path, until), fix);
  } else if (left < hours(24) * (root ? 365 : 30)) {
    findings.Warn("certificate", fmt::format("{} expires on {}", path, until), fix);
  } else {
    findings.Ok("certificate", fmt::format("{} is valid until {}", path, until));
  }
}

// Keys by what is in the files, not by their names.
void LookAtFile(const std::string& path, SystemTime now, Findings& findings) {
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return;
  const auto content = io::ReadFile(path, 1 << 20);
  if (!content.ok()) {
    findings.Fail("keys", MessageOf(content.status()), fmt::format("chown it to the controller's user: {}", path));
    return;
  }
  if (content->find("PRIVATE KEY-----") != std::string::npos) {
    if ((info.st_mode & 077) != 0) {
      findings.Fail("keys", fmt::format("{} has mode {:04o}: others may read a private key", path, info.st_mode & 07777),
                    fmt::format("chmod 0600 {}", path));
    } else {
      findings.Ok("keys", fmt::format("{} is readable by its owner only", path));
    }
  }
  if (content->find("BEGIN CERTIFICATE-----") != std::string::npos) LookAtCertificate(path, *content, now, findings);
}

void LookAtKeys(const std::string& data, SystemTime now, Findings& findings) {
  const std::string ca = data + "/ca";
  struct stat info = {};
  if (stat(ca.c_str(), &info) != 0) {
    findings.Fail("keys", fmt::format("{} is missing", ca), "put it back from a backup: without it no device can renew its certificate");
    return;
  }
  if ((info.st_mode & 077) != 0) {
    findings.Fail("keys", fmt::format("{} has mode {:04o}, it must be 0700", ca, info.st_mode & 07777), fmt::format("chmod 0700 {}", ca));
  }
  std::vector<std::string> paths;
  if (DIR* directory = opendir(ca.c_str()); directory != nullptr) {
    while (const dirent* entry = readdir(directory)) {
      if (entry->d_name[0] != '.') paths.push_back(ca + "/" + entry->d_name);
    }
    closedir(directory);
  }
  std::sort(paths.begin(), paths.end());
  paths.push_back(data + "/admin.pem");
  for (const std::string& path : paths) LookAtFile(path, now, findings);
}

void LookAtNames(const std::vector<std::string>& hosts, Findings& findings) {
  std::vector<std::string> known;
  for (const std::string& host : hosts) {
    addrinfo hints = {};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (const int error = getaddrinfo(host.c_str(), nullptr, &hints, &found); error != 0) {
      findings.Warn("name-resolution", fmt::format("the certificate names {}, which has no address here: {}", host, gai_strerror(error)),
                    fmt::format("enter it in the DNS or in /etc/hosts; where no agent uses it: litefleet-controller host remove {}", host));
      continue;
    }
    freeaddrinfo(found);
    known.push_back(host);
  }
  if (known.empty()) {
    findings.Fail("name-resolution", "none of the names in the server's certificate has an address",
                  "certify one by which agents reach this machine: litefleet-controller host add NAME");
  } else {
    findings.Ok("name-resolution", fmt::format("{} {} an address", fmt::join(known, ", "), known.size() == 1 ? "has" : "have"));
  }
}

// As an agent sees it: connects, and judges what is shown by the root and the names.
void LookAtTls(const Parts& parts, SystemTime now, Findings& findings) {
  const rpc::Address address = parts.listening();
  const bool any = address.host == "::" || address.host == "0.0.0.0";
  const std::string root_path = parts.data_directory + "/ca/root.pem";
  const auto root_pem = io::ReadFile(root_path, 1 << 20);
  const auto root = root_pem.ok() ? crypto::CertificateFromPem(*root_pem) : absl::StatusOr<crypto::Certificate>(root_pem.status());
  if (!root.ok()) {
    return findings.Fail("tls", fmt::format("without {} nothing can be said: {}", root_path, MessageOf(root.status())),
                         "put the file back from a backup of the data directory");
  }
  const auto shown = crypto::ShownCertificates(any ? "localhost" : address.host, address.port, parts.handshake_timeout);
  if (!shown.ok()) {
    return findings.Fail(
        "tls", MessageOf(shown.status()),
        fmt::format("look whether a firewall of this machine keeps {} closed, and into the controller's log", address.Text()));
  }
  for (const std::string& host : parts.hosts()) {
    if (const absl::Status good = crypto::CheckServerChain(*shown, **root, host); !good.ok()) {
      return findings.Fail("tls", fmt::format("agents that connect to {} would refuse {}: {}", host, address.Text(), MessageOf(good)),
                           ReasonOf(good) == "CONTROLLER_NAME_MISMATCH"
                               ? "let the controller read its certificate again: send it SIGHUP, or restart it"
                               : "look which program listens there; if it is this one, put DATA/ca back from a backup and restart it");
    }
  }
  if (crypto::EndsBefore(*shown, now)) {
    return findings.Fail("tls", fmt::format("what {} shows has expired", address.Text()),
                         "let the controller renew it: send it SIGHUP, or restart it");
  }
  findings.Ok("tls", fmt::format("{} shows a certificate that the agents trust, under {}", address.Text(), fmt::join(parts.hosts(), ", ")));
}

void LookAtClock(const Parts& parts, SystemTime now, Findings& findings) {
  constexpr int64_t kYear2024 = 1'704'067'200'000;
  const std::string fix = "set the clock and keep it right with an NTP service (for instance chrony or systemd-timesyncd)";
  if (ToUnixMillis(now) < kYear2024) {
    findings.Fail("clock", fmt::format("the clock says {}", FormatRfc3339(now)), fix);
    return;
  }
  const std::optional<SystemTime> newest = parts.newest_snapshot_at();
  if (newest.has_value() && *newest > now + std::chrono::minutes(1)) {
    findings.Fail(
        "clock",
        fmt::format("the clock went back: it says {}, but the newest snapshot came at {}", FormatRfc3339(now), FormatRfc3339(*newest)),
        fix);
    return;
  }
  struct timex clock_state = {};
  if (adjtimex(&clock_state) == TIME_ERROR) {
    findings.Warn("clock", fmt::format("the clock says {}, but nothing keeps it right", FormatRfc3339(now)), fix);
  } else {
    findings.Ok("clock", fmt::format("the clock says {} and is kept right", FormatRfc3339(now)));
  }
}

void LookAtSocket(const std::string& data, Findings& findings) {
  const std::string path = io::AdminSocketPath(data);
  struct stat info = {};
  if (stat(path.c_str(), &info) != 0 || !S_ISSOCK(info.st_mode)) {
    findings.Warn("socket", fmt::format("there is no socket at {}", path), "restart the controller");
  } else if ((info.st_mode & 077) != 0) {
    findings.Fail("socket", fmt::format("{} has mode {:04o}: others may act as operators", path, info.st_mode & 07777),
                  fmt::format("chmod 0600 {}", path));
  } else {
    findings.Ok("socket", fmt::format("{} is for its owner only", path));
  }
}

}  // namespace

void Findings::Add(v1::FindingLevel level, std::string_view check, std::string_view message, std::string_view fix) {
  v1::Finding* finding = response_.add_findings();
  finding->set_level(level);
  finding->set_check(std::string(check));
  finding->set_message(std::string(message));
  finding->set_fix(std::string(fix));
}

void Examine(const Parts& parts, Findings& findings) {
  const SystemTime now = parts.clock->Now();
  LookAtConfiguration(parts, findings);
  LookAtSpace(parts.data_directory, parts.store_reserve(), findings);
  LookAtCatalog(*parts.catalog, findings);
  LookAtCatalogBackups(parts, now, findings);
  LookAtKeys(parts.data_directory, now, findings);
  LookAtNames(parts.hosts(), findings);
  LookAtTls(parts, now, findings);
  LookAtClock(parts, now, findings);
  LookAtSocket(parts.data_directory, findings);
}

}  // namespace litefleet::doctor
