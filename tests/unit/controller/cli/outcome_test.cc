// Exit codes, the JSON of things, and progress.
#include <gtest/gtest.h>

#include <vector>

#include "common/base/status.h"
#include "controller/cli/exit_code.h"
#include "controller/cli/patience.h"
#include "controller/cli/progress.h"
#include "controller/cli/things.h"

namespace litefleet::cli {
namespace {

TEST(ExitCodes, OfCalls) {
  const auto of = [](absl::StatusCode code) { return ExitCodeOf(absl::Status(code, "")); };
  EXPECT_EQ(of(absl::StatusCode::kOk), 0);
  EXPECT_EQ(of(absl::StatusCode::kInternal), 1);
  EXPECT_EQ(of(absl::StatusCode::kCancelled), 1);
  EXPECT_EQ(of(absl::StatusCode::kResourceExhausted), 1);
  EXPECT_EQ(of(absl::StatusCode::kInvalidArgument), 2);
  EXPECT_EQ(of(absl::StatusCode::kNotFound), 4);
  EXPECT_EQ(of(absl::StatusCode::kPermissionDenied), 5);
  EXPECT_EQ(of(absl::StatusCode::kUnauthenticated), 5);
  EXPECT_EQ(of(absl::StatusCode::kFailedPrecondition), 6);
  EXPECT_EQ(of(absl::StatusCode::kAlreadyExists), 6);
  EXPECT_EQ(of(absl::StatusCode::kAborted), 6);
  EXPECT_EQ(of(absl::StatusCode::kUnavailable), 7);
  EXPECT_EQ(of(absl::StatusCode::kDeadlineExceeded), 7);
  EXPECT_EQ(of(absl::StatusCode::kDataLoss), 8);
  for (int code = 1; code <= 16; ++code) EXPECT_NE(CodeName(static_cast<absl::StatusCode>(code)), "") << code;
  EXPECT_EQ(CodeName(absl::StatusCode::kDataLoss), "data_loss");
  EXPECT_EQ(CodeName(absl::StatusCode::kUnauthenticated), "unauthenticated");
}

TEST(Operations, ACancelledRestoreOfADeviceThatIsAwaySaysWhatIsWaitedFor) {
  v1::Operation operation;
  operation.set_kind(v1::OPERATION_KIND_RESTORE);
  operation.set_state(v1::OPERATION_STATE_CANCELLING);
  operation.set_device_name("kiosk");
  operation.mutable_cancel_ends_at()->set_seconds(1'800'000'000);
  const std::string told = WaitsForDevice(operation);
  EXPECT_NE(told.find("kiosk is offline, and may have changed the database"), std::string::npos) << told;
  EXPECT_NE(told.find("at most until 2027-01-1"), std::string::npos) << told;
  EXPECT_NE(ProgressLine(operation, 0).find("cancelling, the device is offline"), std::string::npos);
  EXPECT_NE(ToJson(operation).Text().find("\"cancel_ends_at\":\"2027-01-15T08:00:00"), std::string::npos) << ToJson(operation).Text();
  operation.set_device_connected(true);
  EXPECT_EQ(WaitsForDevice(operation), "") << "it answers at once";
  operation.set_device_connected(false);
  operation.clear_cancel_ends_at();
  EXPECT_EQ(WaitsForDevice(operation), "");
}

TEST(ExitCodes, OfOperations) {
  v1::Operation operation;
  operation.set_state(v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(ExitCodeOf(operation), 0);
  operation.set_state(v1::OPERATION_STATE_PARTLY);
  EXPECT_EQ(ExitCodeOf(operation), 3);
  operation.set_state(v1::OPERATION_STATE_EXPIRED);
  EXPECT_EQ(ExitCodeOf(operation), 7);
  operation.set_state(v1::OPERATION_STATE_CANCELLED);
  EXPECT_EQ(ExitCodeOf(operation), 1);
  operation.set_state(v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ExitCodeOf(operation), 1);
  operation.mutable_error()->set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(ExitCodeOf(operation), 6);
  operation.mutable_error()->set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(ExitCodeOf(operation), 1) << "the command line was right";
}

TEST(ExitCodes, ALockedDatabaseIsNotAnUnreachableOne) {
  v1::Operation operation;
  operation.set_state(v1::OPERATION_STATE_FAILED);
  operation.mutable_error()->set_code(static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_EQ(ExitCodeOf(operation), 7);
  for (const char* reason : {"DATABASE_BUSY", "WAL_INDEX_BUSY", "IN_USE", "ALREADY_RUNNING"}) {
    operation.mutable_error()->mutable_info()->set_reason(reason);
    EXPECT_EQ(ExitCodeOf(operation), 6) << reason;
    EXPECT_EQ(ExitCodeOf(Error(absl::StatusCode::kUnavailable, reason, "held")), 6) << reason;
  }
  operation.mutable_error()->mutable_info()->set_reason("DEVICE_OFFLINE");
  EXPECT_EQ(ExitCodeOf(operation), 7);
  operation.mutable_error()->set_code(static_cast<int>(absl::StatusCode::kDeadlineExceeded));
  operation.mutable_error()->mutable_info()->set_reason("PIN_TOO_LONG");
  EXPECT_EQ(ExitCodeOf(operation), 1) << "the device was there";
}

TEST(ExitCodes, OfSeveral) {
  EXPECT_EQ(Combine(std::vector<int>{}), 0);
  EXPECT_EQ(Combine(std::vector<int>{0, 0}), 0);
  EXPECT_EQ(Combine(std::vector<int>{7, 7}), 7);
  EXPECT_EQ(Combine(std::vector<int>{0, 6}), 3);
  EXPECT_EQ(Combine(std::vector<int>{3, 6}), 3);
  EXPECT_EQ(Combine(std::vector<int>{4, 6}), 1);
}

TEST(Things, SnapshotHasItsStableMembers) {
  v1::Snapshot snapshot;
  snapshot.set_id("01J9ZK00000000000000000000");
  snapshot.set_device_name("kiosk");
  snapshot.set_database("orders");
  snapshot.set_method(v1::METHOD_ONLINE);
  snapshot.set_state(v1::SNAPSHOT_STATE_COMMITTED);
  snapshot.set_timeline(uint64_t{1} << 60);
  snapshot.mutable_taken_at()->set_seconds(1'795'352'580);
  snapshot.set_page_size(4096);
  snapshot.set_root_digest(std::string(32, '\xab'));
  snapshot.set_check(v1::CHECK_STATE_CANNOT_TELL);
  const std::string text = ToJson(snapshot).Text();
  EXPECT_TRUE(text.starts_with(
      "{\"id\":\"01J9ZK00000000000000000000\",\"device\":\"kiosk\",\"database\":\"orders\",\"method\":\"online\",\"state\":\"committed\","
      "\"timeline\":1152921504606846976,\"taken_at\":\"2026-11-22T13:03:00Z\",\"received_at\":null,\"page_size\":4096,\"page_count\":0,"
      "\"size_bytes\":0,"
      "\"root_digest\":\"abababababababababababababababababababababababababababababababab\",\"pages_sent\":0,\"wire_bytes\":0,\"stored_"
      "bytes\":0,"
      "\"duration_ms\":null,\"source_check\":\"unknown\",\"check\":\"cannot_tell\",\"drilled_at\":null,\"parent\":null"))
      << text;
}

TEST(Things, OperationAndDevice) {
  v1::Operation operation;
  operation.set_id("X");
  operation.set_kind(v1::OPERATION_KIND_BACKUP);
  operation.set_state(v1::OPERATION_STATE_FAILED);
  operation.mutable_error()->set_code(9);
  operation.mutable_error()->set_message("stalled");
  operation.mutable_error()->mutable_info()->set_reason("WRITER_STALL");
  EXPECT_TRUE(
      ToJson(operation).Text().starts_with("{\"id\":\"X\",\"kind\":\"backup\",\"state\":\"failed\",\"device\":null,\"database\":null,"
                                           "\"snapshot\":null,\"progress\":{\"done_bytes\":0,\"total_bytes\":0,\"phase\":null},"
                                           "\"wire_bytes\":0,\"started_at\":null,\"ended_at\":null,\"error\":{\"code\":\"failed_"
                                           "precondition\",\"reason\":\"WRITER_STALL\",\"message\":\"stalled\",\"hint\":null}"))
      << ToJson(operation).Text();
  v1::Device device;
  device.set_name("kiosk");
  device.set_state(v1::DEVICE_STATE_ACTIVE);
  (*device.mutable_labels())["b"] = "2";
  (*device.mutable_labels())["a"] = "1";
  EXPECT_TRUE(ToJson(device).Text().starts_with(
      "{\"id\":\"\",\"name\":\"kiosk\",\"labels\":{\"a\":\"1\",\"b\":\"2\"},\"state\":\"active\",\"connected\":false,\"last_seen_at\":null,"
      "\"version\":null,\"clock_offset_ms\":null,\"certificate_expires_at\":null"))
      << ToJson(device).Text();
}

TEST(Things, EveryEnumValueHasAWord) {
  EXPECT_EQ(Word(v1::CHECK_STATE_SUPERSEDED), "superseded");
  EXPECT_EQ(Word(v1::OPERATION_STATE_CANCELLING), "cancelling");
  EXPECT_EQ(Word(v1::RESTORE_MODE_REPLACE), "replace");
  EXPECT_EQ(Word(v1::METHOD_UNSPECIFIED), "");
  EXPECT_EQ(Word(static_cast<v1::Method>(99)), "99") << "of a newer controller";
}

TEST(Waiting, WhatBlinksUsesThePatienceUpAllTheSame) {
  FakeClock clock;
  Patience patience(std::chrono::seconds(60), clock.Steady());
  // Away for 5 s, back for 20 s, again and again.
  int rounds = 0;
  for (; rounds < 100 && !patience.ended(); ++rounds) {
    clock.Advance(std::chrono::seconds(5));
    patience.Look(clock.Steady(), false);
    clock.Advance(std::chrono::seconds(20));
    patience.Look(clock.Steady(), true);
  }
  EXPECT_EQ(rounds, 12);
}

TEST(Waiting, WhatIsThereMayTakeAsLongAsItTakes) {
  FakeClock clock;
  Patience patience(std::chrono::seconds(60), clock.Steady());
  for (int i = 0; i < 100; ++i) {
    clock.Advance(std::chrono::hours(1));
    patience.Look(clock.Steady(), true);
  }
  EXPECT_FALSE(patience.ended());
}

TEST(Progress, RateAndTimeLeft) {
  RateMeter meter;
  const SteadyTime begin{std::chrono::hours(1)};
  meter.Add(begin, 0);
  EXPECT_EQ(meter.Rate(), 0);
  meter.Add(begin + std::chrono::seconds(2), 20 << 20);
  EXPECT_DOUBLE_EQ(meter.Rate(), 10 << 20);
  EXPECT_EQ(ProgressLine("download:", 20 << 20, 120 << 20, meter.Rate()), "download: 16% 20.0 MiB of 120 MiB, 10.0 MiB/s, 10.0 s left");
  EXPECT_EQ(ProgressLine("download:", 120 << 20, 120 << 20, meter.Rate()), "download: 100% 120 MiB of 120 MiB");
  meter.Add(begin + std::chrono::seconds(3), 5);
  EXPECT_EQ(meter.Rate(), 0) << "begun anew";
}

}  // namespace
}  // namespace litefleet::cli
