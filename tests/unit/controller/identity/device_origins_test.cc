// What tells of a copied identity, and what does not.
#include "controller/catalog/device_origins.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/schema.h"
#include "fmt/format.h"

namespace litefleet::catalog {
namespace {

using std::chrono::hours;

class DeviceOriginsTest : public testing::Test {
 protected:
  DeviceOriginsTest() {
    char name[] = "/tmp/litefleet-origins-XXXXXX";
    directory_ = mkdtemp(name);
    db_ = std::move(CatalogDb::Open(directory_ + "/catalog.db", true, Migrations()).value());
    identities_ = std::make_unique<IdentityCatalog>(*db_);
    Enrol("");
  }
  ~DeviceOriginsTest() override {
    db_.reset();
    std::filesystem::remove_all(directory_);
  }
  // With a token of its own; `for_device` as --for-device.
  void Enrol(const std::string& for_device) {
    NewToken token;
    token.id = NewUlid(clock_.Now());
    token.secret_hash[0] = static_cast<std::byte>(++serial_);
    token.created_at = clock_.Now();
    token.expires_at = clock_.Now() + hours(1);
    token.for_device_id = for_device;
    ASSERT_TRUE(identities_->CreateToken(token).ok());
    KeyHash key{};
    key[0] = static_cast<std::byte>(serial_);
    const auto enrolled = identities_->Enroll(token.secret_hash, key, "kiosk", clock_.Now());
    ASSERT_TRUE(enrolled.ok()) << enrolled.status();
    device_ = enrolled->device;
  }
  void Call(const std::string& boot, const std::string& instance = "") {
    v1::Hello hello;
    hello.set_boot_id(boot);
    hello.set_instance_id(instance);
    hello.set_platform("Linux");
    EXPECT_TRUE(identities_->Seen(device_, clock_.Now(), &hello, 0, nullptr).ok());
  }
  // What is told of the last day.
  std::string Facts() const {
    const auto clones = ListClones(*db_, clock_.Now() - hours(24), 10);
    EXPECT_TRUE(clones.ok()) << clones.status();
    return clones->empty() ? "" : clones->front().name + ": " + clones->front().facts;
  }

  std::string directory_;
  FakeClock clock_;
  std::unique_ptr<CatalogDb> db_;
  std::unique_ptr<IdentityCatalog> identities_;
  DeviceId device_;
  int serial_ = 0;
};

TEST_F(DeviceOriginsTest, CallsAgainRestartsAndOtherHardwareAreNoClones) {
  for (const char* boot : {"a", "a", "b", "b", "c", "", "c"}) Call(boot);
  EXPECT_EQ(Facts(), "");
}

TEST_F(DeviceOriginsTest, ABootThatComesBackTellsOfTwo) {
  for (const char* boot : {"a", "b", "a"}) Call(boot);
  EXPECT_EQ(Facts(), "kiosk: Linux (boot a) and Linux (boot b)");
  clock_.Advance(hours(25));
  Call("a");
  EXPECT_EQ(Facts(), "") << "one alone called since";
  Call("b");
  EXPECT_EQ(Facts(), "kiosk: Linux (boot b) and Linux (boot a)");
}

TEST_F(DeviceOriginsTest, TwoAgentsOfOneMachineAreTold) {
  for (const char* agent : {"1", "1", "2", "2", "3"}) Call("a", agent);
  EXPECT_EQ(Facts(), "") << "restarts";
  Call("a", "1");
  EXPECT_EQ(Facts(), "kiosk: Linux (boot a, agent 1) and Linux (boot a, agent 3)");
}

TEST_F(DeviceOriginsTest, AnAgentThatDoesNotKnowItsInstanceIsToldByTheBoot) {
  for (const char* agent : {"", "1", "", "2", ""}) Call("a", agent);  // updated, and taken back
  EXPECT_EQ(Facts(), "");
  Call("b", "3");
  Call("a");
  EXPECT_EQ(Facts(), "kiosk: Linux (boot a) and Linux (boot b, agent 3)");
}

TEST_F(DeviceOriginsTest, EnrollingAnewBeginsAnew) {
  for (const char* boot : {"a", "b", "a"}) Call(boot);
  ASSERT_NE(Facts(), "");
  Enrol(device_.value());
  EXPECT_EQ(Facts(), "");
  Call("a");
  EXPECT_EQ(Facts(), "") << "what was before does not count";
}

TEST_F(DeviceOriginsTest, ARevokedDeviceIsNoAlarm) {
  for (const char* boot : {"a", "b", "a"}) Call(boot);
  ASSERT_TRUE(identities_->RevokeDevice(device_).ok());
  EXPECT_EQ(Facts(), "");
}

TEST_F(DeviceOriginsTest, RowsAreBounded) {
  for (int i = 0; i < 100; ++i) Call(fmt::format("boot {}", i));
  EXPECT_TRUE(db_->Read([&](sqlite3* db) -> absl::Status {
                   LF_ASSIGN_OR_RETURN(const int64_t count, sqlite::QueryInt(db, "select count(*) from device_origin"));
                   EXPECT_EQ(count, kOriginsKept);
                   return absl::OkStatus();
                 })
                  .ok());
}

// What is spooled was taken while the device was not heard: a link that is cut while it arrives does not make that gap shorter.
TEST_F(DeviceOriginsTest, TheGapOfADeviceWhoseSpoolArrivesGoesOn) {
  const auto heard_before = [&] { return identities_->LastContact(device_)->seen_before; };
  const auto call = [&](uint32_t spooled) {
    v1::Hello hello;
    hello.set_boot_id("a");
    if (spooled > 0) hello.add_databases()->set_spooled_snapshots(spooled);
    EXPECT_TRUE(identities_->Seen(device_, clock_.Now(), &hello, 0, nullptr).ok());
  };
  call(0);
  clock_.Advance(hours(1));
  const SystemTime heard = clock_.Now();
  const v1::Health health;
  ASSERT_TRUE(identities_->Seen(device_, heard, nullptr, 0, &health).ok());
  clock_.Advance(hours(24 * 7));
  call(28);
  EXPECT_EQ(ToUnixMillis(heard_before().value()), ToUnixMillis(heard));
  clock_.Advance(hours(1));
  call(12);
  EXPECT_EQ(ToUnixMillis(heard_before().value()), ToUnixMillis(heard)) << "the rest is of the same week";
  const SystemTime last = clock_.Now();
  clock_.Advance(hours(1));
  call(0);
  EXPECT_EQ(ToUnixMillis(heard_before().value()), ToUnixMillis(last));
}

}  // namespace
}  // namespace litefleet::catalog
