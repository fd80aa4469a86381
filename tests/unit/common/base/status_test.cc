#include "common/base/status.h"

#include <gtest/gtest.h>

#include "common/base/error_detail.h"

namespace litefleet {
namespace {

absl::Status Outer(const absl::Status& inner) {
  LF_RETURN_IF_ERROR(inner);
  return absl::UnknownError("not reached with an error");
}

absl::StatusOr<int> Twice(absl::StatusOr<int> value) {
  LF_ASSIGN_OR_RETURN(const int once, std::move(value));
  LF_ASSIGN_OR_RETURN(const int again, absl::StatusOr<int>(once));
  return once + again;
}

TEST(StatusTest, CarriesReasonAndHint) {
  const absl::Status status = Error(absl::StatusCode::kNotFound, "DEVICE_NOT_FOUND", "no device x", "list them");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(status), "DEVICE_NOT_FOUND");
  EXPECT_EQ(HintOf(status), "list them");
  EXPECT_EQ(MessageOf(status), "no device x");
}

TEST(StatusTest, AnnotateKeepsWhatProgramsActOn) {
  const absl::Status status = Annotate(Error(absl::StatusCode::kDataLoss, "CHUNK_DAMAGED", "bad", "scrub"), "pack 7");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), "CHUNK_DAMAGED");
  EXPECT_EQ(HintOf(status), "scrub");
  EXPECT_EQ(MessageOf(status), "pack 7: bad");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "x").ok());
}

TEST(StatusTest, ErrnoHasItsReason) {
  EXPECT_EQ(ReasonOf(ErrnoError(ENOSPC, "write /a")), "DISK_FULL");
  EXPECT_EQ(ErrnoError(ENOENT, "open /a").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReasonOf(ErrnoError(EIO, "read /a")), "IO_ERROR");
  EXPECT_EQ(ReasonOf(ErrnoError(EMFILE, "open /a")), "SYSTEM_LIMIT");
}

TEST(StatusTest, MacrosHandOn) {
  EXPECT_EQ(Outer(absl::AbortedError("x")).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(*Twice(4), 8);
  EXPECT_EQ(Twice(absl::AbortedError("x")).status().code(), absl::StatusCode::kAborted);
}

TEST(ErrorDetailTest, ThereAndBack) {
  const absl::Status status = Error(absl::StatusCode::kUnavailable, "WRITER_STALL", "too slow", "raise it");
  const absl::Status back = FromErrorDetail(ToErrorDetail(status));
  EXPECT_EQ(back, status);
  EXPECT_TRUE(FromErrorDetail(v1::ErrorDetail()).ok());
}

}  // namespace
}  // namespace litefleet
