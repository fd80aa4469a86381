// The doctor: each look gives one finding, and a look that cannot be taken is a finding too.
#include <dirent.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include <algorithm>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/io/admin_socket.h"
#include "common/io/file.h"
#include "controller/rpc/admin_handlers.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

using std::chrono::hours;

class Findings {
 public:
  explicit Findings(v1::RunDoctorResponse& response) : response_(response) {}
  void Ok(std::string_view check, std::string_view message) { Add(v1::FINDING_LEVEL_OK, check, message, ""); }
  void Warn(std::string_view check, std::string_view message, std::string_view fix) { Add(v1::FINDING_LEVEL_WARN, check, message, fix); }
  void Fail(std::string_view check, std::string_view message, std::string_view fix) { Add(v1::FINDING_LEVEL_FAIL, check, message, fix); }

 private:
  void Add(v1::FindingLevel level, std::string_view check, std::string_view message, std::string_view fix) {
    v1::Finding* finding = response_.add_findings();
    finding->set_level(level);
    finding->set_check(std::string(check));
    finding->set_message(std::string(message));
    finding->set_fix(std::string(fix));
  }
  v1::RunDoctorResponse& response_;
};

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

void LookAtClock(const AdminDependencies& parts, SystemTime now, Findings& findings) {
  constexpr int64_t kYear2024 = 1'704'067'200'000;
  const std::string fix = "set the clock and keep it right with an NTP service (for instance chrony or systemd-timesyncd)";
  if (ToUnixMillis(now) < kYear2024) {
    findings.Fail("clock", fmt::format("the clock says {}", FormatRfc3339(now)), fix);
    return;
  }
  const auto newest = parts.snapshots->List(DeviceId(), "", 1, "");
  if (newest.ok() && !newest->items.empty() && FromProtoTime(newest->items.front().received_at()) > now + std::chrono::minutes(1)) {
    findings.Fail("clock",
                  fmt::format("the clock went back: it says {}, but the newest snapshot came at {}", FormatRfc3339(now),
                              FormatRfc3339(FromProtoTime(newest->items.front().received_at()))),
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

void LookAtFleet(const v1::GetStatusResponse& status, SystemTime now, Findings& findings) {
  if (status.databases() == 0) {
    findings.Ok("proof", "no database is known yet");
  } else if (status.databases_unproven() > 0) {
    findings.Warn("proof",
                  fmt::format("{} of {} databases have no snapshot that was proven", status.databases_unproven(), status.databases()),
                  "check one of each: litefleet snapshot check ID");
  } else if (status.has_oldest_proven_at() && FromProtoTime(status.oldest_proven_at()) < now - hours(24 * 7)) {
    findings.Warn("proof",
                  fmt::format("the newest proven snapshot of {} is of {}", status.oldest_proven_database(),
                              FormatRfc3339(FromProtoTime(status.oldest_proven_at()))),
                  fmt::format("litefleet backup {0}, then litefleet snapshot check ID", status.oldest_proven_database()));
  } else {
    findings.Ok("proof", fmt::format("each of {} databases has a proven snapshot", status.databases()));
  }
  if (status.alarms_size() > 0) {
    findings.Warn("fleet",
                  fmt::format("{} alarms, the first: {} {}", status.alarms_size(), status.alarms(0).subject(), status.alarms(0).message()),
                  "see litefleet status");
  } else {
    findings.Ok("fleet", fmt::format("{} devices, {} connected, no alarm", status.devices(), status.devices_connected()));
  }
}

}  // namespace

absl::StatusOr<v1::RunDoctorResponse> AdminHandlers::RunDoctor(const v1::RunDoctorRequest&) const {
  v1::RunDoctorResponse response;
  Findings findings(response);
  const SystemTime now = deps_.clock->Now();
  const auto store = deps_.store->Stats();
  LookAtSpace(deps_.data_directory, store.ok() ? store->reserve_bytes : 0, findings);
  LookAtCatalog(*deps_.catalog, findings);
  LookAtKeys(deps_.data_directory, now, findings);
  LookAtClock(deps_, now, findings);
  LookAtSocket(deps_.data_directory, findings);
  const auto status = GetStatus({});
  if (status.ok()) {
    LookAtFleet(*status, now, findings);
  } else {
    findings.Fail("fleet", MessageOf(status.status()), "see the controller's log");
  }
  return response;
}

}  // namespace litefleet::rpc
