#include "common/rpc/identity_file.h"

#include <sys/stat.h>

#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/io/named_file.h"
#include "fmt/format.h"

namespace litefleet::rpc {

std::string FormatIdentity(const Identity& identity) { return identity.private_key + identity.certificate_chain + identity.ca_certificate; }

absl::StatusOr<Identity> ParseIdentity(std::string_view pem) {
  const auto invalid = [](std::string_view why) {
    return Error(absl::StatusCode::kInvalidArgument, "IDENTITY_INVALID", why,
                 "use the file that `litefleet-controller init` or `operator create` wrote");
  };
  auto key = crypto::KeyFromPem(pem);
  if (!key.ok()) return invalid("there is no private key in it");
  auto certificates = crypto::CertificatesFromPem(pem);
  if (!certificates.ok()) return invalid("there is no certificate in it");
  if (crypto::PublicKeyHash(**key) != crypto::PublicKeyHash(*certificates->front()))
    return invalid("its key does not belong to its first certificate");
  Identity identity;
  LF_ASSIGN_OR_RETURN(identity.private_key, crypto::KeyToPem(**key));
  for (const crypto::Certificate& certificate : *certificates) {
    (crypto::IsSelfSigned(*certificate) ? identity.ca_certificate : identity.certificate_chain) += crypto::CertificateToPem(*certificate);
  }
  if (identity.ca_certificate.empty()) return invalid("the CA's certificate is missing in it");
  // gRPC would end the process.
  if (identity.certificate_chain.empty()) return invalid("there is no certificate in it that a CA has issued");
  return identity;
}

absl::StatusOr<Identity> ReadIdentityFile(const std::string& path) {
  constexpr io::NamedBy kNamed{"--identity (or LITEFLEET_IDENTITY)",
                               "name the file with key, certificate and CA: admin.pem of the controller's directory, or one that "
                               "`litefleet-controller operator create` made"};
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return io::NamedFileError(ErrnoError(errno, "open " + path), path, kNamed);
  if ((st.st_mode & (S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH)) != 0) {
    return Error(absl::StatusCode::kPermissionDenied, "IDENTITY_EXPOSED",
                 fmt::format("{} holds a private key and others may read it", path), fmt::format("chmod 600 {}", path));
  }
  LF_ASSIGN_OR_RETURN(const std::string pem, io::ReadNamedFile(path, kNamed, 256 * 1024));
  auto identity = ParseIdentity(pem);
  if (!identity.ok()) return Annotate(identity.status(), path);
  return identity;
}

}  // namespace litefleet::rpc
