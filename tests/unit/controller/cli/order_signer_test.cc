#include "controller/cli/order_signer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "common/io/file.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::cli {
namespace {

class OrderSignerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "signer-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    key_file_ = folder_ + "/key";
    const crypto::Key key = crypto::GenerateOrderKey().value();
    ASSERT_TRUE(io::WriteFileAtomic(key_file_, crypto::KeyToPem(*key).value(), 0600).ok());
    public_ = crypto::OrderKeysFromPem(crypto::PublicKeyToPem(*key).value()).value();
    snapshot_.set_root_digest(std::string(32, 'r'));
    snapshot_.set_content(v1::SNAPSHOT_CONTENT_SQL);
    snapshot_.set_journal_mode(v1::JOURNAL_MODE_WAL);
    snapshot_.set_part("table users");
    restore_.set_mode(v1::RESTORE_MODE_REPLACE);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  storage::v1::SignedRestoreOrder Signed(OrderSigner& signer) {
    const auto signature = signer.Sign("device", "app", snapshot_, restore_, now_ + std::chrono::hours(1));
    EXPECT_TRUE(signature.ok()) << signature.status();
    EXPECT_TRUE(crypto::OrderIsSignedBy(public_, signature->payload(), signature->signature()));
    storage::v1::SignedRestoreOrder order;
    EXPECT_TRUE(order.ParseFromString(signature->payload()));
    return order;
  }

  std::string folder_;
  std::string key_file_;
  std::vector<crypto::Key> public_;
  v1::Snapshot snapshot_;
  v1::RestoreTarget restore_;
  const SystemTime now_ = FromUnixMillis(1'800'000'000'000);
};

TEST_F(OrderSignerTest, SignsWhatIsToBeDone) {
  OrderSigner signer = OrderSigner::Open(key_file_, 0, now_).value();
  storage::v1::SignedRestoreOrder order = Signed(signer);
  EXPECT_EQ(order.format(), crypto::kOrderFormat);
  EXPECT_EQ(order.device_id(), "device");
  EXPECT_EQ(order.database(), "app");
  EXPECT_EQ(order.root_digest(), std::string(32, 'r'));
  EXPECT_EQ(order.mode(), v1::RESTORE_MODE_REPLACE);
  EXPECT_EQ(order.content(), v1::SNAPSHOT_CONTENT_SQL);
  EXPECT_EQ(order.journal_mode(), v1::JOURNAL_MODE_WAL);
  EXPECT_EQ(order.part(), "table users");
  EXPECT_FALSE(order.check_override());
  EXPECT_EQ(order.expires_at_ms(), 1'800'003'600'000);
  EXPECT_EQ(order.counter(), 1'800'000'000'000'000U);
  restore_.set_check_override(true);
  order = Signed(signer);
  EXPECT_TRUE(order.check_override());
  EXPECT_EQ(order.counter(), 1'800'000'000'000'001U);
}

// As the controller puts it into the order.
TEST_F(OrderSignerTest, DamageIsSignedWhereItIsKnown) {
  OrderSigner signer = OrderSigner::Open(key_file_, 7, now_).value();
  EXPECT_FALSE(Signed(signer).damaged());
  snapshot_.set_source_check(v1::CHECK_STATE_DAMAGED);
  EXPECT_TRUE(Signed(signer).damaged());
  snapshot_.set_check(v1::CHECK_STATE_OK);
  EXPECT_FALSE(Signed(signer).damaged());
  snapshot_.set_check(v1::CHECK_STATE_DAMAGED);
  EXPECT_TRUE(Signed(signer).damaged());
}

TEST_F(OrderSignerTest, AKeyThatOthersMayReadIsNone) {
  ASSERT_EQ(chmod(key_file_.c_str(), 0640), 0);
  EXPECT_EQ(ReasonOf(OrderSigner::Open(key_file_, 0, now_).status()), "KEY_FILE_UNSAFE");
}

}  // namespace
}  // namespace litefleet::cli
