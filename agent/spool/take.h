// Takes a snapshot into the spool: pins, reads, compares with the newest state that the spool or the controller has, writes what differs.
//
// What is compared with is the ledger of the newest spooled snapshot, made from the ledger of the controller's snapshots when the first one
// is spooled, and repaired from the files after a cut. Without either all pages are written.
//
// Thread safety: Take blocks; of one database one at a time. Memory: that of a source's feed and of a ChunkPacker. A rollback-journal
// database is held for as long as reading it takes, and compressing what changed at level 1, whatever the level: `rollback_stall` of the
// source bounds it.
#ifndef LITEFLEET_AGENT_SPOOL_TAKE_H_
#define LITEFLEET_AGENT_SPOOL_TAKE_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/page_source.h"
#include "agent/ledger/ledger.h"
#include "agent/spool/snapshot_spool.h"
#include "common/base/cancel_token.h"
#include "common/io/disk_reserve.h"

namespace litefleet::spool {

struct TakeJob {
  std::string database;
  std::string operation_id;
  uint64_t timeline = 1;
  SystemTime started_at;
  // Of the controller's snapshots; null or without a state: nothing is known of what it has.
  ledger::Ledger* ledger = nullptr;
  std::string ledger_file;
  std::array<std::byte, 32> ledger_identity{};
  // When the last acknowledged state was taken, as far as this is known; 0: it is not.
  int64_t acknowledged_taken_at_ms = 0;
  v1::Method method = v1::METHOD_ONLINE;
  // Pins the database; called once a reading.
  std::function<absl::StatusOr<std::unique_ptr<capture::PageSource>>()> open;
  uint64_t spool_bytes = 0;  // of all databases together
  io::DiskReserve reserve;
  int compression_level = 1;
  // While room is made.
  GoesOn goes_on = {};
};

struct Taken {
  // Errors: those of the source; SPOOL_FULL, DISK_FULL, CANCELLED.
  absl::Status status;
  // Empty: the database is what the newest spooled or acknowledged snapshot has, and nothing was written.
  std::string id;
  SystemTime taken_at;
  uint64_t bytes = 0;
  bool wal = false;
};

Taken Take(SnapshotSpool& spool, const TakeJob& job, const CancelToken& cancel);

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_TAKE_H_
