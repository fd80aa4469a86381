#include "agent/state/state_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::state {
namespace {

constexpr char kId[] = "01JDAAAAAAAAAAAAAAAAAAAAAA";
constexpr char kOther[] = "01JDBBBBBBBBBBBBBBBBBBBBBB";

class StateDirectoryTest : public testing::Test {
 protected:
  StateDirectoryTest() : path_(testing::TempDir() + fmt::format("/lf-state-{}", getpid())) {}
  ~StateDirectoryTest() override { std::filesystem::remove_all(path_); }

  StateDirectory Open() {
    auto state = StateDirectory::Open(path_);
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }
  void Write(const std::string& name, const std::string& content) { std::ofstream(path_ + "/" + name) << content; }
  static storage::v1::AgentOperation Operation(const std::string& id) {
    v1::Order order;
    order.set_operation_id(id);
    order.mutable_backup()->set_database("app");
    storage::v1::AgentOperation operation;
    operation.set_operation_id(id);
    operation.set_order(order.SerializeAsString());
    operation.set_session_id(kOther);
    return operation;
  }

  const std::string path_;
  std::vector<std::string> damaged_;
};

TEST_F(StateDirectoryTest, MakesItsFoldersForItsOwnerAlone) {
  const StateDirectory state = Open();
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700u);
  ASSERT_TRUE(state.WriteOperation(Operation(kId)).ok());
  ASSERT_EQ(stat((path_ + "/orders/" + kId).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(StateDirectoryTest, KeepsOperationsInTheirOrder) {
  const StateDirectory state = Open();
  ASSERT_TRUE(state.WriteOperation(Operation(kOther)).ok());
  ASSERT_TRUE(state.WriteOperation(Operation(kId)).ok());
  const auto operations = Open().ReadOperations(damaged_);
  ASSERT_TRUE(operations.ok());
  ASSERT_EQ(operations->size(), 2u);
  EXPECT_EQ((*operations)[0].operation_id(), kId);
  EXPECT_EQ((*operations)[0].session_id(), kOther);
  ASSERT_TRUE(state.RemoveOperation(kId).ok());
  ASSERT_TRUE(state.RemoveOperation(kId).ok()) << "missing is fine";
  EXPECT_EQ(state.ReadOperations(damaged_)->size(), 1u);
  EXPECT_TRUE(damaged_.empty());
}

TEST_F(StateDirectoryTest, KeepsResults) {
  const StateDirectory state = Open();
  v1::OperationResult result;
  result.set_operation_id(kId);
  result.set_snapshot_id("S");
  ASSERT_TRUE(state.WriteResult(result).ok());
  const auto results = Open().ReadResults(damaged_);
  ASSERT_TRUE(results.ok());
  ASSERT_EQ(results->size(), 1u);
  EXPECT_EQ((*results)[0].snapshot_id(), "S");
}

TEST_F(StateDirectoryTest, DamagedFilesAreMovedAsideAndTheRestIsRead) {
  const StateDirectory state = Open();
  ASSERT_TRUE(state.WriteOperation(Operation(kId)).ok());
  Write(std::string("orders/") + kOther, "\xff\xff rubbish");
  Write("orders/01JDCCCCCCCCCCCCCCCCCCCCCC", "");
  Write("orders/notes.txt", "somebody's");
  const auto operations = state.ReadOperations(damaged_);
  ASSERT_TRUE(operations.ok()) << operations.status();
  EXPECT_EQ(operations->size(), 1u);
  EXPECT_EQ(damaged_.size(), 2u);
  EXPECT_TRUE(std::filesystem::exists(path_ + "/orders/" + kOther + ".damaged"));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/orders/notes.txt"));
}

// A directory stands for a sector that fails: it can be opened, and not read.
TEST_F(StateDirectoryTest, WhatTheDiskDoesNotGiveBackIsMovedAside) {
  const StateDirectory state = Open();
  ASSERT_TRUE(state.WriteOperation(Operation(kId)).ok());
  std::filesystem::create_directory(path_ + "/orders/" + kOther);
  std::filesystem::create_directory(path_ + "/results/" + kOther);
  std::filesystem::create_directory(path_ + "/databases/app.state");
  std::filesystem::create_directory(path_ + "/policy.state");
  const auto operations = state.ReadOperations(damaged_);
  ASSERT_TRUE(operations.ok()) << operations.status();
  EXPECT_EQ(operations->size(), 1u);
  const auto results = state.ReadResults(damaged_);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_TRUE(results->empty());
  EXPECT_EQ(damaged_.size(), 2u);
  EXPECT_TRUE(std::filesystem::exists(path_ + "/orders/" + kOther + ".damaged"));
  EXPECT_TRUE(absl::IsDataLoss(state.ReadDatabase("app").status()));
  EXPECT_TRUE(absl::IsDataLoss(state.ReadPolicy().status()));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/policy.state.damaged"));
  EXPECT_FALSE(state.ReadPolicy()->has_value()) << "it is sent again";
}

TEST_F(StateDirectoryTest, AConfirmationOfWhatIsNoOperationGoesAtStart) {
  const StateDirectory state = Open();
  ASSERT_TRUE(state.WriteOperation(Operation(kId)).ok());
  v1::Order waiting, ended;
  waiting.set_operation_id(kId);
  ended.set_operation_id(kOther);
  ASSERT_TRUE(state.WriteConfirmation(waiting).ok());
  ASSERT_TRUE(state.WriteConfirmation(ended).ok());
  ASSERT_TRUE(state.ClearSpool().ok());
  EXPECT_TRUE(state.IsConfirmed(waiting));
  EXPECT_FALSE(state.IsConfirmed(ended));
  EXPECT_TRUE(state.HasOperation(kId));
  EXPECT_FALSE(state.HasOperation(kOther));
}

// Whoever runs the agent sees what root has confirmed for it.
TEST_F(StateDirectoryTest, RootConfirmsForAnAgentOfAnotherUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  constexpr uid_t kNobody = 65534;
  const StateDirectory state = Open();
  for (const char* below : {"", "/confirmations"}) ASSERT_EQ(chown((path_ + below).c_str(), kNobody, kNobody), 0);
  v1::Order order;
  order.set_operation_id(kId);
  ASSERT_TRUE(state.WriteConfirmation(order).ok());
  const pid_t agent = fork();
  if (agent == 0) _exit(setgid(kNobody) == 0 && setuid(kNobody) == 0 && state.IsConfirmed(order) ? 0 : 1);
  int status = 0;
  ASSERT_EQ(waitpid(agent, &status, 0), agent);
  EXPECT_EQ(status, 0);
}

TEST_F(StateDirectoryTest, AnOrderOfAnotherNameIsDamage) {
  const StateDirectory state = Open();
  ASSERT_TRUE(state.WriteOperation(Operation(kId)).ok());
  std::filesystem::rename(path_ + "/orders/" + kId, path_ + "/orders/" + kOther);
  EXPECT_TRUE(state.ReadOperations(damaged_)->empty());
  EXPECT_EQ(damaged_.size(), 1u);
}

TEST_F(StateDirectoryTest, ALaterFormatIsRefusedAndKept) {
  const StateDirectory state = Open();
  storage::v1::AgentOperation later = Operation(kId);
  later.set_format(2);
  Write(std::string("orders/") + kId, later.SerializeAsString());
  EXPECT_EQ(ReasonOf(state.ReadOperations(damaged_).status()), "STATE_TOO_NEW");
  EXPECT_TRUE(std::filesystem::exists(path_ + "/orders/" + kId));
}

TEST_F(StateDirectoryTest, RemembersDatabasesWhateverTheirNames) {
  const StateDirectory state = Open();
  const auto fresh = state.ReadDatabase("app");
  ASSERT_TRUE(fresh.ok());
  EXPECT_EQ(fresh->timeline(), 1u);
  for (const char* name : {"app", "app.tmp", "app.state", "app.state.tmp"}) {
    storage::v1::AgentDatabase database;
    database.set_name(name);
    database.set_timeline(7);
    ASSERT_TRUE(state.WriteDatabase(database).ok());
  }
  for (const char* name : {"app", "app.tmp", "app.state", "app.state.tmp"}) {
    const auto kept = Open().ReadDatabase(name);
    ASSERT_TRUE(kept.ok()) << name;
    EXPECT_EQ(kept->timeline(), 7u) << name;
  }
}

TEST_F(StateDirectoryTest, LeftOverTemporaryFilesGo) {
  Open();
  Write(std::string("orders/") + kId + ".tmp", "half");
  Write("databases/app.state.tmp", "half");
  // A command beside the agent leaves alone what the agent may be writing.
  const StateDirectory state = Open();
  EXPECT_TRUE(std::filesystem::exists(path_ + "/orders/" + kId + ".tmp"));
  EXPECT_TRUE(std::filesystem::exists(path_ + "/databases/app.state.tmp"));
  const auto lock = state.Lock();
  ASSERT_TRUE(lock.ok()) << lock.status();
  EXPECT_FALSE(std::filesystem::exists(path_ + "/orders/" + kId + ".tmp"));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/databases/app.state.tmp"));
}

TEST_F(StateDirectoryTest, ClearsTheSpool) {
  const StateDirectory state = Open();
  Write(std::string("spool/") + kId, "chunks");
  ASSERT_TRUE(state.ClearSpool().ok());
  EXPECT_TRUE(std::filesystem::is_empty(path_ + "/spool"));
}

TEST_F(StateDirectoryTest, ASecondProcessIsRefusedAndToldWho) {
  const StateDirectory state = Open();
  const auto lock = state.Lock();
  ASSERT_TRUE(lock.ok());
  const auto second = state.Lock();
  EXPECT_EQ(ReasonOf(second.status()), "ALREADY_RUNNING");
  EXPECT_THAT(MessageOf(second.status()), testing::HasSubstr(std::to_string(getpid())));
}

}  // namespace
}  // namespace litefleet::state
