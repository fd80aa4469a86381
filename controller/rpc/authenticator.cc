#include "controller/rpc/authenticator.h"

#include <grpc/grpc_security_constants.h>
#include <openssl/x509.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <optional>
#include <set>

#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "controller/rpc/live_calls.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

std::string Property(const grpc::AuthContext& auth, const char* name) {
  const std::vector<grpc::string_ref> values = auth.FindPropertyValues(name);
  return values.empty() ? std::string() : std::string(values.front().data(), values.front().size());
}

constexpr size_t kMaxShown = 16'384;  // certificates; about 250 bytes each

absl::Status WrongRole(Role has, Role wanted) {
  if (has == Role::kViewer && wanted == Role::kOperator) {
    return Error(absl::StatusCode::kPermissionDenied, "WRONG_ROLE", "a viewer may look at the fleet, but not do this",
                 "use the identity file of an operator with the role admin");
  }
  const bool operators = wanted != Role::kDevice;
  return Error(absl::StatusCode::kPermissionDenied, "WRONG_ROLE", operators ? "this call is for operators" : "this call is for devices",
               operators ? "use an operator's identity file" : "use `litefleet-agent`");
}

// A role that this version does not know may do nothing.
Role RoleOf(const catalog::CertificateRow& row) {
  if (row.role == catalog::kAdminRole) return Role::kOperator;
  return row.role == catalog::kViewerRole ? Role::kViewer : Role::kNone;
}

}  // namespace

CertificateAuthenticator::CertificateAuthenticator(const identity::Authority& authority, catalog::IdentityCatalog& catalog, Executor& work,
                                                   const Clock& clock)
    : authority_(authority), catalog_(catalog), work_(work), clock_(clock), live_calls_(std::make_shared<LiveCalls>()) {}

CertificateAuthenticator::~CertificateAuthenticator() { catalog_.SetObserver(nullptr); }

absl::StatusOr<std::unique_ptr<CertificateAuthenticator>> CertificateAuthenticator::Create(const identity::Authority& authority,
                                                                                           catalog::IdentityCatalog& catalog,
                                                                                           Executor& work, const Clock& clock) {
  std::unique_ptr<CertificateAuthenticator> created(new CertificateAuthenticator(authority, catalog, work, clock));
  LF_RETURN_IF_ERROR(created->Refresh());
  catalog.SetObserver(created.get());
  return created;
}

absl::Status CertificateAuthenticator::Refresh() {
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::CertificateRow> rows, catalog_.ListCertificates(clock_.Now()));
  OnCertificates(rows);
  return absl::OkStatus();
}

absl::StatusOr<Caller> CertificateAuthenticator::Authenticate(const grpc::ServerContextBase& context, std::string_view method) {
  LF_ASSIGN_OR_RETURN(const Role wanted, RequiredRole(method));
  if (wanted == Role::kNone) return Caller{};
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  const std::string transport = auth == nullptr ? std::string() : Property(*auth, GRPC_TRANSPORT_SECURITY_TYPE_PROPERTY_NAME);
  if (transport == "local" && context.peer().rfind("unix:", 0) == 0) {
    // Whoever can open the socket (its mode is 0600) is the operator of this host.
    if (!Suffices(Role::kOperator, wanted)) return WrongRole(Role::kOperator, wanted);
    Caller caller;
    caller.role = Role::kOperator;
    caller.name = "local";
    return caller;
  }
  const std::string pem = transport == "ssl" ? Property(*auth, GRPC_X509_PEM_CERT_PROPERTY_NAME) : std::string();
  if (pem.empty()) {
    return Error(
        absl::StatusCode::kUnauthenticated, "CERTIFICATE_REQUIRED", "this call needs a client certificate",
        wanted == Role::kDevice ? "enrol the device with `litefleet-agent enroll`" : "name an operator's identity file with --identity");
  }
  LF_ASSIGN_OR_RETURN(Caller caller, Identify(pem, wanted));
  if (caller.role != Role::kDevice) return caller;
  caller.live_call = live_calls_->Add(caller.device.value(), context);
  // A revocation between the look and the entry would have found nothing to cancel.
  MutexLock lock(mu_);
  const auto found = by_serial_.find(caller.certificate_serial);
  if (found == by_serial_.end() || found->second.revoked) {
    return Error(absl::StatusCode::kUnauthenticated, "CERTIFICATE_REVOKED", "the device was revoked");
  }
  return caller;
}

absl::StatusOr<CertificateAuthenticator::Shown> CertificateAuthenticator::Look(std::string_view pem) {
  const crypto::Sha256 hash = crypto::HashOf(pem);
  {
    MutexLock lock(mu_);
    if (const auto found = shown_.find(hash); found != shown_.end()) return found->second;
  }
  LF_ASSIGN_OR_RETURN(const crypto::Certificate certificate, crypto::CertificateFromPem(pem));
  Shown shown;
  const std::string uri = crypto::UriOf(*certificate).value_or("");
  if (authority_.HasDeviceIssuer(*certificate) && uri.rfind(identity::kDeviceUri, 0) == 0) {
    shown.role = Role::kDevice;
    shown.device = DeviceId(uri.substr(identity::kDeviceUri.size()));
  } else if (authority_.HasOperatorIssuer(*certificate) && uri.rfind(identity::kOperatorUri, 0) == 0) {
    shown.role = Role::kOperator;
    shown.name = uri.substr(identity::kOperatorUri.size());
  }
  shown.serial = crypto::SerialOf(*certificate);
  shown.key_hash = crypto::PublicKeyHash(*certificate);
  MutexLock lock(mu_);
  if (shown_.size() >= kMaxShown) shown_.clear();
  shown_[hash] = shown;
  return shown;
}

absl::Status CertificateAuthenticator::LookInCatalog(const std::string& serial) {
  {
    MutexLock lock(mu_);
    if (by_serial_.contains(serial)) return absl::OkStatus();
    const SteadyTime now = clock_.Steady();
    if (looks_ == 0 || now - looks_since_ >= std::chrono::seconds(1)) {
      looks_since_ = now;
      looks_ = 0;
    }
    if (looks_ >= kLooksPerSecond) return absl::OkStatus();
    ++looks_;
  }
  LF_ASSIGN_OR_RETURN(const std::optional<catalog::CertificateRow> row, catalog_.FindCertificate(serial));
  if (row.has_value() && row->not_after >= clock_.Now()) OnCertificates({*row});
  return absl::OkStatus();
}

absl::StatusOr<Caller> CertificateAuthenticator::Identify(std::string_view pem, Role wanted) {
  LF_ASSIGN_OR_RETURN(const Shown shown, Look(pem));
  Caller caller;
  caller.role = shown.role;
  caller.device = shown.device;
  caller.name = shown.name;
  caller.certificate_serial = shown.serial;
  const auto unknown = [&] {
    return Error(absl::StatusCode::kUnauthenticated, "CERTIFICATE_UNKNOWN",
                 fmt::format("certificate {} is not in the catalog", caller.certificate_serial),
                 "enrol the device anew, or use another identity file");
  };
  if (caller.role == Role::kNone) return unknown();
  // Those of devices are issued here, and heard of as they are.
  if (caller.role == Role::kOperator) LF_RETURN_IF_ERROR(LookInCatalog(caller.certificate_serial));
  bool first_use = false;
  {
    MutexLock lock(mu_);
    const auto found = by_serial_.find(caller.certificate_serial);
    if (found == by_serial_.end()) return unknown();
    const catalog::CertificateRow& row = found->second;
    if (row.key_hash != shown.key_hash || row.device != caller.device || row.operator_name != caller.name) return unknown();
    if (row.revoked) {
      return Error(
          absl::StatusCode::kUnauthenticated, "CERTIFICATE_REVOKED",
          fmt::format("certificate {} was revoked, or replaced by a newer one that is in use", caller.certificate_serial),
          caller.role == Role::kDevice ? "if nobody revoked it, two machines may have the same identity; enrol this one anew" : "");
    }
    if (row.not_after < clock_.Now()) {
      return Error(absl::StatusCode::kUnauthenticated, "CERTIFICATE_EXPIRED",
                   fmt::format("certificate {} has expired", caller.certificate_serial));
    }
    first_use = !row.used;
    if (caller.role == Role::kOperator) caller.role = RoleOf(row);
  }
  if (!Suffices(caller.role, wanted)) return WrongRole(caller.role, wanted);
  if (first_use) RecordUse(caller.certificate_serial);
  return caller;
}

void CertificateAuthenticator::RecordUse(const std::string& serial) {
  {
    MutexLock lock(mu_);
    catalog::CertificateRow& row = by_serial_[serial];
    if (row.used) return;
    row.used = true;
  }
  const bool posted = work_.TryPost([this, serial] {
    if (const absl::Status status = catalog_.CertificateUsed(serial, clock_.Now()); !status.ok()) {
      spdlog::warn("certificate {}: record its first use: {}", serial, MessageOf(status));
      MutexLock lock(mu_);
      by_serial_[serial].used = false;
    }
  });
  if (posted) return;
  // The next call tries again.
  MutexLock lock(mu_);
  by_serial_[serial].used = false;
}

void CertificateAuthenticator::OnCertificates(const std::vector<catalog::CertificateRow>& changed) {
  std::set<std::string> revoked, kept;
  {
    MutexLock lock(mu_);
    for (const catalog::CertificateRow& row : changed) {
      auto [entry, is_new] = by_serial_.try_emplace(row.serial, row);
      if (!is_new) {
        // What was revoked or used stays so, in whatever order the news come.
        const bool was_revoked = entry->second.revoked, was_used = entry->second.used;
        entry->second = row;
        entry->second.revoked |= was_revoked;
        entry->second.used |= was_used;
      }
      if (!row.device.value().empty()) (row.revoked ? revoked : kept).insert(row.device.value());
    }
  }
  // A certificate that was replaced by a newer one leaves the device's calls alone; a device without any is out.
  for (const std::string& device : revoked) {
    if (kept.count(device) == 0) live_calls_->CancelAllOf(device);
  }
}

}  // namespace litefleet::rpc
