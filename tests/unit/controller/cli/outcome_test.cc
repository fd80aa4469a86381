// Exit codes, the JSON of things, and what is received of a snapshot.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <vector>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "controller/cli/download.h"
#include "controller/cli/exit_code.h"
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

// ---- what is received

class Received : public testing::Test {
 protected:
  Received() {
    char name[] = "/tmp/litefleet-cli-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~Received() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_), std::filesystem::directory_iterator()));
  }
  std::string directory_;
};

std::string RootOf(uint32_t page_size, const std::string& data) {
  const auto pages = static_cast<uint32_t>(data.size() / page_size);
  format::RootBuilder root(page_size, pages);
  for (size_t at = 0; at < data.size(); at += format::kExtentBytes)
    root.Add(format::NameChunkOf(page_size, AsBytes(data).subspan(at, std::min<size_t>(format::kExtentBytes, data.size() - at))));
  return std::string(root.Finish().AsString());
}

TEST_F(Received, TheRootIsComparedWhateverThePieces) {
  std::string data(700'416, 'x');  // two extents and a part of one
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761U >> 13);
  const auto pages = static_cast<uint32_t>(data.size() / 4096);
  const std::string root = RootOf(4096, data);
  for (const size_t piece : {data.size(), size_t{262'144}, size_t{524'288}, size_t{4096}, size_t{1000}}) {
    auto verifier = RootVerifier::Make(4096, pages, root);
    ASSERT_TRUE(verifier.ok());
    for (size_t at = 0; at < data.size(); at += piece)
      ASSERT_TRUE(verifier->Add(AsBytes(data).subspan(at, std::min(piece, data.size() - at))).ok());
    EXPECT_TRUE(verifier->Finish().ok()) << piece;
  }
  auto flipped = RootVerifier::Make(4096, pages, root).value();
  data[data.size() - 1] ^= 1;
  ASSERT_TRUE(flipped.Add(AsBytes(data)).ok());
  EXPECT_EQ(ReasonOf(flipped.Finish()), "ROOT_MISMATCH");
  auto cut = RootVerifier::Make(4096, pages, root).value();
  ASSERT_TRUE(cut.Add(AsBytes(data).first(data.size() - 4096)).ok());
  EXPECT_EQ(ReasonOf(cut.Finish()), "TRUNCATED");
  auto longer = RootVerifier::Make(4096, pages, root).value();
  EXPECT_EQ(ReasonOf(longer.Add(AsBytes(data + "x"))), "TOO_MUCH_DATA");
}

TEST_F(Received, AnEmptySnapshotHasARootToo) {
  auto verifier = RootVerifier::Make(4096, 0, RootOf(4096, ""));
  ASSERT_TRUE(verifier.ok());
  EXPECT_TRUE(verifier->Finish().ok());
  EXPECT_EQ(ReasonOf(RootVerifier::Make(1000, 1, RootOf(4096, "")).status()), "GEOMETRY_INVALID");
  EXPECT_EQ(ReasonOf(RootVerifier::Make(4096, 1, "short").status()), "GEOMETRY_INVALID");
}

TEST_F(Received, AFileGetsItsNameAtTheEndOnly) {
  {
    auto file = NewFile::Make(Path("a.db"), false);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(AsBytes("hello")).ok());
    EXPECT_FALSE(io::Exists(Path("a.db")));
    ASSERT_TRUE(file->Finish().ok());
  }
  EXPECT_EQ(io::ReadFile(Path("a.db")).value(), "hello");
  struct stat info = {};
  ASSERT_EQ(stat(Path("a.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(Files(), 1U) << "nothing else is left";
}

TEST_F(Received, AFileThatIsNotFinishedLeavesNothing) {
  {
    auto file = NewFile::Make(Path("a.db"), false);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(AsBytes("hello")).ok());
  }
  EXPECT_EQ(Files(), 0U);
}

TEST_F(Received, AJournalOrWalThatStandsThereIsNotAppliedToIt) {
  for (const std::string suffix : {"-wal", "-journal", "-shm"}) {
    ASSERT_TRUE(io::WriteFileAtomic(Path("a.db" + suffix), "of another database").ok());
    for (const bool replace : {false, true}) {
      EXPECT_EQ(ReasonOf(NewFile::Make(Path("a.db"), replace).status()), "LEFT_OVER_FILES") << suffix;
    }
    ASSERT_TRUE(io::RemoveFile(Path("a.db" + suffix)).ok());
  }
  auto file = NewFile::Make(Path("a.db"), false);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(io::WriteFileAtomic(Path("a.db-wal"), "of another database").ok());
  EXPECT_EQ(ReasonOf(file->Finish()), "LEFT_OVER_FILES");
  EXPECT_FALSE(io::Exists(Path("a.db")));
}

TEST_F(Received, AnExistingFileStaysUnlessForced) {
  ASSERT_TRUE(io::WriteFileAtomic(Path("a.db"), "mine").ok());
  EXPECT_EQ(ReasonOf(NewFile::Make(Path("a.db"), false).status()), "FILE_EXISTS");
  EXPECT_EQ(ReasonOf(NewFile::Make(directory_, true).status()), "IS_A_DIRECTORY");
  {
    // It comes into being while the download runs.
    auto file = NewFile::Make(Path("b.db"), false).value();
    ASSERT_TRUE(io::WriteFileAtomic(Path("b.db"), "theirs").ok());
    EXPECT_EQ(ReasonOf(file.Finish()), "FILE_EXISTS");
  }
  EXPECT_EQ(io::ReadFile(Path("b.db")).value(), "theirs");
  auto forced = NewFile::Make(Path("a.db"), true).value();
  ASSERT_TRUE(forced.Write(AsBytes("new")).ok());
  ASSERT_TRUE(forced.Finish().ok());
  EXPECT_EQ(io::ReadFile(Path("a.db")).value(), "new");
  EXPECT_EQ(Files(), 2U);
}

}  // namespace
}  // namespace litefleet::cli
