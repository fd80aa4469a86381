#include "agent/capture/pin_limits.h"

#include "agent/capture/copied_files.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::capture {

namespace {
using Code = absl::StatusCode;
}  // namespace

absl::Status CheckWriterStall(const OnlineOptions& options, std::string_view why, std::string_view hint, std::chrono::nanoseconds held,
                              double done) {
  if (held <= options.rollback_stall) return absl::OkStatus();
  const auto seconds = std::chrono::duration<double>(held).count();
  return Error(Code::kFailedPrecondition, "WRITER_STALL",
               fmt::format("{} {}: {:.0f} % were read within the {} ms that are allowed{}", options.path, why, done * 100,
                           options.rollback_stall.count(), done > 0 ? fmt::format(", the whole needs about {:.1f} s", seconds / done) : ""),
               hint);
}

absl::Status CheckPinLimits(const OnlineOptions& options, const PinnedRead& read, std::chrono::nanoseconds held, double done) {
  if (options.cancelled && options.cancelled()) {
    return Error(Code::kCancelled, "CANCELLED", fmt::format("the backup of {} was cancelled", options.path));
  }
  const auto seconds = std::chrono::duration<double>(held).count();
  if (!read.holds_nobody_up()) {
    const std::string shorter = held > options.rollback_stall && CanShareBlocks(io::DirectoryOf(options.path))
                                    ? ", or use the method file: this file system shares blocks, so that it locks for milliseconds"
                                    : "";
    LF_RETURN_IF_ERROR(CheckWriterStall(options, "is in rollback mode, where a backup blocks its writers",
                                        "switch the application to WAL mode, or raise rollback_stall" + shorter, held, done));
  }
  if (read.holds_nobody_up() && options.max_pin.count() > 0 && held > options.max_pin) {
    return Error(Code::kDeadlineExceeded, "PIN_TOO_LONG",
                 fmt::format("the read transaction on {} lasted {:.0f} s, {:.0f} % were read, and max_pin is {} s", options.path, seconds,
                             done * 100, options.max_pin.count() / 1000),
                 "raise max_pin, or remove it");
  }
  LF_ASSIGN_OR_RETURN(const uint64_t growth, read.WalGrowth());
  if (growth >> 20 == 0) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(options.path));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, options.reserve.At(options.path));
  if (free < reserve) {
    return Error(Code::kResourceExhausted, "WAL_GROWTH",
                 fmt::format("the WAL of {} grew by {} MiB during the backup, {:.0f} % were read, {} MiB are free and a reserve of {} MiB "
                             "stays free",
                             options.path, growth >> 20, done * 100, free >> 20, reserve >> 20),
                 "free space where the database is, or back up when the application writes less; the reserve is `[limits] disk_reserve`");
  }
  return absl::OkStatus();
}

}  // namespace litefleet::capture
