// Who is known to a running controller, beside another process that changes its catalog.
#include "controller/rpc/authenticator.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "controller/catalog/schema.h"
#include "controller/identity/enrollment.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

class AuthenticatorTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "lf-authenticator-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
    ASSERT_TRUE(identity::Authority::Create(root_ + "/ca", {"backup.example"}, clock_.Now()).ok());
    auto authority = identity::Authority::Open(root_ + "/ca");
    ASSERT_TRUE(authority.ok()) << authority.status();
    authority_ = *std::move(authority);
    own_ = Open(true);
    other_ = Open(false);
    identities_ = std::make_unique<catalog::IdentityCatalog>(*own_);
    auto authenticator = CertificateAuthenticator::Create(*authority_, *identities_, *work_, clock_);
    ASSERT_TRUE(authenticator.ok()) << authenticator.status();
    authenticator_ = *std::move(authenticator);
  }
  void TearDown() override {
    work_.reset();  // what it has to do it does with the others
    authenticator_.reset();
    std::filesystem::remove_all(root_);
  }
  std::unique_ptr<catalog::CatalogDb> Open(bool create) const {
    auto db = catalog::CatalogDb::Open(root_ + "/catalog.db", create, catalog::Migrations());
    EXPECT_TRUE(db.ok()) << db.status();
    return *std::move(db);
  }
  // As `litefleet-controller operator create` does it beside the controller. Its certificate.
  std::string CreateElsewhere(const std::string& name, const std::string& role = "admin") {
    catalog::IdentityCatalog identities(*other_);
    identity::Enrollment enrollment(*authority_, identities, clock_);
    const auto made = enrollment.CreateOperator(name, role);
    EXPECT_TRUE(made.ok()) << made.status();
    return made->certificate_chain;
  }
  // That the CA has made, and nobody has written down: as of a catalog that was lost.
  std::string Unrecorded(const std::string& name) const {
    return authority_->IssueOperator(name, **crypto::GenerateKey(), clock_.Now())->certificate_chain;
  }
  std::string Reason(const std::string& chain, Role wanted = Role::kViewer) const {
    return ReasonOf(authenticator_->Identify(chain, wanted).status());
  }

  std::string root_;
  FakeClock clock_;
  std::optional<ThreadPoolExecutor> work_{std::in_place, 1, 16};
  std::unique_ptr<identity::Authority> authority_;
  std::unique_ptr<catalog::CatalogDb> own_, other_;
  std::unique_ptr<catalog::IdentityCatalog> identities_;
  std::unique_ptr<CertificateAuthenticator> authenticator_;
};

TEST_F(AuthenticatorTest, AnOperatorOfAnotherProcessIsKnownAtTheFirstCall) {
  const std::string ada = CreateElsewhere("ada"), vic = CreateElsewhere("vic", "viewer");
  const auto caller = authenticator_->Identify(ada, Role::kOperator);
  ASSERT_TRUE(caller.ok()) << caller.status();
  EXPECT_EQ(caller->name, "ada");
  EXPECT_EQ(caller->role, Role::kOperator);
  EXPECT_EQ(Reason(vic), "");
  EXPECT_EQ(Reason(vic, Role::kOperator), "WRONG_ROLE");
}

TEST_F(AuthenticatorTest, WhatTheCatalogDoesNotHaveStaysUnknown) {
  EXPECT_EQ(Reason(Unrecorded("eve")), "CERTIFICATE_UNKNOWN");
  const std::string ada = CreateElsewhere("ada");
  ASSERT_TRUE(catalog::IdentityCatalog(*other_).RevokeOperator("ada", clock_.Now()).ok());
  EXPECT_EQ(Reason(ada), "CERTIFICATE_REVOKED") << "of another process, too";
}

// Many who show what nobody knows cost no more than a few reads a second, and keep nobody out who is known.
TEST_F(AuthenticatorTest, TheCatalogIsAskedAFewTimesASecondAtMost) {
  const std::string known = CreateElsewhere("known");
  ASSERT_EQ(Reason(known), "");
  clock_.Advance(std::chrono::seconds(1));
  const std::string eve = Unrecorded("eve");
  // The same one again costs as much as another.
  for (int i = 0; i < CertificateAuthenticator::kLooksPerSecond - 1; ++i) EXPECT_EQ(Reason(eve), "CERTIFICATE_UNKNOWN");
  const std::string ada = CreateElsewhere("ada"), bob = CreateElsewhere("bob");
  EXPECT_EQ(Reason(ada), "") << "the last look of this second";
  EXPECT_EQ(Reason(bob), "CERTIFICATE_UNKNOWN");
  EXPECT_EQ(Reason(known), "");
  EXPECT_EQ(Reason(ada), "");
  clock_.Advance(std::chrono::milliseconds(999));
  EXPECT_EQ(Reason(bob), "CERTIFICATE_UNKNOWN");
  clock_.Advance(std::chrono::milliseconds(1));
  EXPECT_EQ(Reason(bob), "");
  // News of the catalog need no look.
  const std::string carl = CreateElsewhere("carl");
  for (int i = 0; i < 2 * CertificateAuthenticator::kLooksPerSecond; ++i) EXPECT_EQ(Reason(eve), "CERTIFICATE_UNKNOWN");
  EXPECT_EQ(Reason(carl), "CERTIFICATE_UNKNOWN");
  ASSERT_TRUE(authenticator_->Refresh().ok());
  EXPECT_EQ(Reason(carl), "");
}

// A fleet of forgotten ones that try again keeps no new operator waiting.
TEST_F(AuthenticatorTest, ForADeviceTheCatalogIsNotAsked) {
  const DeviceId gone("11111111-1111-4111-8111-111111111111");
  const std::string chain = authority_->IssueDevice(gone, **crypto::GenerateKey(), clock_.Now())->certificate_chain;
  for (int i = 0; i < 2 * CertificateAuthenticator::kLooksPerSecond; ++i) EXPECT_EQ(Reason(chain, Role::kDevice), "CERTIFICATE_UNKNOWN");
  EXPECT_EQ(Reason(CreateElsewhere("ada")), "");
}

}  // namespace
}  // namespace litefleet::rpc
