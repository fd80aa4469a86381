// Uploads what a database has in the spool, oldest first, each in its own session with its true times; FORMAT.md has the steps.
//
// Thread safety: Drain blocks; of one database one at a time. A chunk is proven before it is offered.
#ifndef LITEFLEET_AGENT_SPOOL_DRAIN_H_
#define LITEFLEET_AGENT_SPOOL_DRAIN_H_

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "agent/ledger/ledger.h"
#include "agent/spool/snapshot_spool.h"
#include "agent/upload/backup.h"
#include "agent/upload/transport.h"
#include "common/base/cancel_token.h"
#include "common/base/rate_limit.h"

namespace litefleet::spool {

struct DrainJob {
  std::string database;
  // Of the controller's snapshots; may be null.
  ledger::Ledger* ledger = nullptr;
  SteadyTime give_up_at;
  // No other one is begun after that, and the first error of the link ends it.
  std::optional<SteadyTime> until = std::nullopt;
  // As BackupJob's.
  std::chrono::milliseconds offline_after{0};
  std::function<void(bool waits)> waits;
  std::function<bool()> paused;
  // How far the upload of one is.
  std::function<void(const SpooledSnapshot&, const v1::Progress&)> progress;
  // Makes durable that it was acknowledged, as which snapshot, and how its run ended. Called again after a cut.
  std::function<absl::Status(const SpooledSnapshot&, const std::string& snapshot_id, const v1::Progress&)> acknowledged;
  // Snapshots were given up, for one of the reasons of snapshot_spool.h: kBaseGone is the controller's word, others say nothing of what it
  // has. May be empty.
  std::function<void(std::string_view reason)> given_up = {};
};

// OK: nothing is spooled any more, or `until` has come. What can never be uploaded is given up and a gap. Errors: those of an upload; the
// rest stays.
absl::Status Drain(SnapshotSpool& spool, const DrainJob& job, const upload::BackupOptions& options, upload::UploadTransport& transport,
                   RateLimit& rate, const CancelToken& cancel);

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_DRAIN_H_
