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
#include <functional>
#include <optional>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/crypto/order_key.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"

namespace litefleet::rules {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kDevice[] = "6d1f0e9a-7a55-4c0f-8f58-0123456789ab";
constexpr char kOperation[] = "01JDAAAAAAAAAAAAAAAAAAAAAA";
constexpr char kSecond[] = "01JDBBBBBBBBBBBBBBBBBBBBBB";
constexpr char kThird[] = "01JDCCCCCCCCCCCCCCCCCCCCCC";

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
    content.set_format(crypto::kOrderFormat);
    content.set_mode(v1::RESTORE_MODE_LIVE);
    content.set_content(v1::SNAPSHOT_CONTENT_DATABASE);
    content.set_journal_mode(v1::JOURNAL_MODE_WAL);
    return content;
  }
  v1::Order Order(const std::string& operation = kOperation) const {
    v1::Order order;
    order.set_operation_id(operation);
    *order.mutable_expires_at() = ToProtoTime(clock_.Now() + std::chrono::hours(24));
    order.mutable_restore()->set_database("app");
    order.mutable_restore()->set_root_digest(std::string(32, 'r'));
    order.mutable_restore()->set_mode(v1::RESTORE_MODE_LIVE);
    order.mutable_restore()->set_content(v1::SNAPSHOT_CONTENT_DATABASE);
    order.mutable_restore()->set_journal_mode(v1::JOURNAL_MODE_WAL);
    order.mutable_restore()->set_check_state(v1::CHECK_STATE_OK);
    return order;
  }
  v1::Order Signed(const storage::v1::SignedRestoreOrder& content, const std::string& operation = kOperation) const {
    v1::Order order = Order(operation);
    order.mutable_restore()->set_database(content.database());
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
  replayed.set_operation_id(kSecond);
  EXPECT_EQ(Reason(replayed), "COUNTER_TOO_LOW");
  EXPECT_EQ(Reason(Signed(Content(4), kThird)), "COUNTER_TOO_LOW");
  EXPECT_EQ(Reason(Signed(Content(6), kThird)), "");
  // Also for another program on the same state.
  rules_.emplace(*state_, clock_);
  EXPECT_EQ(Reason(order), "COUNTER_TOO_LOW");
}

// The controller may send the last one again when its result is recorded, and the device knows nothing of the operation any more.
TEST_F(OrderRulesTest, AnOrderThatHasEndedIsNotTakenAgain) {
  const v1::Order order = Signed(Content(5));
  EXPECT_EQ(Reason(order), "");
  ASSERT_TRUE(rules_->Forget(kSecond).ok());
  EXPECT_EQ(Reason(order), "") << "another one has ended";
  ASSERT_TRUE(rules_->Forget(kOperation).ok());
  EXPECT_EQ(Reason(order), "COUNTER_TOO_LOW");
  rules_.emplace(*state_, clock_);
  EXPECT_EQ(Reason(order), "COUNTER_TOO_LOW") << "durably";
  v1::Order nameless = order;
  nameless.clear_operation_id();
  EXPECT_FALSE(rules_->Check(facts_, nameless).ok());
  clock_.Advance(std::chrono::hours(1));
  EXPECT_EQ(Reason(order), "ORDER_EXPIRED");
  ASSERT_TRUE(rules_->Forget(kOperation).ok()) << "twice";
}

// Two workers, and a backup that one of the orders waits for.
TEST_F(OrderRulesTest, OrdersOfDatabasesAreTakenInAnyOrder) {
  auto content = Content(5);
  const v1::Order first = Signed(content);
  content.set_database("other");
  content.set_counter(6);
  const v1::Order second = Signed(content, kSecond);
  EXPECT_EQ(Reason(second), "");
  EXPECT_EQ(Reason(first), "");
  rules_.emplace(*state_, clock_);
  EXPECT_EQ(Reason(second), "") << "both go on after a restart";
  EXPECT_EQ(Reason(first), "");
  ASSERT_TRUE(rules_->Forget(kSecond).ok());
  EXPECT_EQ(Reason(first), "");
  EXPECT_EQ(Reason(second), "COUNTER_TOO_LOW");
  content.set_counter(5);
  EXPECT_EQ(Reason(Signed(content, kThird)), "COUNTER_TOO_LOW");
}

// Which kept one counter for all.
TEST_F(OrderRulesTest, WhatAnOlderAgentHasTakenCountsForAllDatabases) {
  storage::v1::AgentOrderCounter kept;
  kept.set_counter(7);
  kept.set_operation_id(kOperation);
  ASSERT_TRUE(state_->WriteOrderCounter(kept).ok());
  EXPECT_EQ(Reason(Signed(Content(7))), "COUNTER_TOO_LOW");
  EXPECT_EQ(Reason(Signed(Content(9))), "");
  auto other = Content(7);
  other.set_database("other");
  EXPECT_EQ(Reason(Signed(other, kSecond)), "COUNTER_TOO_LOW");
  other.set_counter(8);
  EXPECT_EQ(Reason(Signed(other, kSecond)), "");
  kept = state_->ReadOrderCounter().value();
  EXPECT_EQ(kept.counter(), 9U) << "what an older agent goes by, should one come back";
  // It did.
  kept.set_counter(20);
  ASSERT_TRUE(state_->WriteOrderCounter(kept).ok());
  other.set_counter(20);
  EXPECT_EQ(Reason(Signed(other, kThird)), "COUNTER_TOO_LOW");
  other.set_counter(21);
  EXPECT_EQ(Reason(Signed(other, kThird)), "");
}

TEST_F(OrderRulesTest, WhatIsSignedIsWhatIsDone) {
  EXPECT_EQ(Reason(Order()), "ORDER_NOT_SIGNED");
  auto other = Content(1);
  other.set_device_id("6d1f0e9a-7a55-4c0f-8f58-0123456789ff");
  EXPECT_THAT(MessageOf(rules_->Check(facts_, Signed(other))), HasSubstr("another device"));
  v1::Order elsewhere = Signed(Content(1));
  elsewhere.mutable_restore()->set_database("other");
  EXPECT_THAT(MessageOf(rules_->Check(facts_, elsewhere)), HasSubstr("another database"));
  other = Content(1);
  other.set_root_digest(std::string(32, 'x'));
  EXPECT_EQ(Reason(Signed(other)), "SIGNATURE_INVALID");
  v1::Order tables = Signed(Content(1));
  tables.mutable_restore()->add_tables("users");
  EXPECT_EQ(Reason(tables), "SIGNATURE_INVALID");
  EXPECT_EQ(Reason(Signed(Content(1))), "") << "none of them has used the counter up";
}

// A state that was signed as a dump is no database to put in a database's place, and no mode is anybody's choice but the operator's.
TEST_F(OrderRulesTest, HowItIsRestoredIsSignedToo) {
  const auto changed = [&](std::string_view what, const std::function<void(v1::RestoreOrder&)>& change) {
    v1::Order order = Signed(Content(1));
    change(*order.mutable_restore());
    const absl::Status checked = rules_->Check(facts_, order);
    EXPECT_EQ(ReasonOf(checked), "SIGNATURE_INVALID") << what;
    EXPECT_THAT(MessageOf(checked), HasSubstr(std::string(what)));
  };
  changed("mode", [](v1::RestoreOrder& order) { order.set_mode(v1::RESTORE_MODE_REPLACE); });
  changed("mode", [](v1::RestoreOrder& order) { order.clear_mode(); });
  changed("content", [](v1::RestoreOrder& order) { order.set_content(v1::SNAPSHOT_CONTENT_SQL); });
  changed("journal mode", [](v1::RestoreOrder& order) { order.set_journal_mode(v1::JOURNAL_MODE_ROLLBACK); });
  changed("part", [](v1::RestoreOrder& order) { order.set_part("table users"); });
  changed("checks", [](v1::RestoreOrder& order) { order.set_check_override(true); });
  changed("verdict", [](v1::RestoreOrder& order) { order.set_check_state(v1::CHECK_STATE_DAMAGED); });
  auto content = Content(1);
  content.set_check_override(true);
  EXPECT_EQ(Reason(Signed(content)), "SIGNATURE_INVALID") << "also the other way round";

  content = Content(1);
  content.set_damaged(true);
  v1::Order damaged = Signed(content);
  damaged.mutable_restore()->set_check_state(v1::CHECK_STATE_DAMAGED);
  EXPECT_EQ(Reason(damaged), "");
  content = Content(2);
  content.set_damaged(true);
  EXPECT_EQ(Reason(Signed(content, kSecond)), "") << "found better since";
}

TEST_F(OrderRulesTest, ASignatureOfAnOlderProgramIsNamedAsOne) {
  auto content = Content(1);
  content.clear_format();
  const absl::Status checked = rules_->Check(facts_, Signed(content));
  EXPECT_EQ(ReasonOf(checked), "SIGNATURE_INVALID");
  EXPECT_THAT(MessageOf(checked), HasSubstr("older program"));
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

// An agent may run as the owner of the databases: what root has written for it counts as what it has written itself, and nothing else.
TEST_F(OrderRulesTest, AnAgentThatIsNotRootTrustsRootAndItself) {
  if (geteuid() != 0) GTEST_SKIP() << "files of other users are made by root alone";
  constexpr uid_t kAgent = 12'345, kOther = 12'346;
  ASSERT_EQ(std::system(fmt::format("chown -R {} '{}'", kAgent, folder_ + "/state").c_str()), 0);
  ASSERT_EQ(chmod(folder_.c_str(), 0755), 0);
  for (const std::string& file : {facts_.config_path, facts_.order_keys}) ASSERT_EQ(chmod(file.c_str(), 0644), 0);
  // What the rules say to a process with that user.
  const auto told = [&](const std::string& rule, const v1::Order& order) {
    const std::string said = folder_ + "/state/said";
    const pid_t pid = fork();
    if (pid == 0) {
      if (setgid(kAgent) != 0 || setuid(kAgent) != 0) _exit(9);
      facts_.rule = rule;
      const absl::Status status = rules_->Check(facts_, order);
      std::ofstream(said) << ReasonOf(status) << " " << MessageOf(status) << " " << HintOf(status);
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return io::ReadFile(said).value_or("nothing");
  };
  EXPECT_EQ(told("signed", Signed(Content(1))), "  ") << "root's files";
  for (const std::string& file : {facts_.config_path, facts_.order_keys}) ASSERT_EQ(chown(file.c_str(), kAgent, kAgent), 0);
  EXPECT_EQ(told("signed", Signed(Content(2), kSecond)), "  ") << "its own files";
  ASSERT_EQ(chown(facts_.order_keys.c_str(), kOther, kOther), 0);
  EXPECT_THAT(told("signed", Signed(Content(3), kThird)),
              AllOf(StartsWith("KEY_FILE_UNSAFE"), HasSubstr("order_keys"), HasSubstr("belongs to the user 12346"),
                    HasSubstr("root or to the agent's user (12345)"), HasSubstr("chown root " + facts_.order_keys)));
  ASSERT_EQ(chown(facts_.config_path.c_str(), kOther, kOther), 0);
  for (const std::string rule : {"signed", "local-confirm"}) {
    EXPECT_THAT(told(rule, Signed(Content(3), kThird)),
                AllOf(StartsWith("CONFIG_NOT_TRUSTED"), HasSubstr("push_restore"), HasSubstr("agent.toml belongs to the user 12346")))
        << rule;
  }
  // These two need no file that can be trusted: one allows nothing, and the other one everything.
  EXPECT_THAT(told("never", Order()), StartsWith("PUSH_RESTORE_REFUSED"));
  EXPECT_EQ(told("allow", Order()), "  ");
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
    ASSERT_TRUE(state_->WriteConfirmation(order).ok());
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
  ASSERT_TRUE(state_->WriteConfirmation(Order(kSecond)).ok());
  EXPECT_TRUE(rules_->Waits(facts_, order)) << "of another operation";
  ASSERT_TRUE(state_->WriteConfirmation(order).ok());
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

// The controller gives the ids. Somebody confirmed one order; another one comes by the same id, before that one or after it has ended.
TEST_F(OrderRulesTest, AConfirmationIsOfOneOrderAndNotOfItsId) {
  facts_.rule = "local-confirm";
  const v1::Order order = Order();
  ASSERT_TRUE(state_->WriteConfirmation(order).ok());
  EXPECT_EQ(Reason(order), "");
  v1::Order forged = order;
  forged.mutable_restore()->set_root_digest(std::string(32, 'x'));
  EXPECT_TRUE(rules_->Waits(facts_, forged));
  EXPECT_EQ(Reason(forged), "ORDER_EXPIRED");
  forged = order;
  *forged.mutable_expires_at() = ToProtoTime(clock_.Now() + std::chrono::hours(48));
  EXPECT_TRUE(rules_->Waits(facts_, forged));
  v1::Order parsed;
  ASSERT_TRUE(parsed.ParseFromString(order.SerializeAsString()));
  EXPECT_EQ(Reason(parsed), "") << "after a restart";
  // What an older agent wrote names no order.
  Write(folder_ + "/state/confirmations/" + kOperation, "confirmed\n");
  EXPECT_TRUE(rules_->Waits(facts_, order));
  EXPECT_EQ(Reason(order), "ORDER_EXPIRED");
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
  replayed.set_operation_id(kSecond);
  EXPECT_EQ(Reason(replayed), "COUNTER_TOO_LOW");
}

TEST_F(OrderRulesTest, ADamagedCounterStopsOrdersRatherThanLettingOldOnesIn) {
  ASSERT_EQ(Reason(Signed(Content(5))), "");
  Write(folder_ + "/state/orders.counter", "xxxx");
  EXPECT_TRUE(rules_->Forget(kOperation).ok());
  EXPECT_EQ(Reason(Signed(Content(6), kSecond)), "STATE_DAMAGED");
}

}  // namespace
}  // namespace litefleet::rules
