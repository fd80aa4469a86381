#include "agent/state/identity.h"

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::state {
namespace {

constexpr uint64_t kMaxFileBytes = 256 * 1024;
constexpr std::chrono::hours kRenewBefore{30 * 24};
constexpr std::string_view kCaMark = "-----LITEFLEET CA-----\n";

std::string Folder(const std::string& state) { return state + "/identity"; }
std::string KeyFile(const std::string& state) { return Folder(state) + "/key.pem"; }
std::string NextKeyFile(const std::string& state) { return Folder(state) + "/next-key.pem"; }
std::string DeviceFile(const std::string& state) { return Folder(state) + "/device.pem"; }

// Like a bad configuration: nothing that was backed up is lost by it.
absl::Status Damaged(const std::string& path, std::string_view why) {
  return Error(absl::StatusCode::kInvalidArgument, "IDENTITY_DAMAGED", fmt::format("{}: {}", path, why),
               "enrol the device anew with a token of `litefleet token create --for-device`");
}

// "name: value" of the text before the first certificate.
std::string Header(std::string_view text, std::string_view name) {
  const std::string start = fmt::format("{}: ", name);
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.substr(0, 5) == "-----") break;
    if (line.substr(0, start.size()) == start) return std::string(line.substr(start.size()));
    at = end + 1;
  }
  return {};
}

bool Fits(const std::string& key_pem, std::string_view chain) {
  const auto key = crypto::KeyFromPem(key_pem);
  const auto certificate = crypto::CertificateFromPem(chain);
  return key.ok() && certificate.ok() && crypto::PublicKeyHash(**key) == crypto::PublicKeyHash(**certificate);
}

}  // namespace

absl::StatusOr<DeviceIdentity> LoadIdentity(const std::string& state) {
  const std::string path = DeviceFile(state);
  auto text = io::ReadFile(path, kMaxFileBytes);
  if (text.status().code() == absl::StatusCode::kNotFound) {
    return Error(absl::StatusCode::kNotFound, "NOT_ENROLLED", fmt::format("{} holds no identity", state),
                 "run `litefleet-agent enroll` with a token of the controller");
  }
  if (!text.ok()) return Annotate(text.status(), "the device's certificate");
  DeviceIdentity identity;
  identity.device = DeviceId(Header(*text, "device"));
  identity.name = Header(*text, "name");
  identity.controller = Header(*text, "controller");
  const size_t begin = text->find("-----BEGIN");
  const size_t mark = text->find(kCaMark);
  if (!IsUuid(identity.device.value()) || begin == std::string::npos || mark == std::string::npos || mark < begin)
    return Damaged(path, "it is incomplete");
  identity.certificate_chain = text->substr(begin, mark - begin);
  identity.ca_certificate = text->substr(mark + kCaMark.size());
  if (!crypto::CertificateFromPem(identity.ca_certificate).ok()) return Damaged(path, "the CA's certificate is unreadable");

  auto key = io::ReadFile(KeyFile(state), kMaxFileBytes);
  if (absl::IsNotFound(key.status())) return Damaged(KeyFile(state), "the key of the device's certificate is missing");
  if (!key.ok()) return Annotate(key.status(), "the device's key");
  identity.private_key = *std::move(key);
  if (Fits(identity.private_key, identity.certificate_chain)) return identity;
  // A renewal was cut between its two renames.
  const auto next = io::ReadFile(NextKeyFile(state), kMaxFileBytes);
  if (!next.ok() || !Fits(*next, identity.certificate_chain)) return Damaged(KeyFile(state), "the key does not belong to the certificate");
  LF_RETURN_IF_ERROR(io::RenameFile(NextKeyFile(state), KeyFile(state)));
  LF_RETURN_IF_ERROR(io::SyncDirectory(Folder(state)));
  identity.private_key = *next;
  return identity;
}

absl::Status SaveIdentity(const std::string& state, const DeviceIdentity& identity) {
  if (!Fits(identity.private_key, identity.certificate_chain)) {
    return Error(absl::StatusCode::kInvalidArgument, "CERTIFICATE_INVALID",
                 "the certificate that the controller sent does not belong to the device's key");
  }
  LF_RETURN_IF_ERROR(io::MakeDirectory(Folder(state)));
  const auto old_key = io::ReadFile(KeyFile(state), kMaxFileBytes);
  const bool new_key = !old_key.ok() || *old_key != identity.private_key;
  if (new_key) LF_RETURN_IF_ERROR(io::WriteFileAtomic(NextKeyFile(state), identity.private_key, 0600));
  LF_CRASH_POINT("identity.after_next_key");
  const std::string text = fmt::format("device: {}\nname: {}\ncontroller: {}\n{}{}{}", identity.device.value(), identity.name,
                                       identity.controller, identity.certificate_chain, kCaMark, identity.ca_certificate);
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(DeviceFile(state), text, 0600));
  LF_CRASH_POINT("identity.after_certificate");
  if (new_key) {
    LF_RETURN_IF_ERROR(io::RenameFile(NextKeyFile(state), KeyFile(state)));
    LF_RETURN_IF_ERROR(io::SyncDirectory(Folder(state)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> LoadOrCreateKey(const std::string& state) {
  auto pem = io::ReadFile(KeyFile(state), kMaxFileBytes);
  if (pem.ok() && crypto::KeyFromPem(*pem).ok()) return pem;
  if (!pem.ok() && pem.status().code() != absl::StatusCode::kNotFound) return pem.status();
  if (pem.ok()) return Damaged(KeyFile(state), "it holds no key");
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::GenerateKey());
  LF_ASSIGN_OR_RETURN(std::string text, crypto::KeyToPem(*key));
  LF_RETURN_IF_ERROR(io::MakeDirectory(Folder(state)));
  LF_RETURN_IF_ERROR(io::WriteFileAtomic(KeyFile(state), text, 0600));
  LF_CRASH_POINT("identity.after_key");
  return text;
}

absl::StatusOr<SystemTime> ExpiryOf(const DeviceIdentity& identity) {
  LF_ASSIGN_OR_RETURN(const crypto::Certificate certificate, crypto::CertificateFromPem(identity.certificate_chain));
  return crypto::NotAfter(*certificate);
}

bool ShouldRenew(SystemTime expiry, SystemTime now) { return now > expiry - kRenewBefore; }

}  // namespace litefleet::state
