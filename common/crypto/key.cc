#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

struct FreeMore {
  void operator()(BIO* bio) const noexcept { BIO_free_all(bio); }
  void operator()(EVP_MD_CTX* context) const noexcept { EVP_MD_CTX_free(context); }
  void operator()(PKCS8_PRIV_KEY_INFO* key) const noexcept { PKCS8_PRIV_KEY_INFO_free(key); }
  void operator()(X509_ALGOR* how) const noexcept { X509_ALGOR_free(how); }
  void operator()(X509_SIG* sealed) const noexcept { X509_SIG_free(sealed); }
};
using Bio = std::unique_ptr<BIO, FreeMore>;
using MdContext = std::unique_ptr<EVP_MD_CTX, FreeMore>;

const EVP_MD* DigestFor(EVP_PKEY& key) { return EVP_PKEY_get_base_id(&key) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256(); }

const unsigned char* Data(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

// Never asks at a terminal: encrypted keys are refused.
int NoPassword(char*, int, int, void*) { return -1; }

}  // namespace

void FreeOpenSsl::operator()(EVP_PKEY* key) const noexcept { EVP_PKEY_free(key); }
void FreeOpenSsl::operator()(X509* certificate) const noexcept { X509_free(certificate); }
void FreeOpenSsl::operator()(X509_REQ* request) const noexcept { X509_REQ_free(request); }

absl::Status CryptoError(absl::StatusCode code, std::string_view reason, std::string_view what) {
  char text[256] = "";
  if (const unsigned long error = ERR_get_error(); error != 0) ERR_error_string_n(error, text, sizeof text);
  ERR_clear_error();
  return Error(code, reason, *text == '\0' ? std::string(what) : fmt::format("{}: {}", what, text));
}

absl::StatusOr<Key> GenerateKey() {
  Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  if (key == nullptr) return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "make a key");
  return key;
}

absl::StatusOr<std::string> KeyToPem(EVP_PKEY& key) {
  const Bio bio(BIO_new(BIO_s_secmem()));
  if (bio == nullptr || PEM_write_bio_PKCS8PrivateKey(bio.get(), &key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "write a key");
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<Key> KeyFromPem(std::string_view pem) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  Key key(bio == nullptr ? nullptr : PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassword, nullptr));
  if (key == nullptr) return CryptoError(absl::StatusCode::kInvalidArgument, "KEY_INVALID", "read a private key (PEM, not encrypted)");
  return key;
}

absl::StatusOr<std::string> KeyToEncryptedPem(EVP_PKEY& key, std::string_view passphrase) {
  constexpr uint64_t kN = 1 << 14, kR = 8, kP = 5;  // OpenSSL reads with 32 MiB at most: no larger N
  const std::unique_ptr<PKCS8_PRIV_KEY_INFO, FreeMore> plain(EVP_PKEY2PKCS8(&key));
  std::unique_ptr<X509_ALGOR, FreeMore> how(PKCS5_pbe2_set_scrypt(EVP_aes_256_cbc(), nullptr, 0, nullptr, kN, kR, kP));
  std::unique_ptr<X509_SIG, FreeMore> sealed;
  if (plain != nullptr && how != nullptr) {
    sealed.reset(PKCS8_set0_pbe(passphrase.data(), static_cast<int>(passphrase.size()), plain.get(), how.get()));
    if (sealed != nullptr) static_cast<void>(how.release());  // it belongs to the result now
  }
  const Bio bio(BIO_new(BIO_s_mem()));
  if (sealed == nullptr || bio == nullptr || PEM_write_bio_PKCS8(bio.get(), sealed.get()) != 1) {
    return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "encrypt a key");
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<Key> KeyFromEncryptedPem(std::string_view pem, std::string_view passphrase) {
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const std::unique_ptr<X509_SIG, FreeMore> sealed(bio == nullptr ? nullptr : PEM_read_bio_PKCS8(bio.get(), nullptr, nullptr, nullptr));
  std::unique_ptr<PKCS8_PRIV_KEY_INFO, FreeMore> plain;
  if (sealed != nullptr) plain.reset(PKCS8_decrypt(sealed.get(), passphrase.data(), static_cast<int>(passphrase.size())));
  Key key(plain == nullptr ? nullptr : EVP_PKCS82PKEY(plain.get()));
  ERR_clear_error();
  if (key == nullptr) {
    return Error(absl::StatusCode::kPermissionDenied, "PASSPHRASE_WRONG", "the passphrase does not open the key", "try again");
  }
  return key;
}

absl::Status CheckKeyType(EVP_PKEY& key) {
  switch (EVP_PKEY_get_base_id(&key)) {
    case EVP_PKEY_EC: {
      char group[64] = "";
      size_t size = 0;
      if (EVP_PKEY_get_group_name(&key, group, sizeof group, &size) != 1) break;
      const std::string_view name(group, size);
      if (name == "prime256v1" || name == "P-256" || name == "secp384r1" || name == "P-384") return absl::OkStatus();
      break;
    }
    case EVP_PKEY_ED25519:
      return absl::OkStatus();
    case EVP_PKEY_RSA:
      if (EVP_PKEY_get_bits(&key) >= 2048 && EVP_PKEY_get_bits(&key) <= 8192) return absl::OkStatus();
      break;
    default:
      break;
  }
  ERR_clear_error();
  return Error(
      absl::StatusCode::kInvalidArgument, "KEY_INVALID",
      fmt::format("a key of type {} with {} bits is not accepted", OBJ_nid2sn(EVP_PKEY_get_base_id(&key)), EVP_PKEY_get_bits(&key)),
      "use EC P-256 or P-384, Ed25519, or RSA of at least 2048 bits");
}

Sha256 HashOf(std::string_view data) {
  Sha256 hash{};
  EVP_Digest(data.data(), data.size(), reinterpret_cast<unsigned char*>(hash.data()), nullptr, EVP_sha256(), nullptr);
  return hash;
}

Sha256 PublicKeyHash(EVP_PKEY& key) {
  unsigned char* der = nullptr;
  const int size = i2d_PUBKEY(&key, &der);
  const Sha256 hash = HashOf({reinterpret_cast<const char*>(der), size > 0 ? static_cast<size_t>(size) : 0});
  OPENSSL_free(der);
  return hash;
}

absl::StatusOr<std::string> Sign(EVP_PKEY& key, std::string_view data) {
  const MdContext context(EVP_MD_CTX_new());
  size_t size = 0;
  std::string signature;
  if (context == nullptr || EVP_DigestSignInit(context.get(), nullptr, DigestFor(key), nullptr, &key) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, Data(data), data.size()) != 1) {
    return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "sign");
  }
  signature.resize(size);
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, Data(data), data.size()) != 1) {
    return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "sign");
  }
  signature.resize(size);
  return signature;
}

bool SignatureIsValid(EVP_PKEY& key, std::string_view data, std::string_view signature) {
  const MdContext context(EVP_MD_CTX_new());
  const bool valid = context != nullptr && EVP_DigestVerifyInit(context.get(), nullptr, DigestFor(key), nullptr, &key) == 1 &&
                     EVP_DigestVerify(context.get(), Data(signature), signature.size(), Data(data), data.size()) == 1;
  ERR_clear_error();
  return valid;
}

absl::StatusOr<std::string> MakeSigningRequest(EVP_PKEY& key, std::string_view common_name) {
  const std::unique_ptr<X509_REQ, FreeOpenSsl> request(X509_REQ_new());
  if (request == nullptr || X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 ||
      X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request.get()), "CN", MBSTRING_UTF8, Data(common_name),
                                 static_cast<int>(common_name.size()), -1, 0) != 1 ||
      X509_REQ_set_pubkey(request.get(), &key) != 1 || X509_REQ_sign(request.get(), &key, DigestFor(key)) <= 0) {
    return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "make a certificate signing request");
  }
  unsigned char* der = nullptr;
  const int size = i2d_X509_REQ(request.get(), &der);
  if (size <= 0) return CryptoError(absl::StatusCode::kInternal, "CRYPTO_FAILED", "write a certificate signing request");
  std::string result(reinterpret_cast<const char*>(der), static_cast<size_t>(size));
  OPENSSL_free(der);
  return result;
}

absl::StatusOr<Key> KeyOfSigningRequest(std::string_view der) {
  constexpr size_t kMaxBytes = 16 * 1024;
  if (der.size() > kMaxBytes)
    return Error(absl::StatusCode::kInvalidArgument, "CSR_INVALID", "the certificate signing request is too large");
  const unsigned char* at = Data(der);
  const std::unique_ptr<X509_REQ, FreeOpenSsl> request(d2i_X509_REQ(nullptr, &at, static_cast<long>(der.size())));
  if (request == nullptr || at != Data(der) + der.size()) {
    return CryptoError(absl::StatusCode::kInvalidArgument, "CSR_INVALID", "read the certificate signing request");
  }
  Key key(X509_REQ_get_pubkey(request.get()));
  if (key == nullptr)
    return CryptoError(absl::StatusCode::kInvalidArgument, "CSR_INVALID", "read the key of the certificate signing request");
  if (const absl::Status status = CheckKeyType(*key); !status.ok()) return WithReason(status, "CSR_INVALID");
  if (X509_REQ_verify(request.get(), key.get()) != 1) {
    return CryptoError(absl::StatusCode::kInvalidArgument, "CSR_INVALID", "the signature of the certificate signing request is wrong");
  }
  return key;
}

std::string ToBase64Url(ByteView bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  std::string text;
  uint32_t bits = 0;
  int count = 0;
  for (const std::byte byte : bytes) {
    bits = (bits << 8) | std::to_integer<uint32_t>(byte);
    count += 8;
    while (count >= 6) {
      count -= 6;
      text += kDigits[(bits >> count) & 63];
    }
  }
  if (count > 0) text += kDigits[(bits << (6 - count)) & 63];
  return text;
}

std::optional<Bytes> FromBase64Url(std::string_view text) {
  Bytes bytes;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    uint32_t digit;
    if (c >= 'A' && c <= 'Z') {
      digit = static_cast<uint32_t>(c - 'A');
    } else if (c >= 'a' && c <= 'z') {
      digit = static_cast<uint32_t>(c - 'a') + 26;
    } else if (c >= '0' && c <= '9') {
      digit = static_cast<uint32_t>(c - '0') + 52;
    } else if (c == '-') {
      digit = 62;
    } else if (c == '_') {
      digit = 63;
    } else {
      return std::nullopt;
    }
    bits = (bits << 6) | digit;
    count += 6;
    if (count >= 8) {
      count -= 8;
      bytes.push_back(static_cast<std::byte>((bits >> count) & 0xff));
    }
  }
  // A single digit more than whole bytes, or bits that no encoder would set: not what was written.
  if (count >= 6 || (bits & ((1u << count) - 1)) != 0) return std::nullopt;
  return bytes;
}

}  // namespace litefleet::crypto
