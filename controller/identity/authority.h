// The certificate authority of one controller: a root and three intermediates, for servers, devices and operators.
//
//   DATA/ca/                       0700; keys 0600
//     root.pem root-key.pem        20 years
//     servers.pem devices.pem operators.pem and their keys: 20 years, path length 0, limited to serverAuth or clientAuth
//     server.pem server-key.pem    1 year, with the names of `hosts`
//     hosts                        names and addresses of this controller, one a line
//
// All keys are EC P-256. Everything is valid from 1970-01-01 on: a device without a clock would refuse it otherwise. What a signing
// request asks for beside its key is ignored; the issued names are
//   devices    URI litefleet://device/UUID, clientAuth, 90 days
//   operators  URI litefleet://operator/NAME, clientAuth, 10 years
// Revocation is not the CA's job: the catalog knows every certificate by serial (rpc/auth).
//
// Thread safety: all members may be called from any thread; the hosts and the server certificate are guarded. Blocks on the disk.
// Errors: kNotFound CA_NOT_FOUND, kDataLoss CA_DAMAGED, those of io and crypto.
#ifndef LITEFLEET_CONTROLLER_IDENTITY_AUTHORITY_H_
#define LITEFLEET_CONTROLLER_IDENTITY_AUTHORITY_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/mutex.h"
#include "common/crypto/x509.h"
#include "common/rpc/identity_file.h"

namespace litefleet::identity {

inline constexpr std::string_view kDeviceUri = "litefleet://device/";
inline constexpr std::string_view kOperatorUri = "litefleet://operator/";
inline constexpr std::chrono::hours kDeviceLifetime{90 * 24};
inline constexpr std::chrono::hours kServerLifetime{365 * 24};

struct Issued {
  std::string certificate_chain;  // PEM: the new one, then its intermediate
  std::string serial;
  crypto::Sha256 key_hash{};
  SystemTime not_after;
};

// Before certificates for years are made. Errors: kFailedPrecondition CLOCK_NOT_SET where no clock that was set says this.
absl::Status CheckClock(SystemTime now);

class Authority {
 public:
  // Makes everything but the server certificate. REQUIRES: `directory` is missing or empty. A crash leaves a directory that Open
  // refuses: remove it.
  static absl::Status Create(const std::string& directory, const std::vector<std::string>& hosts, SystemTime now);
  static absl::StatusOr<std::unique_ptr<Authority>> Open(const std::string& directory);

  // All keys and certificates of the CA and the hosts as one text, the keys encrypted: PEM, which `openssl` reads piece by piece.
  absl::StatusOr<std::string> Export(std::string_view passphrase) const;
  // Makes `directory`, which must be missing or empty, out of such a text. kInvalidArgument KEYS_INVALID, kPermissionDenied
  // PASSPHRASE_WRONG; nothing is written then.
  static absl::Status Import(const std::string& directory, std::string_view exported, std::string_view passphrase);

  const std::string& root_pem() const { return root_pem_; }
  const crypto::Sha256& root_fingerprint() const { return root_fingerprint_; }
  SystemTime root_not_after() const { return crypto::NotAfter(*root_.certificate); }

  absl::StatusOr<Issued> IssueDevice(const DeviceId& device, EVP_PKEY& key, SystemTime now) const;
  absl::StatusOr<Issued> IssueOperator(const std::string& name, EVP_PKEY& key, SystemTime now) const;
  // Names, key identifier and signature; not the time.
  bool IssuedForDevice(X509& certificate) const;

  // The subjects' names of the intermediates, as a certificate's issuer is compared with them. An intermediate may not issue further
  // CAs, so after TLS has verified a chain up to the root the issuer's name says what the certificate is for.
  bool HasDeviceIssuer(X509& certificate) const;
  bool HasOperatorIssuer(X509& certificate) const;

  // ---- the server's own certificate
  std::vector<std::string> hosts() const;
  // Durable; the certificate follows with the next EnsureServerIdentity. kInvalidArgument HOST_INVALID, kAlreadyExists HOST_EXISTS,
  // kNotFound HOST_NOT_FOUND, kFailedPrecondition LAST_HOST.
  absl::Status AddHost(const std::string& host);
  absl::Status RemoveHost(const std::string& host);
  // Reads the files again; issues a new certificate where there is none, a third of its life or less is left, or the hosts have
  // changed. The chain holds the intermediate and the root, so that a device can match the root's fingerprint.
  absl::StatusOr<rpc::Identity> EnsureServerIdentity(SystemTime now);
  // When that should be called again.
  static SystemTime ServerRenewalTime(SystemTime not_after) { return not_after - kServerLifetime / 3; }

 private:
  struct Signer {
    crypto::Key key;
    crypto::Certificate certificate;
    std::string pem;
  };
  explicit Authority(std::string directory) : directory_(std::move(directory)) {}
  static absl::StatusOr<Signer> Read(const std::string& directory, std::string_view name);
  absl::Status WriteHosts(const std::vector<std::string>& hosts) const;
  absl::StatusOr<std::vector<std::string>> ReadHosts() const;

  // constant after Open
  const std::string directory_;
  Signer root_, servers_, devices_, operators_;
  std::string root_pem_;
  crypto::Sha256 root_fingerprint_{};

  mutable Mutex mu_;  // over the files `hosts`, `server.pem` and `server-key.pem`; held during I/O, by rare calls alone
};

// Host name, fully qualified name and all addresses of interfaces but loopback: what `init` certifies without --host. Never empty.
std::vector<std::string> DefaultHosts();
// kInvalidArgument HOST_INVALID where it is neither a DNS name nor an IP address; addresses come back in canonical form.
absl::StatusOr<std::string> CheckHost(std::string_view host);

}  // namespace litefleet::identity

#endif  // LITEFLEET_CONTROLLER_IDENTITY_AUTHORITY_H_
