// The CA as one text that may be kept elsewhere: for each signer a line with its name, its certificate, its key encrypted.
#include <algorithm>
#include <array>
#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "controller/identity/authority.h"
#include "fmt/format.h"

namespace litefleet::identity {
namespace {

// The root last: Open refuses a directory without it, so a crash leaves none that looks whole.
constexpr std::array<std::string_view, 4> kNames = {"servers", "devices", "operators", "root"};
constexpr std::string_view kTitle = "litefleet-controller keys, version 1";
constexpr std::string_view kHost = "host ";
constexpr std::string_view kSigner = "signer ";

absl::Status Invalid(std::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, "KEYS_INVALID", fmt::format("this is no file of exported keys: {}", why),
               "use the file that `litefleet-controller export-keys` has written");
}

}  // namespace

absl::StatusOr<std::string> Authority::Export(std::string_view passphrase) const {
  std::string text = fmt::format("{}\n", kTitle);
  for (const std::string& host : hosts()) text += fmt::format("{}{}\n", kHost, host);
  const std::array<const Signer*, 4> signers = {&servers_, &devices_, &operators_, &root_};
  for (size_t i = 0; i < kNames.size(); ++i) {
    LF_ASSIGN_OR_RETURN(const std::string key, crypto::KeyToEncryptedPem(*signers[i]->key, passphrase));
    text += fmt::format("{}{}\n{}{}", kSigner, kNames[i], signers[i]->pem, key);
  }
  return text;
}

absl::Status Authority::Import(const std::string& directory, std::string_view exported, std::string_view passphrase) {
  if (!exported.starts_with(kTitle)) return Invalid("its first line is missing");
  std::vector<std::string> hosts;
  std::array<Signer, 4> signers;
  std::array<bool, 4> found{};
  for (size_t at = 0; at < exported.size();) {
    const size_t end = std::min(exported.find('\n', at), exported.size());
    const std::string_view line = exported.substr(at, end - at);
    at = end + 1;
    if (line.starts_with(kHost)) {
      LF_ASSIGN_OR_RETURN(std::string host, CheckHost(line.substr(kHost.size())));
      hosts.push_back(std::move(host));
    }
    if (!line.starts_with(kSigner) || end == exported.size()) continue;
    const auto name = std::find(kNames.begin(), kNames.end(), line.substr(kSigner.size()));
    if (name == kNames.end()) return Invalid(fmt::format("\"{}\" is unknown", line));
    const auto index = static_cast<size_t>(name - kNames.begin());
    const std::string_view body = exported.substr(at, exported.find("\nsigner ", at) - at);
    Signer& signer = signers[index];
    auto certificate = crypto::CertificateFromPem(body);
    if (!certificate.ok()) return Invalid(MessageOf(certificate.status()));
    signer.certificate = *std::move(certificate);
    signer.pem = crypto::CertificateToPem(*signer.certificate);
    const size_t key = body.find("-----BEGIN ENCRYPTED PRIVATE KEY-----");
    if (key == std::string_view::npos) return Invalid(fmt::format("the key of \"{}\" is missing", *name));
    LF_ASSIGN_OR_RETURN(signer.key, crypto::KeyFromEncryptedPem(body.substr(key), passphrase));
    if (crypto::PublicKeyHash(*signer.key) != crypto::PublicKeyHash(*signer.certificate)) {
      return Invalid(fmt::format("the key of \"{}\" belongs to another certificate", *name));
    }
    found[index] = true;
  }
  if (std::find(found.begin(), found.end(), false) != found.end() || hosts.empty()) return Invalid("a part of it is missing");
  for (const Signer& signer : signers) {
    if (!crypto::WasIssuedBy(*signer.certificate, *signers.back().certificate)) return Invalid("its root did not issue the others");
  }
  LF_RETURN_IF_ERROR(io::MakeDirectory(directory, 0700));
  LF_RETURN_IF_ERROR(Authority(directory).WriteHosts(hosts));
  for (size_t i = 0; i < kNames.size(); ++i) {
    LF_ASSIGN_OR_RETURN(const std::string key, crypto::KeyToPem(*signers[i].key));
    LF_RETURN_IF_ERROR(io::WriteFileAtomic(fmt::format("{}/{}-key.pem", directory, kNames[i]), key, 0600));
    LF_RETURN_IF_ERROR(io::WriteFileAtomic(fmt::format("{}/{}.pem", directory, kNames[i]), signers[i].pem, 0600));
  }
  return absl::OkStatus();
}

}  // namespace litefleet::identity
