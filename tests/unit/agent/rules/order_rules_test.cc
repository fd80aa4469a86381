#include "agent/rules/order_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::rules {
namespace {

using ::testing::HasSubstr;

constexpr char kDevice[] = "6d1f0e9a-7a55-4c0f-8f58-0123456789ab";
constexpr char kOperation[] = "01JDAAAAAAAAAAAAAAAAAAAAAA";

class OrderRulesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "rules-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = std::filesystem::canonical(pattern);
    auto state = state::StateDirectory::Open(folder_ + "/state");
    ASSERT_TRUE(state.ok()) << state.status();
    state_.emplace(*std::move(state));
    rules_.emplace(*state_, clock_);
    facts_ = {"signed", folder_ + "/agent.toml", folder_ + "/order-keys", kDevice};
    Write(facts_.config_path, "# trusted");
    auto key = crypto::GenerateOrderKey();
    ASSERT_TRUE(key.ok());
    key_ = *std::move(key);
    Write(facts_.order_keys, "# ada\n" + crypto::PublicKeyToPem(*key_).value());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
    chmod(path.c_str(), 0600);
  }
  storage::v1::SignedRestoreOrder Content(uint64_t counter) const {
    storage::v1::SignedRestoreOrder content;
    content.set_device_id(kDevice);
    content.set_database("app");
    content.set_root_digest(std::string(32, 'r'));
    content.set_expires_at_ms(ToUnixMillis(clock_.Now() + std::chrono::hours(1)));
    content.set_counter(counter);
    return content;
  }
  v1::Order Order(const std::string& operation = kOperation) const {
    v1::Order order;
    order.set_operation_id(operation);
    *order.mutable_expires_at() = ToProtoTime(clock_.Now() + std::chrono::hours(24));
    order.mutable_restore()->set_database("app");
    order.mutable_restore()->set_root_digest(std::string(32, 'r'));
    return order;
  }
  v1::Order Signed(const storage::v1::SignedRestoreOrder& content, const std::string& operation = kOperation) const {
    v1::Order order = Order(operation);
    v1::OrderSignature& signature = *order.mutable_restore()->mutable_signature();
    signature.set_payload(content.SerializeAsString());
    signature.set_signature(crypto::SignOrder(*key_, signature.payload()).value());
    return order;
  }
  std::string Reason(const v1::Order& order) { return ReasonOf(rules_->Check(facts_, order)); }

  std::string folder_;
  FakeClock clock_;
  std::optional<state::StateDirectory> state_;
  std::optional<OrderRules> rules_;
  RuleFacts facts_;
  crypto::Key key_;
};

TEST_F(OrderRulesTest, AllowAllowsAndNeverNever) {
  facts_.rule = "allow";
  EXPECT_EQ(Reason(Order()), "");
  facts_.rule = "never";
  EXPECT_EQ(Reason(Order()), "PUSH_RESTORE_REFUSED");
  EXPECT_EQ(Reason(Signed(Content(1))), "PUSH_RESTORE_REFUSED");
  facts_.rule = "something else";
  EXPECT_EQ(Reason(Order()), "PUSH_RESTORE_REFUSED") << "closed where nobody knows";
}

TEST_F(OrderRulesTest, ASignedOrderIsTakenOnce) {
  const v1::Order order = Signed(Content(5));
  EXPECT_EQ(Reason(order), "");
  EXPECT_EQ(Reason(order), "") << "the same operation after a restart";
  v1::Order replayed = order;
  replayed.set_operation_id("01JDBBBBBBBBBBBBBBBBBBBBBB");
  EXPECT_EQ(Reason(replayed), "COUNTER_TOO_LOW");
  EXPECT_EQ(Reason(Signed(Content(4), "01JDCCCCCCCCCCCCCCCCCCCCCC")), "COUNTER_TOO_LOW");
  EXPECT_EQ(Reason(Signed(Content(6), "01JDCCCCCCCCCCCCCCCCCCCCCC")), "");
  // Also for another program on the same state.
  rules_.emplace(*state_, clock_);
  EXPECT_EQ(Reason(order), "COUNTER_TOO_LOW");
}

TEST_F(OrderRulesTest, WhatIsSignedIsWhatIsDone) {
  EXPECT_EQ(Reason(Order()), "ORDER_NOT_SIGNED");
  auto other = Content(1);
  other.set_device_id("6d1f0e9a-7a55-4c0f-8f58-0123456789ff");
  EXPECT_THAT(MessageOf(rules_->Check(facts_, Signed(other))), HasSubstr("another device"));
  other = Content(1);
  other.set_database("other");
  EXPECT_EQ(Reason(Signed(other)), "SIGNATURE_INVALID");
  other = Content(1);
  other.set_root_digest(std::string(32, 'x'));
  EXPECT_EQ(Reason(Signed(other)), "SIGNATURE_INVALID");
  v1::Order tables = Signed(Content(1));
  tables.mutable_restore()->add_tables("users");
  EXPECT_EQ(Reason(tables), "SIGNATURE_INVALID");
  EXPECT_EQ(Reason(Signed(Content(1))), "") << "none of them has used the counter up";
}

TEST_F(OrderRulesTest, EveryChangedByteIsSeen) {
  const v1::Order order = Signed(Content(1));
  const std::string payload = order.restore().signature().payload();
  for (size_t i = 0; i < payload.size(); ++i) {
    v1::Order tampered = order;
    (*tampered.mutable_restore()->mutable_signature()->mutable_payload())[i] ^= 1;
    EXPECT_EQ(Reason(tampered), "SIGNATURE_INVALID") << i;
  }
  for (size_t i = 0; i < 64; ++i) {
    v1::Order tampered = order;
    (*tampered.mutable_restore()->mutable_signature()->mutable_signature())[i] ^= 0x80;
    EXPECT_EQ(Reason(tampered), "SIGNATURE_INVALID") << i;
  }
  v1::Order cut = order;
  cut.mutable_restore()->mutable_signature()->mutable_signature()->pop_back();
  EXPECT_EQ(Reason(cut), "SIGNATURE_INVALID");
  // A signature of the same key for something else.
  v1::Order foreign = order;
  foreign.mutable_restore()->mutable_signature()->set_signature(crypto::Sign(*key_, payload).value());
  EXPECT_EQ(Reason(foreign), "SIGNATURE_INVALID");
}

TEST_F(OrderRulesTest, ExpiryIsByTheDevicesClock) {
  const v1::Order order = Signed(Content(1));
  clock_.Advance(std::chrono::hours(1));
  EXPECT_EQ(Reason(order), "ORDER_EXPIRED");
  EXPECT_EQ(Reason(Signed(Content(1))), "") << "an expired one uses no counter up";
}

TEST_F(OrderRulesTest, KeysOfOthersCountForNothing) {
  key_ = crypto::GenerateOrderKey().value();
  EXPECT_EQ(Reason(Signed(Content(1))), "SIGNATURE_INVALID");
  // A second operator.
  std::ofstream(facts_.order_keys, std::ios::app) << crypto::PublicKeyToPem(*key_).value();
  EXPECT_EQ(Reason(Signed(Content(1))), "");
  Write(facts_.order_keys, "nothing");
  EXPECT_EQ(Reason(Signed(Content(2))), "KEY_FILE_UNSAFE");
  Write(facts_.order_keys, crypto::PublicKeyToPem(*crypto::GenerateKey().value()).value());
  EXPECT_EQ(Reason(Signed(Content(2))), "KEY_FILE_UNSAFE") << "another kind of key";
  std::filesystem::remove(facts_.order_keys);
  EXPECT_EQ(Reason(Signed(Content(2))), "KEY_FILE_UNSAFE");
}

TEST_F(OrderRulesTest, FilesThatOthersMayWriteDecideNothing) {
  chmod(facts_.order_keys.c_str(), 0666);
  EXPECT_EQ(Reason(Signed(Content(1))), "KEY_FILE_UNSAFE");
  chmod(facts_.order_keys.c_str(), 0644);
  EXPECT_EQ(Reason(Signed(Content(1))), "");
  chmod(facts_.config_path.c_str(), 0602);
  EXPECT_EQ(Reason(Signed(Content(2))), "CONFIG_NOT_TRUSTED");
  facts_.rule = "local-confirm";
  EXPECT_EQ(Reason(Order()), "CONFIG_NOT_TRUSTED");
  chmod(facts_.config_path.c_str(), 0644);
  chmod(folder_.c_str(), 0777);
  EXPECT_EQ(Reason(Order()), "CONFIG_NOT_TRUSTED") << "who may write to the directory puts another file there";
  chmod(folder_.c_str(), 0700);
}

TEST_F(OrderRulesTest, AnUndoAndItsRemovalAreNotSignedAndMayBeConfirmed) {
  v1::Order undo, drop;
  undo.set_operation_id(kOperation);
  undo.mutable_undo()->set_database("app");
  drop.set_operation_id(kOperation);
  drop.mutable_drop_undo()->set_database("app");
  for (const v1::Order& order : {undo, drop}) {
    facts_.rule = "signed";
    EXPECT_EQ(Reason(order), "PUSH_RESTORE_REFUSED");
    facts_.rule = "local-confirm";
    EXPECT_TRUE(rules_->Waits(facts_, order));
    ASSERT_TRUE(state_->WriteConfirmation(kOperation).ok());
    EXPECT_FALSE(rules_->Waits(facts_, order));
    EXPECT_EQ(Reason(order), "");
    ASSERT_TRUE(rules_->Forget(kOperation).ok());
    facts_.rule = "never";
    EXPECT_EQ(Reason(order), "PUSH_RESTORE_REFUSED");
  }
}

TEST_F(OrderRulesTest, AConfirmationIsWaitedForUntilTheOrderExpires) {
  facts_.rule = "local-confirm";
  const v1::Order order = Order();
  EXPECT_TRUE(rules_->Waits(facts_, order));
  EXPECT_EQ(Reason(order), "ORDER_EXPIRED");
  ASSERT_TRUE(state_->WriteConfirmation("01JDBBBBBBBBBBBBBBBBBBBBBB").ok());
  EXPECT_TRUE(rules_->Waits(facts_, order)) << "of another operation";
  ASSERT_TRUE(state_->WriteConfirmation(kOperation).ok());
  EXPECT_FALSE(rules_->Waits(facts_, order));
  EXPECT_EQ(Reason(order), "");
  ASSERT_TRUE(rules_->Forget(kOperation).ok());
  EXPECT_TRUE(rules_->Waits(facts_, order));
  clock_.Advance(std::chrono::hours(24));
  EXPECT_FALSE(rules_->Waits(facts_, order)) << "it ends";
  EXPECT_EQ(Reason(order), "ORDER_EXPIRED");
  // A link is not what somebody has confirmed.
  std::filesystem::create_symlink("/etc/passwd", folder_ + "/state/confirmations/" + kOperation);
  EXPECT_EQ(Reason(order), "ORDER_EXPIRED");
  facts_.rule = "allow";
  EXPECT_FALSE(rules_->Waits(facts_, order));
}

TEST_F(OrderRulesTest, ACrashBehindTheCounterLetsTheSameOrderGoOnAndNoOther) {
  const v1::Order order = Signed(Content(5));
  const pid_t pid = fork();
  if (pid == 0) {
    setenv("LITEFLEET_CRASH_AT", "rules.counter_durable", 1);
    static_cast<void>(rules_->Check(facts_, order));
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  EXPECT_EQ(Reason(order), "");
  v1::Order replayed = order;
  replayed.set_operation_id("01JDBBBBBBBBBBBBBBBBBBBBBB");
  EXPECT_EQ(Reason(replayed), "COUNTER_TOO_LOW");
}

TEST_F(OrderRulesTest, ADamagedCounterStopsOrdersRatherThanLettingOldOnesIn) {
  ASSERT_EQ(Reason(Signed(Content(5))), "");
  Write(folder_ + "/state/orders.counter", "xxxx");
  EXPECT_EQ(Reason(Signed(Content(6), "01JDBBBBBBBBBBBBBBBBBBBBBB")), "STATE_DAMAGED");
}

}  // namespace
}  // namespace litefleet::rules
