// Devices that go away, where something is in the way of it.
#include <gmock/gmock.h>

#include "tests/unit/controller/admin/admin_fixture.h"

namespace litefleet::rpc {
namespace {

class NoRecords final : public catalog::RecordWriter {
 public:
  absl::Status WriteDue() override { return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the disk is gone"); }
};

// An operator who is told that it is done relies on it, also where the catalog is lost.
TEST_F(AdminTest, WhatCouldNotBeRecordedCountsAndIsNotAnsweredAsDone) {
  NoRecords records;
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  fleet_.connected.insert(device.value());
  identities_->SetRecords(&records);
  v1::RevokeDeviceRequest revoke;
  revoke.set_device("kiosk");
  const absl::Status revoked = admin_->RevokeDevice(revoke).status();
  EXPECT_EQ(ReasonOf(revoked), "STORE_FAILED");
  EXPECT_THAT(MessageOf(revoked), testing::HasSubstr("kiosk is revoked"));
  EXPECT_TRUE(fleet_.connected.empty()) << "its streams end";
  EXPECT_EQ(identities_->ResolveDevice("kiosk")->state(), v1::DEVICE_STATE_REVOKED);
  v1::ForgetDeviceRequest forget;
  forget.set_device("kiosk");
  EXPECT_EQ(ReasonOf(admin_->ForgetDevice(forget, "operator:local").status()), "STORE_FAILED");
  EXPECT_TRUE(absl::IsNotFound(identities_->ResolveDevice("kiosk").status()));
  identities_->SetRecords(nullptr);
}

TEST_F(AdminTest, ADeviceThatIsHalfForgottenIsNotEnrolledAnew) {
  const DeviceId device = Enrol("kiosk", {}, {"orders"});
  Snap(device, "orders", clock_.Now());
  int number = 100;
  const auto enrol_anew = [&] {
    catalog::NewToken token;
    token.id = NewUlid(clock_.Now());
    token.expires_at = clock_.Now() + hours(1);
    token.secret_hash[0] = static_cast<std::byte>(++number);
    token.for_device_id = device.value();
    EXPECT_TRUE(identities_->CreateToken(token).ok());
    catalog::KeyHash key{};
    key[0] = static_cast<std::byte>(number);
    return ReasonOf(identities_->Enroll(token.secret_hash, key, "", clock_.Now()).status());
  };
  v1::RevokeDeviceRequest revoke;
  revoke.set_device("kiosk");
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  ASSERT_EQ(enrol_anew(), "");
  EXPECT_EQ(ReasonOf(deletions_->BeginForget(device)), "DEVICE_ACTIVE") << "it came back meanwhile";
  ASSERT_TRUE(admin_->RevokeDevice(revoke).ok());
  ASSERT_TRUE(deletions_->BeginForget(device).ok());
  EXPECT_EQ(enrol_anew(), "DEVICE_BEING_FORGOTTEN");
  v1::ForgetDeviceRequest forget;
  forget.set_device("kiosk");
  forget.set_delete_snapshots(true);
  EXPECT_TRUE(admin_->ForgetDevice(forget, "operator:local").ok());
}

}  // namespace
}  // namespace litefleet::rpc
