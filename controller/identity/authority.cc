#include "controller/identity/authority.h"

#include <openssl/x509.h>

#include <algorithm>
#include <array>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/rpc/address.h"
#include "controller/identity/issue.h"
#include "fmt/format.h"

namespace litefleet::identity {
namespace {

constexpr uint64_t kMaxFileBytes = 256 * 1024;
constexpr std::chrono::hours kCaLifetime{20 * 365 * 24};
constexpr std::chrono::hours kOperatorLifetime{10 * 365 * 24};

std::string CertificateFile(const std::string& directory, std::string_view name) { return fmt::format("{}/{}.pem", directory, name); }
std::string KeyFile(const std::string& directory, std::string_view name) { return fmt::format("{}/{}-key.pem", directory, name); }

// The key first: a certificate without a key is of no use.
absl::Status Write(const std::string& directory, std::string_view name, EVP_PKEY& key, X509& certificate) {
  LF_ASSIGN_OR_RETURN(const std::string pem, crypto::KeyToPem(key));
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(KeyFile(directory, name), pem, 0600));
  return io::WriteFileAtomic(CertificateFile(directory, name), crypto::CertificateToPem(certificate), 0600);
}

std::string AlternativeName(const std::string& host) { return (rpc::IsIpAddress(host) ? "IP:" : "DNS:") + host; }

absl::Status Damaged(std::string_view path, std::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "CA_DAMAGED", fmt::format("{}: {}", path, why), "put the directory `ca` back from a backup");
}

}  // namespace

absl::Status CheckClock(SystemTime now) {
  constexpr SystemTime kNoClockBefore{std::chrono::seconds(1'735'689'600)};  // 2025
  if (now >= kNoClockBefore) return absl::OkStatus();
  return Error(absl::StatusCode::kFailedPrecondition, "CLOCK_NOT_SET",
               fmt::format("the clock says {}: certificates that are made now would be out of date once it is set", FormatRfc3339(now)),
               "set the clock, and try again");
}

absl::Status Authority::Create(const std::string& directory, const std::vector<std::string>& hosts, SystemTime now) {
  LF_RETURN_IF_ERROR(CheckClock(now));
  LF_RETURN_IF_ERROR(io::MakeDirectory(directory, 0700));
  std::array<std::byte, 4> random{};
  RandomBytes(random);
  const std::string suffix = ToHex(random);
  LF_ASSIGN_OR_RETURN(const crypto::Key root_key, crypto::GenerateKey());
  LF_ASSIGN_OR_RETURN(const crypto::Certificate root,
                      Issue({Kind::kRoot, fmt::format("litefleet root {}", suffix), {}, now + kCaLifetime}, *root_key, nullptr, *root_key));
  const std::pair<std::string_view, Kind> kIntermediates[] = {
      {"servers", Kind::kServersCa}, {"devices", Kind::kClientsCa}, {"operators", Kind::kClientsCa}};
  for (const auto& [name, kind] : kIntermediates) {
    LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::GenerateKey());
    LF_ASSIGN_OR_RETURN(const crypto::Certificate certificate,
                        Issue({kind, fmt::format("litefleet {} {}", name, suffix), {}, now + kCaLifetime}, *key, root.get(), *root_key));
    LF_RETURN_IF_ERROR(Write(directory, name, *key, *certificate));
  }
  Authority authority(directory);
  LF_RETURN_IF_ERROR(authority.WriteHosts(hosts));
  LF_CRASH_POINT("authority.before_root");
  return Write(directory, "root", *root_key, *root);
}

absl::StatusOr<Authority::Signer> Authority::Read(const std::string& directory, std::string_view name) {
  Signer signer;
  const std::string path = CertificateFile(directory, name);
  LF_ASSIGN_OR_RETURN(signer.pem, io::ReadFile(path, kMaxFileBytes));
  LF_ASSIGN_OR_RETURN(signer.certificate, crypto::CertificateFromPem(signer.pem));
  LF_ASSIGN_OR_RETURN(const std::string key, io::ReadFile(KeyFile(directory, name), kMaxFileBytes));
  LF_ASSIGN_OR_RETURN(signer.key, crypto::KeyFromPem(key));
  if (crypto::PublicKeyHash(*signer.key) != crypto::PublicKeyHash(*signer.certificate))
    return Damaged(path, "its key belongs to another certificate");
  return signer;
}

absl::StatusOr<std::unique_ptr<Authority>> Authority::Open(const std::string& directory) {
  if (!io::Exists(CertificateFile(directory, "root"))) {
    return Error(absl::StatusCode::kNotFound, "CA_NOT_FOUND", fmt::format("there is no certificate authority in {}", directory),
                 "run `litefleet-controller init`, or put the directory `ca` back from a backup");
  }
  std::unique_ptr<Authority> authority(new Authority(directory));
  const std::pair<std::string_view, Signer*> kSigners[] = {{"root", &authority->root_},
                                                           {"servers", &authority->servers_},
                                                           {"devices", &authority->devices_},
                                                           {"operators", &authority->operators_}};
  for (const auto& [name, signer] : kSigners) {
    auto read = Read(directory, name);
    if (absl::IsPermissionDenied(read.status())) {
      return WithReason(Annotate(read.status(), CertificateFile(directory, name)), "NO_PERMISSION",
                        "run it as root or as the user that the controller runs as: the directory `ca` is that user's alone");
    }
    if (!read.ok())
      return WithReason(Annotate(read.status(), CertificateFile(directory, name)), "CA_DAMAGED",
                        "put the directory `ca` back from a backup");
    *signer = *std::move(read);
    if (!crypto::WasIssuedBy(*signer->certificate, *authority->root_.certificate))
      return Damaged(CertificateFile(directory, name), "the root did not issue it");
  }
  authority->root_pem_ = authority->root_.pem;
  authority->root_fingerprint_ = crypto::Fingerprint(*authority->root_.certificate);
  LF_RETURN_IF_ERROR(authority->ReadHosts().status());
  return authority;
}

absl::StatusOr<Issued> Authority::IssueDevice(const DeviceId& device, EVP_PKEY& key, SystemTime now) const {
  const CertificateWish wish{Kind::kClient, device.value(), {fmt::format("URI:{}{}", kDeviceUri, device.value())}, now + kDeviceLifetime};
  LF_ASSIGN_OR_RETURN(const crypto::Certificate certificate, Issue(wish, key, devices_.certificate.get(), *devices_.key));
  return Issued{crypto::CertificateToPem(*certificate) + devices_.pem, crypto::SerialOf(*certificate), crypto::PublicKeyHash(*certificate),
                crypto::NotAfter(*certificate)};
}

absl::StatusOr<Issued> Authority::IssueOperator(const std::string& name, EVP_PKEY& key, SystemTime now) const {
  if (!IsName(name)) {
    return Error(absl::StatusCode::kInvalidArgument, "OPERATOR_NAME_INVALID", fmt::format("\"{}\" cannot be an operator's name", name),
                 "use letters, digits, \".\", \"_\" and \"-\", at most 63");
  }
  const CertificateWish wish{Kind::kClient, name, {fmt::format("URI:{}{}", kOperatorUri, name)}, now + kOperatorLifetime};
  LF_ASSIGN_OR_RETURN(const crypto::Certificate certificate, Issue(wish, key, operators_.certificate.get(), *operators_.key));
  return Issued{crypto::CertificateToPem(*certificate) + operators_.pem, crypto::SerialOf(*certificate),
                crypto::PublicKeyHash(*certificate), crypto::NotAfter(*certificate)};
}

bool Authority::IssuedForDevice(X509& certificate) const { return crypto::WasIssuedBy(certificate, *devices_.certificate); }

bool Authority::HasDeviceIssuer(X509& certificate) const {
  return X509_NAME_cmp(X509_get_issuer_name(&certificate), X509_get_subject_name(devices_.certificate.get())) == 0;
}
bool Authority::HasOperatorIssuer(X509& certificate) const {
  return X509_NAME_cmp(X509_get_issuer_name(&certificate), X509_get_subject_name(operators_.certificate.get())) == 0;
}

absl::Status Authority::WriteHosts(const std::vector<std::string>& hosts) const {
  std::string text;
  for (const std::string& host : hosts) text += host + "\n";
  return io::WriteFileAtomic(directory_ + "/hosts", text, 0600);
}

absl::StatusOr<std::vector<std::string>> Authority::ReadHosts() const {
  LF_ASSIGN_OR_RETURN(const std::string text, io::ReadFile(directory_ + "/hosts", kMaxFileBytes));
  std::vector<std::string> hosts;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) {
      LF_ASSIGN_OR_RETURN(std::string host, CheckHost(text.substr(at, end - at)));
      hosts.push_back(std::move(host));
    }
    at = end + 1;
  }
  if (hosts.empty()) return Damaged(directory_ + "/hosts", "it names no host");
  return hosts;
}

std::vector<std::string> Authority::hosts() const {
  MutexLock lock(mu_);
  auto hosts = ReadHosts();
  return hosts.ok() ? *std::move(hosts) : std::vector<std::string>();
}

absl::Status Authority::AddHost(const std::string& host) {
  LF_ASSIGN_OR_RETURN(const std::string checked, CheckHost(host));
  MutexLock lock(mu_);
  LF_ASSIGN_OR_RETURN(std::vector<std::string> hosts, ReadHosts());
  if (std::find(hosts.begin(), hosts.end(), checked) != hosts.end()) {
    return Error(absl::StatusCode::kAlreadyExists, "HOST_EXISTS", fmt::format("{} is certified already", checked));
  }
  hosts.push_back(checked);
  return WriteHosts(hosts);
}

absl::Status Authority::RemoveHost(const std::string& host) {
  LF_ASSIGN_OR_RETURN(const std::string checked, CheckHost(host));
  MutexLock lock(mu_);
  LF_ASSIGN_OR_RETURN(std::vector<std::string> hosts, ReadHosts());
  const auto found = std::find(hosts.begin(), hosts.end(), checked);
  if (found == hosts.end()) return Error(absl::StatusCode::kNotFound, "HOST_NOT_FOUND", fmt::format("{} is not certified", checked));
  if (hosts.size() == 1) {
    return Error(absl::StatusCode::kFailedPrecondition, "LAST_HOST", fmt::format("{} is the only host that is certified", checked),
                 "add another one first");
  }
  hosts.erase(found);
  return WriteHosts(hosts);
}

absl::StatusOr<rpc::Identity> Authority::EnsureServerIdentity(SystemTime now) {
  MutexLock lock(mu_);
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> hosts, ReadHosts());
  std::vector<std::string> names;
  for (const std::string& host : hosts) names.push_back(AlternativeName(host));
  Signer server;
  if (auto read = Read(directory_, "server"); read.ok()) {
    server = *std::move(read);
    const bool fresh = now < ServerRenewalTime(crypto::NotAfter(*server.certificate)) && crypto::NamesOf(*server.certificate) == names &&
                       crypto::WasIssuedBy(*server.certificate, *servers_.certificate);
    if (!fresh) server = {};
  }
  if (server.certificate == nullptr) {
    LF_ASSIGN_OR_RETURN(server.key, crypto::GenerateKey());
    const SystemTime not_after = std::min(now + kServerLifetime, crypto::NotAfter(*servers_.certificate));
    LF_ASSIGN_OR_RETURN(server.certificate, Issue({Kind::kServer, hosts.front().substr(0, 64), names, not_after}, *server.key,
                                                  servers_.certificate.get(), *servers_.key));
    LF_RETURN_IF_ERROR(Write(directory_, "server", *server.key, *server.certificate));
    server.pem = crypto::CertificateToPem(*server.certificate);
  }
  LF_ASSIGN_OR_RETURN(std::string key, crypto::KeyToPem(*server.key));
  return rpc::Identity{std::move(key), server.pem + servers_.pem + root_pem_, root_pem_};
}

}  // namespace litefleet::identity
