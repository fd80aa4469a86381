// The keys by which operators sign orders, so that a device need not believe its controller: Ed25519, the private half with the operator
// alone (`litefleet key create`, or `openssl genpkey -algorithm ed25519`), the public ones in a file on the device.
//
// Thread safety: pure functions. Text is PEM: PKCS #8 and SubjectPublicKeyInfo. Source: RFC 8032, RFC 8410.
#ifndef LITEFLEET_COMMON_CRYPTO_ORDER_KEY_H_
#define LITEFLEET_COMMON_CRYPTO_ORDER_KEY_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/crypto/x509.h"

namespace litefleet::crypto {

// SignedRestoreOrder::format: what is signed besides the state. Higher ones are for what may not be left out.
inline constexpr uint32_t kOrderFormat = 1;

absl::StatusOr<Key> GenerateOrderKey();
absl::StatusOr<std::string> PublicKeyToPem(EVP_PKEY& key);
// kInvalidArgument KEY_INVALID where it is no Ed25519 key, or an encrypted one.
absl::StatusOr<Key> OrderKeyFromPem(std::string_view pem);
// Every PUBLIC KEY block of the text; what stands between them is for people. kInvalidArgument KEY_INVALID where a block is no Ed25519 key,
// or there is none.
absl::StatusOr<std::vector<Key>> OrderKeysFromPem(std::string_view pem);

// Over "litefleet-order", a zero byte, and the payload: what was signed for anything else is no order.
absl::StatusOr<std::string> SignOrder(EVP_PKEY& key, std::string_view payload);
bool OrderIsSignedBy(const std::vector<Key>& keys, std::string_view payload, std::string_view signature);

}  // namespace litefleet::crypto

#endif  // LITEFLEET_COMMON_CRYPTO_ORDER_KEY_H_
