#include "agent/control/operation_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <set>
#include <thread>

#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/control/operation_queue_fixture.h"

namespace litefleet::control {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(OperationQueueTest, AnOrderEndsWithOneDurableResultUntilItIsRecorded) {
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  const v1::Order order = Order(1, "app", true);
  ASSERT_TRUE(queue.Accept(order).ok());
  EXPECT_TRUE(OnDisk("orders", order));
  ASSERT_TRUE(queue.Accept(order).ok()) << "the same order";
  executor_.Release();
  const auto results = listener_.Wait(1);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(results[0].database(), "app");
  EXPECT_FALSE(OnDisk("orders", order));
  EXPECT_TRUE(OnDisk("results", order));
  EXPECT_EQ(executor_.forgotten.size(), 1u);
  ASSERT_TRUE(queue.Accept(order).ok()) << "ended, not recorded";
  EXPECT_FALSE(OnDisk("orders", order));
  queue.ResultRecorded(order.operation_id());
  EXPECT_FALSE(OnDisk("results", order));
  EXPECT_TRUE(queue.idle());
  EXPECT_EQ(executor_.begun.size(), 1u);
  EXPECT_FALSE(listener_.progress().empty());
}

// Its order is there still: recorded by the controller, it does not begin again with the next start.
TEST_F(OperationQueueTest, AResultThatTheDiskRefusedLeavesNoOrderOnceItIsRecorded) {
  const v1::Order order = Order(1, "app", true);
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(order).ok());
    ASSERT_TRUE(executor_.WaitBegun(1));
    std::filesystem::rename(path_ + "/results", path_ + "/away");
    executor_.Release();
    ASSERT_EQ(listener_.Wait(1).size(), 1U);
    EXPECT_TRUE(OnDisk("orders", order));
    EXPECT_TRUE(executor_.forgotten.empty());
    std::filesystem::rename(path_ + "/away", path_ + "/results");
    queue.ResultRecorded(order.operation_id());
    EXPECT_FALSE(OnDisk("orders", order));
    EXPECT_EQ(executor_.forgotten, std::vector<std::string>{order.operation_id()});
  }
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  EXPECT_TRUE(queue.ActiveIds().empty());
}

// A signed order could be carried out again.
TEST_F(OperationQueueTest, WhatCannotBeForgottenIsKnownToHaveEnded) {
  const v1::Order order = Order(1, "app", true);
  executor_.hold = false;
  executor_.forgets = false;
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(order).ok());
    ASSERT_EQ(listener_.Wait(1).size(), 1U);
    queue.ResultRecorded(order.operation_id());
    EXPECT_TRUE(OnDisk("results", order));
    ASSERT_TRUE(queue.Accept(order).ok());
    EXPECT_FALSE(OnDisk("orders", order));
  }
  executor_.forgets = true;
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_EQ(listener_.Wait(2).size(), 2U) << "told again";
  queue.ResultRecorded(order.operation_id());
  EXPECT_FALSE(OnDisk("results", order));
  EXPECT_EQ(executor_.begun.size(), 1U);
}

TEST_F(OperationQueueTest, OneBackupAtATimeAndOneOperationADatabase) {
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(queue.Accept(Order(i, fmt::format("db{}", i))).ok());
  ASSERT_TRUE(queue.Accept(Order(4, "db1", true)).ok());
  ASSERT_TRUE(queue.Accept(Order(5, "db2", true)).ok());
  // The backup of db1, and no restore before older operations of its database.
  ASSERT_TRUE(executor_.WaitBegun(1));
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(executor_.Begun(), 1u);
  EXPECT_TRUE(queue.Busy("db3"));
  executor_.Release();
  EXPECT_EQ(listener_.Wait(5).size(), 5u);
  EXPECT_FALSE(queue.Busy("db3"));
}

TEST_F(OperationQueueTest, ARestoreNeedNotWaitForALongBackup) {
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.Accept(Order(1, "db1")).ok());
  ASSERT_TRUE(queue.Accept(Order(2, "db2", true)).ok());
  EXPECT_TRUE(executor_.WaitBegun(2));
  executor_.Release();
  EXPECT_EQ(listener_.Wait(2).size(), 2u);
}

TEST_F(OperationQueueTest, ABackupThatOnlyWaitsLetsOthersGoAndComesBackInItsTurn) {
  executor_.waiting = {"db1"};
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.Accept(Order(1, "db1")).ok());
  ASSERT_TRUE(executor_.WaitBegun(1));
  ASSERT_TRUE(queue.Accept(Order(2, "db2")).ok());
  ASSERT_TRUE(queue.Accept(Order(3, "db3", true)).ok());
  EXPECT_TRUE(executor_.WaitBegun(3)) << "a backup and a restore beside the one that waits";
  ASSERT_TRUE(queue.Accept(Order(4, "db4")).ok());
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(executor_.Begun(), 3u) << "no more than may run";
  executor_.Release();
  EXPECT_EQ(listener_.Wait(4).size(), 4u);
  EXPECT_TRUE(queue.idle());
}

TEST_F(OperationQueueTest, ABackupThatWaitsIsCancelledAtOnceAlsoWhileAnotherHasItsTurn) {
  executor_.waiting = {"db1"};
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.Accept(Order(1, "db1")).ok());
  ASSERT_TRUE(executor_.WaitBegun(1));
  ASSERT_TRUE(queue.Accept(Order(2, "db2")).ok());
  ASSERT_TRUE(executor_.WaitBegun(2));
  queue.Cancel(Order(1, "db1").operation_id());
  const auto results = listener_.Wait(1, seconds(2));
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].state(), v1::OPERATION_STATE_CANCELLED);
  ASSERT_TRUE(queue.Accept(Order(3, "db3")).ok());
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(executor_.Begun(), 2u) << "the turn is that of db2";
  executor_.Release();
  EXPECT_EQ(listener_.Wait(3).size(), 3u);
}

TEST_F(OperationQueueTest, ACancelOfWhatHadChangedSomethingTellsSo) {
  executor_.abandoned = Order(2, "db1", true).operation_id();
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(queue.Accept(Order(i, "db1", true)).ok());
  ASSERT_TRUE(executor_.WaitBegun(1));
  queue.Cancel(Order(2, "db1", true).operation_id());
  queue.Cancel(Order(3, "db1", true).operation_id());
  executor_.Release();
  const auto results = listener_.Wait(3);
  ASSERT_EQ(results.size(), 3u);
  for (const v1::OperationResult& result : results) {
    if (result.operation_id() == executor_.abandoned) {
      EXPECT_EQ(result.error().info().reason(), "RESTORE_ABANDONED");
    } else if (result.operation_id() == Order(3, "db1", true).operation_id()) {
      EXPECT_EQ(result.state(), v1::OPERATION_STATE_CANCELLED);
    }
  }
}

// It copies a database, perhaps: not while the connection waits for it, and not while the program ends.
TEST_F(OperationQueueTest, ACancelDoesNotWaitForWhatASettledRestoreTakes) {
  const v1::Order order = Order(2, "db1", true);
  executor_.abandoned = order.operation_id();
  executor_.settling = true;
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(Order(1, "db1", true)).ok());
    ASSERT_TRUE(executor_.WaitBegun(1));
    ASSERT_TRUE(queue.Accept(order).ok());
    queue.Cancel(order.operation_id());
    executor_.Release();
    ASSERT_EQ(listener_.Wait(1).size(), 1u);
    EXPECT_TRUE(queue.Busy("db1"));
  }
  EXPECT_TRUE(OnDisk("orders", order));
  EXPECT_FALSE(OnDisk("results", order));
  executor_.settling = false;
  FakeListener later;
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(later).ok());
  const auto results = later.Wait(2);  // the first was not recorded
  ASSERT_EQ(results.size(), 2u);
  EXPECT_EQ(results[1].error().info().reason(), "RESTORE_ABANDONED");
}

// What a former run has begun is ended beside those that run, however long they take: before and after a restart.
TEST_F(OperationQueueTest, ACancelOfWhatHasBegunNeedsNoPlace) {
  const v1::Order order = Order(3, "db3", true);
  executor_.abandoned = order.operation_id();
  executor_.settling = true;
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(Order(1, "db1")).ok());
    ASSERT_TRUE(queue.Accept(Order(2, "db2", true)).ok());
    ASSERT_TRUE(executor_.WaitBegun(2));
    ASSERT_TRUE(queue.Accept(order).ok());
    queue.Cancel(order.operation_id());
    while (executor_.settles == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_TRUE(OnDisk("orders", order));
  executor_.settling = false;
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  const auto results = listener_.Wait(1);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].error().info().reason(), "RESTORE_ABANDONED");
  ASSERT_TRUE(executor_.WaitBegun(4));  // both go on, and none was left out for it
}

// It ends what it had begun, in a hook for an hour perhaps: the end of the program reaches that as well, and the next start goes on.
TEST_F(OperationQueueTest, TheEndOfTheProgramReachesWhatACancelDoesNotEnd) {
  const v1::Order order = Order(1, "db1", true);
  executor_.abandoned = order.operation_id();
  executor_.ending = true;
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(order).ok());
    ASSERT_TRUE(executor_.WaitBegun(1));
    queue.Cancel(order.operation_id());
    queue.Stop();  // else it never returns
  }
  EXPECT_FALSE(OnDisk("results", order));
  FakeListener later;
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(later).ok());
  ASSERT_EQ(later.Wait(1).size(), 1u);
  EXPECT_EQ(later.Wait(1)[0].error().info().reason(), "RESTORE_ABANDONED");
}

TEST_F(OperationQueueTest, WhatWaitsForAConfirmationLetsItsDatabaseGoOn) {
  std::atomic<bool> confirmed{false};
  executor_.Release();
  const v1::Order restore = Order(1, "app", true);
  const auto held = [&](const v1::Order& order) { return order.has_restore() && !confirmed.load(); };
  {
    OperationQueue queue(state_, executor_, clock_, {.held = held});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(restore).ok());
    ASSERT_TRUE(OnDisk("orders", restore));
    ASSERT_EQ(listener_.progress().size(), 1u);
    EXPECT_EQ(listener_.progress()[0].progress().phase(), "waits for confirmation on the device");
    EXPECT_TRUE(queue.idle());
    EXPECT_FALSE(queue.Busy("app"));
    ASSERT_TRUE(queue.Accept(Order(2, "app")).ok());
    EXPECT_EQ(listener_.Wait(1).at(0).operation_id(), Order(2, "app").operation_id()) << "a backup of the database goes before it";
  }
  // It is durable, and told again after a restart.
  FakeListener later;
  OperationQueue queue(state_, executor_, clock_, {.held = held});
  ASSERT_TRUE(queue.Start(later).ok());
  EXPECT_EQ(later.progress().size(), 1u);
  const v1::Order other = Order(3, "app", true);
  ASSERT_TRUE(queue.Accept(other).ok());
  queue.Cancel(other.operation_id());
  const auto cancelled = later.Wait(2);
  ASSERT_EQ(cancelled.size(), 2u) << "the result of before, and this one";
  EXPECT_EQ(cancelled[1].state(), v1::OPERATION_STATE_CANCELLED);
  confirmed.store(true);
  const auto results = later.Wait(3);
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[2].operation_id(), restore.operation_id());
  EXPECT_EQ(results[2].state(), v1::OPERATION_STATE_SUCCEEDED);
}

TEST_F(OperationQueueTest, ThreadsForThoseThatWaitAreBounded) {
  for (int i = 1; i <= 6; ++i) executor_.waiting.insert(fmt::format("db{}", i));
  OperationQueue queue(state_, executor_, clock_, {.max_yielded = 3});
  ASSERT_TRUE(queue.Start(listener_).ok());
  for (int i = 1; i <= 6; ++i) ASSERT_TRUE(queue.Accept(Order(i, fmt::format("db{}", i))).ok());
  EXPECT_TRUE(executor_.WaitBegun(4));
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(executor_.Begun(), 4u) << "the fourth keeps its turn";
  ASSERT_TRUE(queue.Accept(Order(7, "db7", true)).ok());
  EXPECT_TRUE(executor_.WaitBegun(5)) << "a restore has a place";
  executor_.Release();
  EXPECT_EQ(listener_.Wait(7).size(), 7u);
}

TEST_F(OperationQueueTest, StoppingEndsThoseThatWait) {
  executor_.waiting = {"db1", "db2"};
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  for (int i = 1; i <= 3; ++i) ASSERT_TRUE(queue.Accept(Order(i, fmt::format("db{}", i))).ok());
  ASSERT_TRUE(executor_.WaitBegun(3));
  queue.Stop();
  EXPECT_TRUE(listener_.Wait(1, milliseconds(1)).empty());
  for (int i = 1; i <= 3; ++i) EXPECT_TRUE(OnDisk("orders", Order(i, fmt::format("db{}", i))));
}

TEST_F(OperationQueueTest, ABackupBeginsWhenTheControllerCanBeReached) {
  std::atomic<bool> online = false;
  OperationQueue queue(state_, executor_, clock_, {.online = [&] { return online.load(); }});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.Accept(Order(1, "db1")).ok());
  ASSERT_TRUE(queue.Accept(Order(2, "db2", true)).ok());
  ASSERT_TRUE(executor_.WaitBegun(1)) << "a restore may have all that it needs";
  std::this_thread::sleep_for(milliseconds(200));
  EXPECT_EQ(executor_.Begun(), 1u);
  queue.Cancel(Order(1, "db1").operation_id());
  EXPECT_EQ(listener_.Wait(1, seconds(2)).size(), 1u);
  ASSERT_TRUE(queue.Accept(Order(3, "db3")).ok());
  online = true;
  EXPECT_TRUE(executor_.WaitBegun(2));
  executor_.Release();
  EXPECT_EQ(listener_.Wait(3).size(), 3u);
}

TEST_F(OperationQueueTest, CancelsWhatRunsWhatWaitsAndWhatNobodyKnows) {
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  for (int i = 1; i <= 2; ++i) ASSERT_TRUE(queue.Accept(Order(i, "app")).ok());
  ASSERT_TRUE(executor_.WaitBegun(1));
  queue.Cancel(Order(2, "app").operation_id());
  ASSERT_EQ(listener_.Wait(1).size(), 1u) << "at once";
  queue.Cancel(Order(1, "app").operation_id());
  queue.Cancel(Order(9, "app").operation_id());
  const auto results = listener_.Wait(3, seconds(2));
  ASSERT_EQ(results.size(), 3u);
  for (const v1::OperationResult& result : results) EXPECT_EQ(result.state(), v1::OPERATION_STATE_CANCELLED);
  EXPECT_EQ(executor_.begun.size(), 1u);
  EXPECT_TRUE(queue.idle());
  for (const int i : {1, 2, 9}) EXPECT_FALSE(OnDisk("orders", Order(i, "app"))) << i;
}

TEST_F(OperationQueueTest, StoppingInterruptsAndTheNextStartGoesOnInTheSameSession) {
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(Order(1, "app")).ok());
    ASSERT_TRUE(queue.Accept(Order(2, "app")).ok());
    ASSERT_TRUE(executor_.WaitBegun(1));
  }
  EXPECT_TRUE(listener_.Wait(1, milliseconds(1)).empty());
  EXPECT_TRUE(OnDisk("orders", Order(1, "app")));
  OperationQueue queue(state_, executor_, clock_, {});
  executor_.Release();
  ASSERT_TRUE(queue.Start(listener_).ok());
  EXPECT_EQ(listener_.Wait(2).size(), 2u);
  ASSERT_EQ(executor_.begun.size(), 3u);
  EXPECT_EQ(executor_.begun[0], executor_.begun[1]);
  EXPECT_EQ(executor_.sessions[0], executor_.sessions[1]) << "the upload session is kept";
  EXPECT_NE(executor_.sessions[0], executor_.sessions[2]);
}

TEST_F(OperationQueueTest, AResultThatWasNotRecordedIsReportedAtTheNextStart) {
  executor_.Release();
  {
    OperationQueue queue(state_, executor_, clock_, {});
    ASSERT_TRUE(queue.Start(listener_).ok());
    ASSERT_TRUE(queue.Accept(Order(1, "app")).ok());
    ASSERT_EQ(listener_.Wait(1).size(), 1u);
  }
  FakeListener later;
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(later).ok());
  EXPECT_EQ(later.Wait(1).size(), 1u);
  EXPECT_EQ(executor_.begun.size(), 1u);
}

TEST_F(OperationQueueTest, AScheduledRunHasAnIdAndADurableOrder) {
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  const auto id = queue.BeginScheduled("app");
  ASSERT_TRUE(id.ok());
  EXPECT_TRUE(std::filesystem::exists(path_ + "/orders/" + *id));
  EXPECT_TRUE(queue.Busy("app"));
  executor_.Release();
  const auto results = listener_.Wait(1);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].kind(), v1::OPERATION_KIND_BACKUP);
}

TEST_F(OperationQueueTest, AScheduledRunKnowsThatSomethingOrderedWaitsBehindIt) {
  executor_.until_awaited = true;
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.BeginScheduled("app").ok());
  ASSERT_TRUE(executor_.WaitBegun(1));
  ASSERT_TRUE(queue.Accept(Order(1, "other")).ok());
  EXPECT_TRUE(listener_.Wait(1, milliseconds(100)).empty()) << "that is for another database";
  ASSERT_TRUE(queue.Accept(Order(2, "app")).ok());
  EXPECT_EQ(listener_.Wait(1).size(), 1u);
  executor_.Release();
  EXPECT_EQ(listener_.Wait(3).size(), 3u);
}

TEST_F(OperationQueueTest, TooManyOperationsAreRefused) {
  OperationQueue queue(state_, executor_, clock_, {.workers = 1, .backups = 1, .max_operations = 2});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.Accept(Order(1, "app")).ok());
  ASSERT_TRUE(queue.Accept(Order(2, "app")).ok());
  EXPECT_EQ(ReasonOf(queue.Accept(Order(3, "app"))), "TOO_MANY_OPERATIONS");
  EXPECT_FALSE(OnDisk("orders", Order(3, "app")));
}

#ifdef LITEFLEET_CRASH_POINTS
TEST_F(OperationQueueTest, WithoutTheControllerScheduledBackupsGoIntoTheSpoolAndOrderedOnesWait) {
  std::atomic<bool> online = false;
  std::atomic<bool> spools = false;
  executor_.Release();
  executor_.spooling = true;
  OperationQueue queue(state_, executor_, clock_, {.online = [&] { return online.load(); }, .spools = [&] { return spools.load(); }});
  ASSERT_TRUE(queue.Start(listener_).ok());
  const v1::Order ordered = Order(1, "ordered");
  ASSERT_TRUE(queue.Accept(ordered).ok());
  ASSERT_TRUE(queue.BeginDrain("drained").ok());
  const std::string scheduled = queue.BeginScheduled("app").value();
  EXPECT_EQ(executor_.Begun(), 0U) << "not before it is known that nobody is there";
  spools = true;
  ASSERT_EQ(listener_.WaitDropped(1), std::vector<std::string>{scheduled});
  EXPECT_FALSE(std::filesystem::exists(path_ + "/orders/" + scheduled));
  EXPECT_FALSE(std::filesystem::exists(path_ + "/results/" + scheduled));
  EXPECT_FALSE(queue.Busy("app"));
  EXPECT_TRUE(listener_.progress().empty()) << "the controller hears of it with its snapshot";
  EXPECT_TRUE(queue.Busy("ordered"));
  EXPECT_TRUE(queue.Busy("drained"));

  v1::OperationResult uploaded;
  uploaded.set_operation_id(scheduled);
  uploaded.set_state(v1::OPERATION_STATE_SUCCEEDED);
  ASSERT_TRUE(queue.AddResult(uploaded).ok());
  EXPECT_TRUE(std::filesystem::exists(path_ + "/results/" + scheduled));
  EXPECT_EQ(listener_.Wait(1)[0].operation_id(), scheduled);
  queue.ResultRecorded(scheduled);
  EXPECT_FALSE(std::filesystem::exists(path_ + "/results/" + scheduled));

  executor_.spooling = false;
  online = true;
  EXPECT_EQ(listener_.Wait(3).size(), 3U);
}

// Killed at each point, then started again: one result, nothing left over.
class KilledAt : public OperationQueueTest, public testing::WithParamInterface<const char*> {};

TEST_P(KilledAt, EndsWithOneResultAfterTheNextStart) {
  const bool cancel = std::string_view(GetParam()) == "agent.cancel.persisted";
  const pid_t child = fork();
  if (child == 0) {
    setenv("LITEFLEET_CRASH_AT", GetParam(), 1);
    if (!cancel) executor_.Release();
    OperationQueue queue(state_, executor_, clock_, {});
    if (!queue.Start(listener_).ok() || !queue.Accept(Order(1, "app")).ok()) _exit(2);
    if (cancel) {
      executor_.WaitBegun(1);
      queue.Cancel(Order(1, "app").operation_id());
    }
    listener_.Wait(1);
    _exit(3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  executor_.Release();
  OperationQueue queue(state_, executor_, clock_, {});
  ASSERT_TRUE(queue.Start(listener_).ok());
  ASSERT_TRUE(queue.Accept(Order(1, "app")).ok()) << "the controller gives it again";
  const auto results = listener_.Wait(1);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].state(), cancel ? v1::OPERATION_STATE_CANCELLED : v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_FALSE(OnDisk("orders", Order(1, "app")));
  queue.ResultRecorded(Order(1, "app").operation_id());
  EXPECT_FALSE(OnDisk("results", Order(1, "app")));
}

INSTANTIATE_TEST_SUITE_P(CrashPoints, KilledAt,
                         testing::Values("agent.order.accepted", "agent.operation.started", "agent.result.persisted",
                                         "agent.cancel.persisted"));
#endif

}  // namespace
}  // namespace litefleet::control
