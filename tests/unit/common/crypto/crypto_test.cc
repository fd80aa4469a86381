#include <gtest/gtest.h>

#include "common/base/status.h"
#include "common/crypto/token.h"
#include "common/crypto/x509.h"

namespace litefleet::crypto {
namespace {

TEST(Base64UrlTest, RoundTripsEveryLength) {
  for (size_t size = 0; size < 67; ++size) {
    Bytes bytes(size);
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 37 + size);
    const std::string text = ToBase64Url(bytes);
    EXPECT_EQ(text.find_first_of("+/="), std::string::npos);
    EXPECT_EQ(FromBase64Url(text), bytes);
  }
}

TEST(Base64UrlTest, RefusesWhatNoEncoderWrites) {
  EXPECT_FALSE(FromBase64Url("A").has_value());
  EXPECT_FALSE(FromBase64Url("AB").has_value());  // bits that would be lost
  EXPECT_FALSE(FromBase64Url("A+AA").has_value());
  EXPECT_FALSE(FromBase64Url("AA==").has_value());
}

TEST(KeyTest, AnEncryptedKeyOpensWithItsPassphraseAlone) {
  const auto key = GenerateKey();
  ASSERT_TRUE(key.ok());
  const auto pem = KeyToEncryptedPem(**key, "correct horse");
  ASSERT_TRUE(pem.ok()) << pem.status();
  EXPECT_EQ(pem->find("-----BEGIN ENCRYPTED PRIVATE KEY-----"), 0U);
  const auto opened = KeyFromEncryptedPem(*pem, "correct horse");
  ASSERT_TRUE(opened.ok()) << opened.status();
  EXPECT_EQ(PublicKeyHash(**opened), PublicKeyHash(**key));
  EXPECT_EQ(ReasonOf(KeyFromEncryptedPem(*pem, "wrong horse").status()), "PASSPHRASE_WRONG");
  std::string damaged = *pem;
  damaged[damaged.size() / 2] ^= 1;
  EXPECT_FALSE(KeyFromEncryptedPem(damaged, "correct horse").ok());
  EXPECT_FALSE(KeyFromPem(*pem).ok()) << "never asks";
}

TEST(TokenTest, RoundTripsWithWhiteSpaceAround) {
  const EnrollmentToken token = NewEnrollmentToken(HashOf("ca"));
  const auto parsed = ParseToken(" " + FormatToken(token) + "\r\n");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->secret, token.secret);
  EXPECT_EQ(parsed->ca_fingerprint, HashOf("ca"));
  EXPECT_NE(NewEnrollmentToken(HashOf("ca")).secret, token.secret);
}

TEST(TokenTest, RefusesAnythingElseWithoutRepeatingIt) {
  const std::string good = FormatToken(NewEnrollmentToken(HashOf("ca")));
  for (const std::string& bad : {std::string(), std::string("secret"), good.substr(0, good.size() - 1), good.substr(1), good + "A",
                                 std::string("lft1.."), "lft2." + good.substr(5)}) {
    const auto parsed = ParseToken(bad);
    ASSERT_FALSE(parsed.ok()) << bad;
    EXPECT_EQ(ReasonOf(parsed.status()), "TOKEN_MALFORMED");
    if (bad.size() > 8) {
      EXPECT_EQ(MessageOf(parsed.status()).find(bad), std::string::npos);
    }
  }
}

TEST(KeyTest, SurvivesPem) {
  const auto key = GenerateKey();
  ASSERT_TRUE(key.ok());
  const auto pem = KeyToPem(**key);
  ASSERT_TRUE(pem.ok());
  const auto again = KeyFromPem(*pem);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(PublicKeyHash(**key), PublicKeyHash(**again));
  EXPECT_EQ(ReasonOf(KeyFromPem("nonsense").status()), "KEY_INVALID");
}

TEST(KeyTest, SignsForItsOwnDataAlone) {
  const auto key = GenerateKey(), other = GenerateKey();
  ASSERT_TRUE(key.ok() && other.ok());
  const auto signature = Sign(**key, "data");
  ASSERT_TRUE(signature.ok());
  EXPECT_TRUE(SignatureIsValid(**key, "data", *signature));
  EXPECT_FALSE(SignatureIsValid(**key, "date", *signature));
  EXPECT_FALSE(SignatureIsValid(**other, "data", *signature));
  EXPECT_FALSE(SignatureIsValid(**key, "data", ""));
}

TEST(SigningRequestTest, GivesItsKey) {
  const auto key = GenerateKey();
  ASSERT_TRUE(key.ok());
  const auto request = MakeSigningRequest(**key, "device");
  ASSERT_TRUE(request.ok());
  const auto found = KeyOfSigningRequest(*request);
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(PublicKeyHash(**found), PublicKeyHash(**key));
}

TEST(SigningRequestTest, RefusesEveryChangedByte) {
  const auto key = GenerateKey();
  ASSERT_TRUE(key.ok());
  const auto request = MakeSigningRequest(**key, "device");
  ASSERT_TRUE(request.ok());
  for (size_t i = 0; i < request->size(); ++i) {
    std::string changed = *request;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    const auto found = KeyOfSigningRequest(changed);
    EXPECT_FALSE(found.ok() && PublicKeyHash(**found) != PublicKeyHash(**key)) << "byte " << i;
    if (i > 4 && i + 8 < request->size()) {
      EXPECT_FALSE(found.ok()) << "byte " << i;
    }
  }
  EXPECT_EQ(ReasonOf(KeyOfSigningRequest("").status()), "CSR_INVALID");
  EXPECT_EQ(ReasonOf(KeyOfSigningRequest(std::string(20'000, 'x')).status()), "CSR_INVALID");
}

}  // namespace
}  // namespace litefleet::crypto
