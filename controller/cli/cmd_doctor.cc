// litefleet doctor
#include <netdb.h>
#include <sys/stat.h>

#include <cstdlib>

#include "common/crypto/x509.h"
#include "common/rpc/identity_file.h"
#include "controller/cli/command_support.h"
#include "controller/cli/commands.h"
#include "controller/cli/text.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

using FindingList = std::vector<v1::Finding>;

void Add(FindingList& findings, v1::FindingLevel level, std::string_view check, std::string_view message, std::string_view fix = {}) {
  v1::Finding& finding = findings.emplace_back();
  finding.set_level(level);
  finding.set_check(std::string(check));
  finding.set_message(std::string(message));
  finding.set_fix(std::string(fix));
}

void LookAtIdentity(Session& session, FindingList& findings) {
  const std::string path = session.IdentityFile();
  if (path.empty()) {
    return Add(findings, v1::FINDING_LEVEL_FAIL, "identity", "no operator's file was named",
               "give --identity FILE, or set $LITEFLEET_IDENTITY");
  }
  const auto identity = rpc::ReadIdentityFile(path);
  if (!identity.ok()) return Add(findings, v1::FINDING_LEVEL_FAIL, "identity", MessageOf(identity.status()), HintOf(identity.status()));
  const auto certificate = crypto::CertificateFromPem(identity->certificate_chain);
  if (!certificate.ok())
    return Add(findings, v1::FINDING_LEVEL_FAIL, "identity", MessageOf(certificate.status()),
               "make a new file: litefleet-controller operator create");
  const SystemTime ends = crypto::NotAfter(**certificate);
  const std::string text = fmt::format("{} is valid until {}", path, LocalTimeText(ends));
  const char* fix = "make a new file on the controller's host: litefleet-controller operator create";
  if (ends < session.clock().Now()) {
    Add(findings, v1::FINDING_LEVEL_FAIL, "identity", fmt::format("{} expired on {}", path, LocalTimeText(ends)), fix);
  } else if (ends < session.clock().Now() + std::chrono::hours(24 * 30)) {
    Add(findings, v1::FINDING_LEVEL_WARN, "identity", text, fix);
  } else {
    Add(findings, v1::FINDING_LEVEL_OK, "identity", text);
  }
}

void LookAtName(const rpc::Address& address, FindingList& findings) {
  addrinfo* found = nullptr;
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  const int error = getaddrinfo(address.host.c_str(), nullptr, &hints, &found);
  if (error != 0) {
    Add(findings, v1::FINDING_LEVEL_FAIL, "name-resolution", fmt::format("{} has no address: {}", address.host, gai_strerror(error)),
        "check the name and the DNS servers of this host");
    return;
  }
  freeaddrinfo(found);
  Add(findings, v1::FINDING_LEVEL_OK, "name-resolution", fmt::format("{} has an address", address.host));
}

CommandResult Doctor(Session& session) {
  FindingList findings;
  absl::Status unreachable = absl::OkStatus();
  const auto address = session.ServerAddress();
  if (!address.ok()) return address.status();
  if (!address->is_unix()) {
    LookAtName(*address, findings);
    LookAtIdentity(session, findings);
  }
  const auto client = session.Client();
  absl::StatusOr<v1::RunDoctorResponse> response =
      client.ok() ? (*client)->RunDoctor(v1::RunDoctorRequest()) : absl::StatusOr<v1::RunDoctorResponse>(client.status());
  if (response.ok()) {
    Add(findings, v1::FINDING_LEVEL_OK, "connection", fmt::format("the controller answers at {}", address->Text()));
    findings.insert(findings.end(), response->findings().begin(), response->findings().end());
  } else {
    unreachable = response.status();
    Add(findings, v1::FINDING_LEVEL_FAIL, "connection", MessageOf(unreachable), HintOf(unreachable));
  }
  int failed = 0;
  int warned = 0;
  for (const v1::Finding& finding : findings) {
    failed += finding.level() == v1::FINDING_LEVEL_FAIL ? 1 : 0;
    warned += finding.level() == v1::FINDING_LEVEL_WARN ? 1 : 0;
  }
  if (session.json()) {
    Json items = Json::Array();
    for (const v1::Finding& finding : findings) items.Add(ToJson(finding));
    Json result = Json::Object();
    result.Set("ok", failed == 0).Set("failed", failed).Set("warned", warned).Set("findings", std::move(items));
    session.PrintJson("doctor", std::move(result));
  } else if (session.format() == OutputFormat::kName) {
    for (const v1::Finding& finding : findings) {
      if (finding.level() != v1::FINDING_LEVEL_OK) session.Print(finding.check() + "\n");
    }
  } else {
    std::string text;
    for (const v1::Finding& finding : findings) {
      const Tone tone = finding.level() == v1::FINDING_LEVEL_OK     ? Tone::kGood
                        : finding.level() == v1::FINDING_LEVEL_WARN ? Tone::kDoubtful
                                                                    : Tone::kBad;
      text += fmt::format("{}  {}: {}\n", Toned(fmt::format("{:<4}", Word(finding.level())), tone, session.style()), finding.check(),
                          Printable(finding.message()));
      if (!finding.fix().empty()) text += fmt::format("      fix: {}\n", Printable(finding.fix()));
    }
    session.Print(text + (failed != 0   ? fmt::format("{} failed, {} to look at\n", failed, warned)
                          : warned != 0 ? fmt::format("{} to look at\n", warned)
                                        : "all is well\n"));
  }
  if (!unreachable.ok()) return ExitCodeOf(unreachable);
  return failed != 0 ? kFailed : kDone;
}

}  // namespace

void AddDoctor(CLI::App& app, Session& session) {
  CLI::App* doctor = app.add_subcommand("doctor", "Look for trouble at the controller and on the way to it, each with a fix");
  doctor->footer(
      "Ends with 0 where nothing failed (warnings included), 1 where something did, 7 where the controller\ncannot be reached. On a device "
      "use `litefleet-agent doctor`.");
  OnCall(doctor, session, &Doctor);
}

}  // namespace litefleet::cli
