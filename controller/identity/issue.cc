#include "controller/identity/issue.h"

#include <openssl/evp.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <array>
#include <ctime>

#include "common/base/status.h"

namespace litefleet::identity {
namespace {

constexpr int kSerialBytes = 16;

absl::Status Failed(std::string_view what) { return crypto::CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", what); }

bool AddExtension(X509& certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer != nullptr ? issuer : &certificate, &certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_nconf_nid(nullptr, &context, nid, value.c_str());
  const bool added = extension != nullptr && X509_add_ext(&certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

bool SetSerial(X509& certificate) {
  std::array<unsigned char, kSerialBytes> bytes;
  if (RAND_bytes(bytes.data(), kSerialBytes) != 1) return false;
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7f) | 0x40);  // positive, and always of the same length
  BIGNUM* number = BN_bin2bn(bytes.data(), kSerialBytes, nullptr);
  const bool set = number != nullptr && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(&certificate)) != nullptr;
  BN_free(number);
  return set;
}

// As text: OpenSSL's own time_t has 32 bits in the packages of 32-bit machines, ours has 64.
bool SetTime(ASN1_TIME* to, SystemTime at) {
  const auto seconds = static_cast<time_t>(std::chrono::floor<std::chrono::seconds>(at.time_since_epoch()).count());
  struct tm utc {};
  std::array<char, 32> text{};
  return gmtime_r(&seconds, &utc) != nullptr && std::strftime(text.data(), text.size(), "%Y%m%d%H%M%SZ", &utc) > 0 &&
         ASN1_TIME_set_string_X509(to, text.data()) == 1;
}

bool SetNames(X509& certificate, const std::string& common_name, X509* issuer) {
  X509_NAME* name = X509_get_subject_name(&certificate);
  const auto* text = reinterpret_cast<const unsigned char*>(common_name.data());
  return X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("litefleet"), -1, -1, 0) == 1 &&
         X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, text, static_cast<int>(common_name.size()), -1, 0) == 1 &&
         X509_set_issuer_name(&certificate, issuer != nullptr ? X509_get_subject_name(issuer) : name) == 1;
}

std::vector<std::pair<int, std::string>> ExtensionsOf(const CertificateWish& wish, bool self_signed) {
  std::vector<std::pair<int, std::string>> extensions;
  switch (wish.kind) {
    case Kind::kRoot:
      extensions = {{NID_basic_constraints, "critical,CA:TRUE"}, {NID_key_usage, "critical,keyCertSign,cRLSign"}};
      break;
    case Kind::kServersCa:
    case Kind::kClientsCa:
      extensions = {{NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
                    {NID_key_usage, "critical,keyCertSign,cRLSign"},
                    {NID_ext_key_usage, wish.kind == Kind::kServersCa ? "serverAuth" : "clientAuth"}};
      break;
    case Kind::kServer:
    case Kind::kClient:
      extensions = {{NID_basic_constraints, "critical,CA:FALSE"},
                    {NID_key_usage, "critical,digitalSignature"},
                    {NID_ext_key_usage, wish.kind == Kind::kServer ? "serverAuth" : "clientAuth"}};
      break;
  }
  extensions.emplace_back(NID_subject_key_identifier, "hash");
  if (!self_signed) extensions.emplace_back(NID_authority_key_identifier, "keyid:always");
  std::string names;
  for (const std::string& name : wish.alternative_names) names += (names.empty() ? "" : ",") + name;
  if (!names.empty()) extensions.emplace_back(NID_subject_alt_name, names);
  return extensions;
}

}  // namespace

absl::StatusOr<crypto::Certificate> Issue(const CertificateWish& wish, EVP_PKEY& subject, X509* issuer, EVP_PKEY& signer) {
  crypto::Certificate certificate(X509_new());
  if (certificate == nullptr || X509_set_version(certificate.get(), X509_VERSION_3) != 1 || !SetSerial(*certificate) ||
      !SetTime(X509_getm_notBefore(certificate.get()), SystemTime{}) || !SetTime(X509_getm_notAfter(certificate.get()), wish.not_after) ||
      !SetNames(*certificate, wish.common_name, issuer) || X509_set_pubkey(certificate.get(), &subject) != 1) {
    return Failed("build a certificate");
  }
  for (const auto& [nid, value] : ExtensionsOf(wish, issuer == nullptr)) {
    if (!AddExtension(*certificate, issuer, nid, value)) return Failed("add " + std::string(OBJ_nid2sn(nid)) + " to a certificate");
  }
  const EVP_MD* digest = EVP_PKEY_get_base_id(&signer) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256();
  if (X509_sign(certificate.get(), &signer, digest) <= 0) return Failed("sign a certificate");
  return certificate;
}

}  // namespace litefleet::identity
