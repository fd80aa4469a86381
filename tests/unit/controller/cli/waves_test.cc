// A fleet that is restored some databases at a time.
#include "controller/cli/waves.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "controller/cli/interrupt.h"
#include "controller/cli/session.h"
#include "controller/cli/things.h"
#include "fmt/format.h"

namespace litefleet::cli {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// The controller and its devices: an order with a request id that it knows is the one of before.
class WavesTest : public testing::Test {
 protected:
  WavesTest() {
    options_.request_id = "friday";
    options_.size = 2;
    options_.wait_for_all = [this](Session&, std::vector<v1::Operation> wave,
                                   const WaitOptions&) -> absl::StatusOr<std::vector<v1::Operation>> {
      if (!wait_.ok()) return wait_;
      std::vector<std::string> names;
      for (v1::Operation& operation : wave) {
        names.push_back(operation.database());
        End(operation);
      }
      waves_.push_back(std::move(names));
      return wave;
    };
    for (const std::string name : {"a", "b", "c", "d", "e"}) {
      items_.push_back({name, [this, name](const std::string& request) -> absl::StatusOr<v1::Operation> {
                          if (refused_.contains(name)) return Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND", "it is gone");
                          const auto [at, fresh] = operations_.try_emplace(request);
                          if (fresh) {
                            ordered_.push_back(name);
                            at->second.set_id(fmt::format("{}{}", name, operations_.size()));
                            at->second.set_database(name);
                            at->second.set_state(v1::OPERATION_STATE_QUEUED);
                          }
                          return at->second;
                        }});
    }
  }
  // As the device says it.
  void End(v1::Operation& operation) {
    if (HasEnded(operation) || away_.contains(operation.database())) return;
    operation.set_state(failing_.contains(operation.database()) ? v1::OPERATION_STATE_FAILED : v1::OPERATION_STATE_SUCCEEDED);
    for (auto& [request, kept] : operations_) {
      if (kept.id() == operation.id()) kept = operation;
    }
  }
  // The last wave is the caller's to wait for.
  WaveResult Run(absl::StatusCode code = absl::StatusCode::kOk) {
    ordered_.clear();
    waves_.clear();
    WaveResult result;
    EXPECT_EQ(RunWaves(session_, items_, options_, result).code(), code);
    if (code == absl::StatusCode::kOk) {
      for (v1::Operation& operation : result.operations) End(operation);
    }
    return result;
  }

  RealClock clock_;
  Interrupts interrupts_;
  Session session_{clock_, interrupts_};
  WaveOptions options_;
  std::vector<WaveItem> items_;
  std::map<std::string, v1::Operation> operations_;  // by request id
  std::vector<std::string> ordered_;                 // anew, by this call
  std::vector<std::vector<std::string>> waves_;      // that were waited for
  std::set<std::string> refused_, failing_, away_;
  absl::Status wait_;
};

TEST_F(WavesTest, EachWaveBeginsWhenTheOneBeforeHasEnded) {
  const WaveResult result = Run();
  EXPECT_THAT(ordered_, ElementsAre("a", "b", "c", "d", "e"));
  EXPECT_THAT(waves_, ElementsAre(ElementsAre("a", "b"), ElementsAre("c", "d")));
  EXPECT_THAT(result.operations, SizeIs(5));
  EXPECT_EQ(result.operations[0].state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(result.not_begun, 0U);
  EXPECT_THAT(result.refused, IsEmpty());
}

TEST_F(WavesTest, WithoutASizeAllAreOrderedAtOnceAndNoneIsWaitedFor) {
  options_.size = 0;
  failing_ = {"a"};
  const WaveResult result = Run();
  EXPECT_THAT(ordered_, SizeIs(5));
  EXPECT_THAT(waves_, IsEmpty());
  EXPECT_EQ(result.not_begun, 0U);
}

TEST_F(WavesTest, TheFirstFailureStopsWhatHasNotBegun) {
  failing_ = {"b"};
  const WaveResult result = Run();
  EXPECT_THAT(ordered_, ElementsAre("a", "b"));
  EXPECT_EQ(result.not_begun, 3U);
  EXPECT_EQ(result.operations[1].state(), v1::OPERATION_STATE_FAILED);
}

TEST_F(WavesTest, SoManyFailuresAreBorneAsAreAllowed) {
  options_.max_failures = 2;
  failing_ = {"a"};
  EXPECT_EQ(Run().not_begun, 0U);
  EXPECT_THAT(ordered_, SizeIs(5));
  // Those of all waves count together.
  operations_.clear();
  failing_ = {"b", "c"};
  EXPECT_EQ(Run().not_begun, 1U);
  EXPECT_THAT(ordered_, ElementsAre("a", "b", "c", "d"));
}

TEST_F(WavesTest, WhatCannotBeOrderedOrIsNotHeardOfCountsAsAFailure) {
  refused_ = {"a"};
  WaveResult result = Run();
  EXPECT_THAT(result.refused, ElementsAre(4)) << "its exit code";
  EXPECT_THAT(ordered_, ElementsAre("b"));
  EXPECT_EQ(result.not_begun, 3U);
  operations_.clear();
  refused_.clear();
  away_ = {"d"};
  result = Run();
  EXPECT_THAT(ordered_, ElementsAre("a", "b", "c", "d"));
  EXPECT_EQ(result.not_begun, 1U) << "a device that did not come in time";
}

TEST_F(WavesTest, TheSameCallAgainGoesOnWhereItWasStopped) {
  failing_ = {"c"};
  ASSERT_EQ(Run().not_begun, 1U);
  // What has failed is ordered again, what has succeeded is not.
  failing_.clear();
  const WaveResult result = Run();
  EXPECT_THAT(ordered_, ElementsAre("c", "e"));
  EXPECT_EQ(result.not_begun, 0U);
  EXPECT_THAT(result.operations, SizeIs(5));
  for (const v1::Operation& operation : result.operations)
    EXPECT_EQ(operation.state(), v1::OPERATION_STATE_SUCCEEDED) << operation.database();
  Run();
  EXPECT_THAT(ordered_, IsEmpty()) << "all of it is done";
  options_.request_id = "saturday";
  Run();
  EXPECT_THAT(ordered_, SizeIs(5)) << "another whole";
}

TEST_F(WavesTest, WhatStillRunsIsFoundAndNotOrderedTwice) {
  wait_ = Error(absl::StatusCode::kCancelled, "INTERRUPTED", "interrupted");
  const WaveResult interrupted = Run(absl::StatusCode::kCancelled);
  EXPECT_THAT(interrupted.operations, SizeIs(2)) << "what was begun is told";
  wait_ = absl::OkStatus();
  Run();
  EXPECT_THAT(ordered_, ElementsAre("c", "d", "e"));
  EXPECT_THAT(waves_[0], ElementsAre("a", "b"));
}

// As a snapshot that is taken before the restore.
class WavesAfterOthersTest : public WavesTest {
 protected:
  WavesAfterOthersTest() {
    for (WaveItem& item : items_) {
      item.before = [this, name = item.name](const std::string& request) -> absl::StatusOr<v1::Operation> {
        const auto [at, fresh] = operations_.try_emplace(request);
        if (fresh) {
          ordered_.push_back("before " + name);
          at->second.set_id(fmt::format("before-{}{}", name, operations_.size()));
          at->second.set_database("before " + name);
          at->second.set_state(v1::OPERATION_STATE_QUEUED);
        }
        return at->second;
      };
      item.before_done = [this, name = item.name](const v1::Operation& operation) -> absl::StatusOr<std::optional<v1::Operation>> {
        EXPECT_EQ(operation.state(), v1::OPERATION_STATE_SUCCEEDED);
        done_.push_back(name);
        if (name == useless_) return Error(absl::StatusCode::kFailedPrecondition, "USELESS", "of no use");
        if (const auto found = found_.find(name); found != found_.end()) return found->second;
        return std::nullopt;
      };
    }
  }
  std::vector<std::string> done_;
  std::string useless_;
  std::map<std::string, v1::Operation> found_;  // by what comes before
};

TEST_F(WavesAfterOthersTest, EachWaveWaitsForWhatComesBeforeIt) {
  EXPECT_THAT(Run().operations, SizeIs(5));
  EXPECT_THAT(ordered_, ElementsAre("before a", "before b", "a", "b", "before c", "before d", "c", "d", "before e", "e"));
  EXPECT_THAT(waves_, ElementsAre(ElementsAre("before a", "before b"), ElementsAre("a", "b"), ElementsAre("before c", "before d"),
                                  ElementsAre("c", "d"), ElementsAre("before e")));
  EXPECT_THAT(done_, ElementsAre("a", "b", "c", "d", "e"));
  Run();
  EXPECT_THAT(ordered_, IsEmpty()) << "all of it is done";
}

TEST_F(WavesAfterOthersTest, NothingBeginsWhereThatFailsOrDoesNotComeOrIsOfNoUse) {
  failing_ = {"before a"};
  away_ = {"before c"};
  useless_ = "d";
  options_.max_failures = 9;
  const WaveResult result = Run();
  EXPECT_THAT(ordered_, ElementsAre("before a", "before b", "b", "before c", "before d", "before e", "e"));
  EXPECT_THAT(result.refused, SizeIs(3));
  EXPECT_THAT(result.operations, SizeIs(2));
  // What failed is tried again, what did not come is waited for again.
  failing_.clear();
  away_.clear();
  useless_.clear();
  const WaveResult again = Run();
  EXPECT_THAT(ordered_, ElementsAre("before a", "a", "d", "c"));
  EXPECT_THAT(again.operations, SizeIs(5));
}

TEST_F(WavesAfterOthersTest, ARestoreThatFailedBeginsWithWhatComesBeforeAgain) {
  failing_ = {"b"};
  ASSERT_EQ(Run().not_begun, 3U);
  failing_.clear();
  Run();
  EXPECT_THAT(ordered_, ElementsAre("before b", "b", "before c", "before d", "c", "d", "before e", "e"));
}

TEST_F(WavesAfterOthersTest, WhatIsWaitedForIsToldWhereTheWaitIsGivenUp) {
  wait_ = Error(absl::StatusCode::kCancelled, "INTERRUPTED", "interrupted");
  const WaveResult interrupted = Run(absl::StatusCode::kCancelled);
  EXPECT_THAT(interrupted.operations, SizeIs(2));
  EXPECT_THAT(ordered_, ElementsAre("before a", "before b"));
  wait_ = absl::OkStatus();
  Run();
  EXPECT_EQ(ordered_[0], "a") << "that was taken already";
}

// Of the first wave one item waits for what comes before it; the other one was started by an earlier call.
TEST_F(WavesAfterOthersTest, WhatRunsAlreadyIsToldAsWellWhereTheWaitIsGivenUp) {
  items_[0].before = nullptr;
  wait_ = Error(absl::StatusCode::kCancelled, "INTERRUPTED", "interrupted");
  const WaveResult interrupted = Run(absl::StatusCode::kCancelled);
  EXPECT_THAT(ordered_, ElementsAre("a", "before b"));
  ASSERT_THAT(interrupted.operations, SizeIs(2));
  EXPECT_EQ(interrupted.operations[0].database(), "before b");
  EXPECT_EQ(interrupted.operations[1].database(), "a");
}

TEST_F(WavesAfterOthersTest, WhatIsFoundByWhatComesBeforeIsNotStartedAgain) {
  v1::Operation found;
  found.set_id("found");
  found.set_database("a");
  found.set_state(v1::OPERATION_STATE_SUCCEEDED);
  found_["a"] = found;
  const WaveResult result = Run();
  EXPECT_THAT(ordered_, ElementsAre("before a", "before b", "b", "before c", "before d", "c", "d", "before e", "e"));
  ASSERT_THAT(result.operations, SizeIs(5));
  EXPECT_EQ(result.operations[0].id(), "found");
  EXPECT_THAT(result.refused, IsEmpty());
}

TEST_F(WavesTest, RequestIdsOfDatabasesAreTheirsAlone) {
  std::set<std::string> ids;
  for (const std::string name : {"a", "b", "kiosk/a"}) {
    for (int attempt = 1; attempt <= 2; ++attempt) ids.insert(WaveRequestId("friday", name, attempt));
  }
  EXPECT_THAT(ids, SizeIs(6));
  EXPECT_EQ(WaveRequestId("friday", "a", 1), WaveRequestId("friday", "a", 1));
}

}  // namespace
}  // namespace litefleet::cli
