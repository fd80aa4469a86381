#include "common/crypto/token.h"

#include <algorithm>
#include <array>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::crypto {
namespace {

constexpr std::string_view kPrefix = "lft1.";
constexpr size_t kSecretBytes = 32;

}  // namespace

EnrollmentToken NewEnrollmentToken(const Sha256& ca_fingerprint) {
  std::array<std::byte, kSecretBytes> secret;
  RandomBytes(secret);
  return {ToBase64Url(secret), ca_fingerprint};
}

std::string FormatToken(const EnrollmentToken& token) {
  return fmt::format("{}{}.{}", kPrefix, token.secret, ToBase64Url(token.ca_fingerprint));
}

absl::StatusOr<EnrollmentToken> ParseToken(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  text = begin == std::string_view::npos ? std::string_view() : text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
  const auto malformed = [](std::string_view why) {
    return Error(absl::StatusCode::kInvalidArgument, "TOKEN_MALFORMED", fmt::format("the token is no token of litefleet: {}", why),
                 "copy the whole line that `litefleet token create` printed");
  };
  if (text.empty()) return malformed("it is empty");
  if (text.substr(0, kPrefix.size()) != kPrefix) return malformed("it does not begin with \"lft1.\"");
  text.remove_prefix(kPrefix.size());
  const size_t dot = text.find('.');
  if (dot == std::string_view::npos) return malformed("its last part is missing");
  const auto secret = FromBase64Url(text.substr(0, dot));
  const auto fingerprint = FromBase64Url(text.substr(dot + 1));
  if (!secret.has_value() || secret->size() != kSecretBytes || !fingerprint.has_value() || fingerprint->size() != 32) {
    return malformed("a part of it is cut off or mistyped");
  }
  EnrollmentToken token{std::string(text.substr(0, dot)), {}};
  std::copy(fingerprint->begin(), fingerprint->end(), token.ca_fingerprint.begin());
  return token;
}

Sha256 HashOfSecret(std::string_view secret) { return HashOf(secret); }

}  // namespace litefleet::crypto
