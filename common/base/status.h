// Errors with a reason for programs and a hint for people, and the macros that hand them on.
//
// Every absl::Status that reaches a user carries a reason (UPPER_SNAKE_CASE, stable) as a payload; it travels over gRPC as
// litefleet.v1.ErrorInfo. A message names the thing, what was expected, and why it failed; the hint says what to do.
// Thread safety: values.
//
//   return Error(absl::StatusCode::kFailedPrecondition, "WRITER_STALL", "reading /db took longer than 2 s", "raise rollback_stall");
//   LF_RETURN_IF_ERROR(file.Sync());
//   LF_ASSIGN_OR_RETURN(const auto page, source.Read(n));
#ifndef LITEFLEET_COMMON_BASE_STATUS_H_
#define LITEFLEET_COMMON_BASE_STATUS_H_

#include <cerrno>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace litefleet {

absl::Status Error(absl::StatusCode code, std::string_view reason, std::string_view message, std::string_view hint = {});

// From errno, with a code and reason that fit it (ENOSPC: kResourceExhausted DISK_FULL, EACCES: kPermissionDenied NO_PERMISSION,
// ENOENT: kNotFound FILE_NOT_FOUND, EMFILE, ENOMEM: kInternal SYSTEM_LIMIT, others: kInternal IO_ERROR). `what`: "open /a/b".
absl::Status ErrnoError(int error, std::string_view what);

// Empty where there is none.
std::string ReasonOf(const absl::Status& status);
std::string HintOf(const absl::Status& status);
std::string MessageOf(const absl::Status& status);

// The same status with "context: " before its message; code, reason and hint are kept. OK stays OK.
absl::Status Annotate(const absl::Status& status, std::string_view context);

// Replaces the reason or the hint. OK stays OK.
absl::Status WithReason(absl::Status status, std::string_view reason, std::string_view hint = {});

}  // namespace litefleet

#define LF_CONCAT_INNER_(a, b) a##b
#define LF_CONCAT_(a, b) LF_CONCAT_INNER_(a, b)

#define LF_RETURN_IF_ERROR(expr) LF_RETURN_IF_ERROR_IMPL_(LF_CONCAT_(lf_status_, __COUNTER__), expr)
#define LF_RETURN_IF_ERROR_IMPL_(var, expr)               \
  do {                                                    \
    if (absl::Status var = (expr); !var.ok()) return var; \
  } while (false)

#define LF_ASSIGN_OR_RETURN(lhs, expr) LF_ASSIGN_OR_RETURN_IMPL_(LF_CONCAT_(lf_statusor_, __COUNTER__), lhs, expr)
#define LF_ASSIGN_OR_RETURN_IMPL_(var, lhs, expr) \
  auto var = (expr);                              \
  if (!var.ok()) return std::move(var).status();  \
  lhs = *std::move(var)

#endif  // LITEFLEET_COMMON_BASE_STATUS_H_
