#include "agent/enroll/enroll.h"

#include <grpcpp/client_context.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "agent/enroll/preflight.h"
#include "common/base/crash_point.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/crypto/token.h"
#include "common/io/file.h"
#include "common/rpc/channel.h"
#include "common/rpc/status.h"
#include "fmt/format.h"
#include "litefleet/v1/agent_service.grpc.pb.h"

namespace litefleet::enroll {
namespace {

constexpr std::string_view kProofContext("litefleet-renew\0", 16);

std::string UserAgent() { return std::string("litefleet-agent/") + LITEFLEET_VERSION; }

absl::StatusOr<std::unique_ptr<v1::AgentService::Stub>> StubFor(const rpc::Address& address, rpc::Identity identity) {
  LF_ASSIGN_OR_RETURN(const auto channel, rpc::MakeChannel({address, std::move(identity), UserAgent()}));
  return v1::AgentService::NewStub(channel);
}

void SetDeadline(grpc::ClientContext& context, std::chrono::milliseconds timeout) {
  context.set_deadline(std::chrono::system_clock::now() + timeout);
  context.set_wait_for_ready(false);
}

// While it lives, a cancel ends the call.
class CallWatch {
 public:
  CallWatch(grpc::ClientContext& context, const CancelToken& cancel)
      : thread_([this, &context, &cancel] {
          MutexLock lock(mu_);
          while (!stop_ && !cancel.cancelled()) changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + std::chrono::milliseconds(100));
          if (!stop_) context.TryCancel();
        }) {}
  ~CallWatch() {
    {
      MutexLock lock(mu_);
      stop_ = true;
    }
    changed_.SignalAll();
    thread_.join();
  }
  CallWatch(const CallWatch&) = delete;
  CallWatch& operator=(const CallWatch&) = delete;

 private:
  Mutex mu_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

absl::StatusOr<v1::EnrollResponse> CallEnroll(v1::AgentService::Stub& stub, const v1::EnrollRequest& request,
                                              std::chrono::milliseconds timeout, const CancelToken& cancel) {
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  const CallWatch watch(context, cancel);
  v1::EnrollResponse response;
  LF_RETURN_IF_ERROR(rpc::ToAbsl(stub.Enroll(&context, request, &response)));
  return response;
}

// Proves to have the key of a certificate that the TLS handshake would refuse.
absl::StatusOr<v1::EnrollResponse> RenewByProof(const rpc::Address& address, const state::DeviceIdentity& identity, EVP_PKEY& key,
                                                const std::string& csr, std::chrono::milliseconds timeout, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const auto stub, StubFor(address, {"", "", identity.ca_certificate}));
  LF_ASSIGN_OR_RETURN(const crypto::Certificate certificate, crypto::CertificateFromPem(identity.certificate_chain));
  v1::EnrollRequest request;
  request.mutable_expired()->set_certificate(crypto::CertificateToDer(*certificate));
  LF_ASSIGN_OR_RETURN(v1::EnrollResponse response, CallEnroll(*stub, request, timeout, cancel));
  LF_ASSIGN_OR_RETURN(std::string signature, crypto::Sign(key, std::string(kProofContext) + response.challenge()));
  request.set_csr(csr);
  request.mutable_expired()->set_challenge(response.challenge());
  request.mutable_expired()->set_signature(std::move(signature));
  return CallEnroll(*stub, request, timeout, cancel);
}

absl::StatusOr<v1::RenewCertificateResponse> RenewByCertificate(const rpc::Address& address, const state::DeviceIdentity& identity,
                                                                const std::string& csr, std::chrono::milliseconds timeout,
                                                                const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const auto stub, StubFor(address, {identity.private_key, identity.certificate_chain, identity.ca_certificate}));
  v1::RenewCertificateRequest request;
  request.set_csr(csr);
  v1::RenewCertificateResponse response;
  grpc::ClientContext context;
  SetDeadline(context, timeout);
  const CallWatch watch(context, cancel);
  LF_RETURN_IF_ERROR(rpc::ToAbsl(stub->RenewCertificate(&context, request, &response)));
  return response;
}

}  // namespace

std::string DefaultDeviceName() {
  char host[256] = "";
  if (gethostname(host, sizeof host - 1) != 0 || *host == '\0') return "device";
  std::string name(host);
  name.resize(std::min(name.find('.'), name.size()));
  for (char& c : name) {
    if (!IsName(std::string("a") + c)) c = '-';
  }
  while (!name.empty() && !IsName(name.substr(0, 1))) name.erase(0, 1);
  return name.empty() ? "device" : name.substr(0, 63);
}

absl::StatusOr<state::DeviceIdentity> Enroll(const EnrollOptions& options) {
  LF_ASSIGN_OR_RETURN(const rpc::Address address, rpc::ParseAddress(options.controller));
  if (address.is_unix()) return Error(absl::StatusCode::kInvalidArgument, "ADDRESS_INVALID", "an agent needs HOST:PORT, not a unix socket");
  LF_ASSIGN_OR_RETURN(const crypto::EnrollmentToken token, crypto::ParseToken(options.token));
  LF_RETURN_IF_ERROR(io::MakeDirectory(options.state));
  LF_ASSIGN_OR_RETURN(const io::ProcessLock lock, io::ProcessLock::Acquire(options.state + "/lock"));
  if (const auto present = state::LoadIdentity(options.state); present.ok()) {
    return Error(absl::StatusCode::kAlreadyExists, "ALREADY_ENROLLED",
                 fmt::format("{} holds the identity of {} already", options.state, present->name),
                 "use another state directory, or remove this one to enrol anew");
  }
  LF_ASSIGN_OR_RETURN(const std::string key_pem, state::LoadOrCreateKey(options.state));
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::KeyFromPem(key_pem));

  LF_ASSIGN_OR_RETURN(const std::string root, FetchTrustedRoot(address, token.ca_fingerprint, options.timeout));
  LF_ASSIGN_OR_RETURN(const auto stub, StubFor(address, {"", "", root}));
  v1::EnrollRequest request;
  request.set_device_name(options.name.empty() ? DefaultDeviceName() : options.name);
  LF_ASSIGN_OR_RETURN(*request.mutable_csr(), crypto::MakeSigningRequest(*key, "litefleet device"));
  request.set_token(token.secret);
  LF_ASSIGN_OR_RETURN(const v1::EnrollResponse response, CallEnroll(*stub, request, options.timeout, CancelToken()));
  LF_CRASH_POINT("enroll.after_answer");

  state::DeviceIdentity identity;
  identity.device = DeviceId(response.device_id());
  identity.name = response.device_name();
  identity.controller = address.Text();
  identity.private_key = key_pem;
  identity.certificate_chain = response.certificate_chain();
  identity.ca_certificate = root;  // what the token vouched for, whatever the answer says
  LF_RETURN_IF_ERROR(state::SaveIdentity(options.state, identity));
  return identity;
}

absl::StatusOr<bool> Renew(const std::string& state_directory, const std::string& controller, SystemTime now, Renewal when,
                           std::chrono::milliseconds timeout, state::DeviceIdentity& identity, const CancelToken& cancel) {
  LF_ASSIGN_OR_RETURN(const SystemTime expiry, state::ExpiryOf(identity));
  if (when == Renewal::kIfDue && !state::ShouldRenew(expiry, now)) return false;
  LF_ASSIGN_OR_RETURN(const rpc::Address address, rpc::ParseAddress(controller));
  LF_ASSIGN_OR_RETURN(const crypto::Key key, crypto::KeyFromPem(identity.private_key));
  LF_ASSIGN_OR_RETURN(const std::string csr, crypto::MakeSigningRequest(*key, "litefleet device"));

  state::DeviceIdentity renewed = identity;
  absl::StatusOr<v1::RenewCertificateResponse> by_certificate = absl::UnavailableError("expired");
  if (now < expiry) by_certificate = RenewByCertificate(address, identity, csr, timeout, cancel);
  const auto cancelled = [] { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the renewal was cancelled"); };
  if (by_certificate.ok()) {
    renewed.certificate_chain = by_certificate->certificate_chain();
  } else {
    if (cancel.cancelled()) return cancelled();
    const absl::StatusOr<v1::EnrollResponse> response = RenewByProof(address, identity, *key, csr, timeout, cancel);
    if (!response.ok() && cancel.cancelled()) return cancelled();
    LF_RETURN_IF_ERROR(response.status());
    renewed.certificate_chain = response->certificate_chain();
  }
  LF_CRASH_POINT("renew.after_answer");
  LF_RETURN_IF_ERROR(state::SaveIdentity(state_directory, renewed));
  identity = std::move(renewed);
  return true;
}

}  // namespace litefleet::enroll
