#include "agent/upload/precopy_rounds.h"

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/digest.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

constexpr size_t kUlidTimeDigits = 10;
constexpr size_t kUlidRandomDigits = 16;
constexpr size_t kMostRounds = 50;

double KiBPerSecond(int64_t bytes, std::chrono::nanoseconds took) {
  const double seconds = std::chrono::duration<double>(took).count();
  return seconds > 0 ? static_cast<double>(bytes) / 1024 / seconds : 0;
}

}  // namespace

std::string SessionAfter(const std::string& session, const std::string& snapshot) {
  constexpr std::string_view kCrockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
  const auto digest = format::Sha256(AsBytes("litefleet-session " + session + " " + snapshot));
  std::string next = session.substr(0, kUlidTimeDigits);
  for (size_t i = 0; i < kUlidRandomDigits; ++i) next += kCrockford[std::to_integer<size_t>(digest[i]) % kCrockford.size()];
  return next;
}

void PrecopyRounds::Ended(int64_t sent, int64_t wire, std::chrono::nanoseconds took) {
  rounds_.push_back({.sent = sent, .wire = wire, .took = took});
}

void PrecopyRounds::WithoutLedger(const std::string& why) {
  without_ledger_ = true;
  why_without_ = why;
}

absl::Status PrecopyRounds::MayBegin(const std::string& database, uint64_t spool_bytes) const {
  if (without_ledger_) {
    return Error(
        absl::StatusCode::kFailedPrecondition, "LEDGER_NEEDED",
        fmt::format("{} was uploaded ahead, but this device could not write down what of it the controller has{}: the read that makes the "
                    "snapshot exact would have to keep all of it, and a spool of {} MiB is too small for that",
                    database, why_without_.empty() ? "" : " (" + why_without_ + ")", spool_bytes >> 20),
        "make ledgers/ in the state directory writable, with 1 % of the database's size free; or raise `[limits] spool_bytes` of "
        "agent.toml, or back up over a faster link");
  }
  if (rounds_.size() < 2) return absl::OkStatus();
  const Round& last = rounds_.back();
  const Round& before = rounds_[rounds_.size() - 2];
  // What the last round sent had changed while the one before it ran.
  if (last.sent > 0 && last.sent * 3 <= before.sent * 2 && rounds_.size() < kMostRounds) return absl::OkStatus();
  return Error(
      absl::StatusCode::kResourceExhausted, "CHANGES_OUTRUN_LINK",
      fmt::format("{} changes by {:.0f} KiB/s, {:.0f} KiB/s of its pages go over the link (compressed {:.0f} KiB/s): after {} rounds of "
                  "pre-copying more still has to be sent than a spool of {} MiB holds",
                  database, KiBPerSecond(last.sent, before.took), KiBPerSecond(last.sent, last.took), KiBPerSecond(last.wire, last.took),
                  rounds_.size(), spool_bytes >> 20),
      "raise `[limits] spool_bytes` of agent.toml, back up when the application writes less, or over a faster link");
}

std::string PrecopyRounds::Summary() const {
  if (rounds_.empty()) return {};
  int64_t sent = 0;
  for (const Round& round : rounds_) sent += round.sent;
  return fmt::format("pre-copied {:.1f} MiB in {} round{}: more had changed than the spool holds while the network takes it",
                     static_cast<double>(sent) / (1 << 20), rounds_.size(), rounds_.size() == 1 ? "" : "s");
}

}  // namespace litefleet::upload
