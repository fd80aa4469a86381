// One backup from the source to the committed snapshot, through cut links and stalls.
//
//   WAL mode:       pin, read and upload in one pass; where the network is slower than the disk, the rest is read into the spool and the
//                   pin ends. A cut link ends the pass, which is made again in the same upload session: what is durable at the controller
//                   is not sent again.
//   rollback mode:  pin, read into the spool, let go; then upload from the spool as often as it takes.
//   a dump, files:  as rollback mode, whatever the mode. What the spool cannot hold is read again, and sent while it is read: files, which
//                   pin nothing; a dump in WAL mode, for as long as the source lets its transaction last; in rollback mode a dump of a
//                   copy, where there can be one. The controller is told with the commit how much it was. What did not fit into the
//                   spool is remembered by whoever calls, so that it is not filled for nothing once more.
//   spool full:     let go, and pre-copy: rounds that upload, under transactions of a few milliseconds each, what differs from what the
//                   controller has, and commit it as the base of what follows; then the pass above again, until what changes meanwhile
//                   fits.
//
// What is sent is what differs from the ledger's snapshot. Where the ledger knows nothing, or the controller does not have that snapshot,
// or the root does not fit, all extents are offered and compared by the controller, down to pages.
//
// A spooled snapshot is uploaded in the same way, without a source. One whose base the controller does not have fails with BASE_GONE,
// unless the newest snapshot that the controller has is the same by its root.
//
// Not for several databases: one call each; calls may run side by side. Thread safety: Run blocks. Deadlines: a source is only opened
// while the controller can be reached; `give_up_at` ends everything. Cancel is seen within 100 ms, SQLite's busy handler aside.
#ifndef LITEFLEET_AGENT_UPLOAD_BACKUP_H_
#define LITEFLEET_AGENT_UPLOAD_BACKUP_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/page_source.h"
#include "agent/ledger/ledger.h"
#include "agent/ledger/page_index.h"
#include "agent/upload/attempt.h"
#include "agent/upload/spill_feed.h"
#include "agent/upload/spool.h"
#include "agent/upload/transport.h"
#include "common/base/backoff.h"
#include "common/base/cancel_token.h"
#include "common/base/clock.h"
#include "common/base/rate_limit.h"

namespace litefleet::upload {

// A snapshot that was taken before, while the controller could not be reached: what is uploaded in the place of a source.
struct SpooledSource {
  // From its beginning; called once an attempt. Errors end the upload.
  std::function<absl::StatusOr<std::unique_ptr<ChunkFeed>>()> open;
  v1::Method method = v1::METHOD_ONLINE;
  // What the pages that it does not have are as in; both empty: it has all.
  std::string base_snapshot_id;
  std::string base_root_digest;
  // The feed's pinned_since_boot is of this boot.
  bool knows_age = true;
};

struct BackupJob {
  std::string operation_id;
  std::string session_id;
  std::string database;
  v1::Method method = v1::METHOD_ONLINE;
  uint64_t timeline = 1;
  std::string spool_file;
  // What the controller has, as far as this device knows; null: nothing is known, and nothing will be. Advanced when the backup is
  // acknowledged.
  ledger::Ledger* ledger = nullptr;
  // Everything is read and compared by the controller, whatever the ledger says.
  bool full = false;
  // Opens and pins the database; called once a pass.
  std::function<absl::StatusOr<std::unique_ptr<capture::PageSource>>()> open;
  // Instead of both: the database as SQL text, or an archive of files. Then the ledger is not used, and nothing is compared.
  std::function<absl::StatusOr<std::unique_ptr<capture::TextSource>>()> open_text = {};
  v1::SnapshotContent text = v1::SNAPSHOT_CONTENT_SQL;
  std::string part = {};    // UploadCommit.part of a dump
  bool compatible = false;  // the same of UploadCommit.compatible
  // The text did not fit into the spool before (BackupOutcome.outgrew_spool): it is not tried once more.
  bool stream_text = false;
  // How large the database was then; 0: not known. In rollback mode, where nobody may write while the text waits for the network, it is
  // tried again when the database has become smaller by an eighth.
  uint64_t outgrown_database_bytes = 0;
  // The same text out of a copy of the database, which holds nobody up: in rollback mode, where the spool cannot hold it, or where its
  // writers would wait for too long. Opened again it is the same state. SPOOL_FULL, DISK_FULL, UNNAMED_FILES: there can be no copy;
  // COPY_GROWTH, while it is read: it cannot be kept. May be empty.
  std::function<absl::StatusOr<std::unique_ptr<capture::TextSource>>()> open_text_of_copy = {};
  // Lets that copy, or the one that `open` reads, go: nobody reads it any more, and the next pass takes another. May be empty.
  std::function<void()> drop_copy = {};
  // Whether the copy may stay, asked about once a second while the link is waited for: COPY_GROWTH where it may not, which lets it go
  // between two passes, and in one ends that as an error of the source. May be empty.
  std::function<absl::Status()> still_kept = {};
  // A source that pins nothing between its extents.
  std::function<absl::StatusOr<std::unique_ptr<capture::PageSource>>()> open_precopy;
  // Instead of `open`. The ledger is the caller's affair then.
  const SpooledSource* spooled = nullptr;
  // Once the controller could not be reached for so long, kUnavailable CONTROLLER_OFFLINE ends the backup; 0: it waits until give_up_at.
  std::chrono::milliseconds offline_after{0};
  SteadyTime give_up_at;
  // The first error ends it: whoever calls has something else to do until it is tried again.
  bool once = false;
  // Told before and after the backup only waits, with nothing pinned; it may block in the latter, until its turn comes. May be empty.
  std::function<void(bool waits)> waits;
  // A database that is locked for longer than busy_timeout is opened again, as after a stall.
  bool waits_for_locks = false;
  // While this says so, nothing is opened, and an upload that runs lets go as at a cut link. Asked often; may be empty.
  std::function<bool()> paused;
};

struct BackupOutcome {
  absl::Status status;  // kCancelled when the token was set in time
  std::string snapshot_id;
  v1::Progress progress;
  // Why the ledger was not used, or could not be advanced; empty: it was.
  std::string ledger_note;
  // Text that did not fit into the spool; whether it could be sent is the status.
  bool outgrew_spool = false;
  // How large the database was then; 0: not known, or files.
  uint64_t outgrown_database_bytes = 0;
  // What was done beside reading and sending, for people.
  std::vector<std::string> steps;
};

struct BackupOptions {
  AttemptOptions attempt;  // its max_runs holds for what differs from the ledger too
  SpoolOptions spool;
  // zstd's level for changed pages: they are few, and worth more time than a first backup's.
  int changes_level = 3;
  // Pages of the ledger that are remembered by their digests, to find those that moved.
  uint32_t index_entries = ledger::PageIndex::kMaxEntries;
  // How long a WAL database may stay pinned for the network, beside what reading it takes.
  std::chrono::milliseconds patience{250};
  // Passes after one that held writers up for too long, or was locked out.
  int stall_retries = 5;
  // Attempts in a row that brought nothing and did not fail for the link alone.
  int fruitless_attempts = 5;
  Backoff::Options backoff;
};

BackupOutcome RunBackup(const BackupJob& job, const BackupOptions& options, UploadTransport& transport, RateLimit& rate, const Clock& clock,
                        const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress);

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_BACKUP_H_
