#include "common/crypto/order_key.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#include <algorithm>
#include <memory>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

using Code = absl::StatusCode;

constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----";
constexpr std::string_view kEnd = "-----END PUBLIC KEY-----";
constexpr size_t kMaxKeys = 64;
constexpr size_t kSignatureBytes = 64;

struct FreeBio {
  void operator()(BIO* bio) const noexcept { BIO_free_all(bio); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;

std::string Message(std::string_view payload) {
  std::string message = "litefleet-order";
  message.push_back('\0');
  message += payload;
  return message;
}

absl::Status NoOrderKey() {
  return Error(Code::kInvalidArgument, "KEY_INVALID", "it is no Ed25519 key", "make one: litefleet key create --output FILE");
}

}  // namespace

absl::StatusOr<Key> GenerateOrderKey() {
  Key key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (key == nullptr) return CryptoError(Code::kInternal, "CRYPTO_FAILED", "make a key");
  return key;
}

absl::StatusOr<std::string> PublicKeyToPem(EVP_PKEY& key) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_PUBKEY(bio.get(), &key) != 1) return CryptoError(Code::kInternal, "CRYPTO_FAILED", "write a key");
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<Key> OrderKeyFromPem(std::string_view pem) {
  LF_ASSIGN_OR_RETURN(Key key, KeyFromPem(pem));
  if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519) return NoOrderKey();
  return key;
}

absl::StatusOr<std::vector<Key>> OrderKeysFromPem(std::string_view pem) {
  std::vector<Key> keys;
  for (size_t at = pem.find(kBegin); at != std::string_view::npos; at = pem.find(kBegin, at + 1)) {
    const size_t end = pem.find(kEnd, at);
    if (end == std::string_view::npos) return Error(Code::kInvalidArgument, "KEY_INVALID", "a PUBLIC KEY block has no end");
    const std::string_view block = pem.substr(at, end + kEnd.size() - at);
    const Bio bio(BIO_new_mem_buf(block.data(), static_cast<int>(block.size())));
    Key key(bio == nullptr ? nullptr : PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr));
    if (key == nullptr) return CryptoError(Code::kInvalidArgument, "KEY_INVALID", "a PUBLIC KEY block cannot be read");
    if (EVP_PKEY_get_base_id(key.get()) != EVP_PKEY_ED25519) return NoOrderKey();
    if (keys.size() == kMaxKeys) return Error(Code::kInvalidArgument, "KEY_INVALID", fmt::format("there are more than {} keys", kMaxKeys));
    keys.push_back(std::move(key));
  }
  if (keys.empty()) return Error(Code::kInvalidArgument, "KEY_INVALID", "there is no PUBLIC KEY block");
  return keys;
}

absl::StatusOr<std::string> SignOrder(EVP_PKEY& key, std::string_view payload) { return Sign(key, Message(payload)); }

bool OrderIsSignedBy(const std::vector<Key>& keys, std::string_view payload, std::string_view signature) {
  const std::string message = Message(payload);
  return signature.size() == kSignatureBytes &&
         std::any_of(keys.begin(), keys.end(), [&](const Key& key) { return SignatureIsValid(*key, message, signature); });
}

}  // namespace litefleet::crypto
