#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <time.h>

#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

struct FreeBio {
  void operator()(BIO* bio) const noexcept { BIO_free_all(bio); }
};
struct FreeNames {
  void operator()(GENERAL_NAMES* names) const noexcept { GENERAL_NAMES_free(names); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;

constexpr size_t kMaxCertificates = 16;

SystemTime ToTime(const ASN1_TIME* time) {
  tm parts{};
  if (time == nullptr || ASN1_TIME_to_tm(time, &parts) != 1) return SystemTime{};
  return SystemTime(std::chrono::seconds(timegm(&parts)));
}

std::unique_ptr<GENERAL_NAMES, FreeNames> AlternativeNames(X509& certificate) {
  return std::unique_ptr<GENERAL_NAMES, FreeNames>(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
}

std::string TextOf(const ASN1_STRING* text) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)), static_cast<size_t>(ASN1_STRING_length(text))};
}

std::string AddressText(const ASN1_STRING* address) {
  char text[INET6_ADDRSTRLEN] = "";
  const int family = ASN1_STRING_length(address) == 4 ? AF_INET : AF_INET6;
  if (family == AF_INET6 && ASN1_STRING_length(address) != 16) return "?";
  inet_ntop(family, ASN1_STRING_get0_data(address), text, sizeof text);
  return text;
}

}  // namespace

absl::StatusOr<std::vector<Certificate>> CertificatesFromPem(std::string_view pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  std::vector<Certificate> certificates;
  while (bio != nullptr) {
    Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (certificate == nullptr) {
      // The end of the text is told by "no start line"; anything else is a broken certificate.
      const unsigned long error = ERR_peek_last_error();
      if (!certificates.empty() && ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE) break;
      return CryptoError(absl::StatusCode::kInvalidArgument, "CERTIFICATE_INVALID", "read a certificate (PEM)");
    }
    certificates.push_back(std::move(certificate));
    if (certificates.size() > kMaxCertificates) {
      return Error(absl::StatusCode::kInvalidArgument, "CERTIFICATE_INVALID", fmt::format("more than {} certificates", kMaxCertificates));
    }
  }
  ERR_clear_error();
  return certificates;
}

absl::StatusOr<Certificate> CertificateFromPem(std::string_view pem) {
  LF_ASSIGN_OR_RETURN(std::vector<Certificate> certificates, CertificatesFromPem(pem));
  return std::move(certificates.front());
}

absl::StatusOr<Certificate> CertificateFromDer(std::string_view der) {
  const auto* begin = reinterpret_cast<const unsigned char*>(der.data());
  const unsigned char* at = begin;
  Certificate certificate(d2i_X509(nullptr, &at, static_cast<long>(der.size())));
  if (certificate == nullptr || at != begin + der.size()) {
    return CryptoError(absl::StatusCode::kInvalidArgument, "CERTIFICATE_INVALID", "read a certificate (DER)");
  }
  return certificate;
}

std::string CertificateToPem(X509& certificate) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_X509(bio.get(), &certificate) != 1) return {};
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

std::string CertificateToDer(X509& certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509(&certificate, &der);
  std::string result(reinterpret_cast<const char*>(der), size > 0 ? static_cast<size_t>(size) : 0);
  OPENSSL_free(der);
  return result;
}

Sha256 Fingerprint(X509& certificate) { return HashOf(CertificateToDer(certificate)); }

Sha256 PublicKeyHash(X509& certificate) {
  EVP_PKEY* key = X509_get0_pubkey(&certificate);
  return key == nullptr ? Sha256{} : PublicKeyHash(*key);
}

std::string SerialOf(X509& certificate) {
  const ASN1_INTEGER* serial = X509_get0_serialNumber(&certificate);
  return ToHex(AsBytes(TextOf(serial)));
}

SystemTime NotBefore(X509& certificate) { return ToTime(X509_get0_notBefore(&certificate)); }
SystemTime NotAfter(X509& certificate) { return ToTime(X509_get0_notAfter(&certificate)); }

std::optional<std::string> UriOf(X509& certificate) {
  const auto names = AlternativeNames(certificate);
  std::optional<std::string> uri;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    if (uri.has_value()) return std::nullopt;
    uri = TextOf(name->d.uniformResourceIdentifier);
  }
  return uri;
}

std::vector<std::string> NamesOf(X509& certificate) {
  const auto names = AlternativeNames(certificate);
  std::vector<std::string> result;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type == GEN_DNS) result.push_back("DNS:" + TextOf(name->d.dNSName));
    if (name->type == GEN_URI) result.push_back("URI:" + TextOf(name->d.uniformResourceIdentifier));
    if (name->type == GEN_IPADD) result.push_back("IP:" + AddressText(name->d.iPAddress));
  }
  return result;
}

bool WasIssuedBy(X509& certificate, X509& issuer) {
  EVP_PKEY* key = X509_get0_pubkey(&issuer);
  const bool issued = key != nullptr && X509_check_issued(&issuer, &certificate) == X509_V_OK && X509_verify(&certificate, key) == 1;
  ERR_clear_error();
  return issued;
}

bool IsSelfSigned(X509& certificate) {
  const bool result = X509_self_signed(&certificate, 1) == 1;
  ERR_clear_error();
  return result;
}

}  // namespace litefleet::crypto
