// The page digests of the newest state that is spooled: what the next one is compared with. It lies beside the snapshots, and is never
// believed further than they go: a file that is lost takes what was built on it along, and the last one takes this ledger along.
//
// It may stand behind the newest snapshot, after a cut: what is missing is read from the files. Thread safety: none; whoever uses the
// database's files (SnapshotSpool::Use). Memory: a ledger's. Errors: those of the file system and of the files; that nothing is known is no
// error, but a ledger without a state.
#ifndef LITEFLEET_AGENT_SPOOL_NEWEST_LEDGER_H_
#define LITEFLEET_AGENT_SPOOL_NEWEST_LEDGER_H_

#include <array>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/ledger/ledger.h"
#include "agent/spool/snapshot_spool.h"
#include "common/io/disk_reserve.h"

namespace litefleet::spool {

// Of the snapshots that the controller has; null or without a state: nothing is known of these.
struct ControllersLedger {
  ledger::Ledger* ledger = nullptr;
  std::string file;
  // Stays free where it is copied; less is kResourceExhausted DISK_FULL.
  io::DiskReserve reserve = {};
};

// Of the newest spooled snapshot; where nothing is spooled of the controller's.
absl::StatusOr<std::unique_ptr<ledger::Ledger>> OpenNewestLedger(const SnapshotSpool& spool, const std::string& database,
                                                                 const ControllersLedger& controllers,
                                                                 const std::array<std::byte, 32>& identity);

// In the place of the one that is there: a copy of the controller's. Its base, which is never written to, is shared where the file system
// can do that.
absl::StatusOr<std::unique_ptr<ledger::Ledger>> CopyControllersLedger(const SnapshotSpool& spool, const std::string& database,
                                                                      const ControllersLedger& controllers,
                                                                      const std::array<std::byte, 32>& identity);

// Puts the digests of a spooled snapshot into a ledger and lets it stand for `id`. REQUIRES: the ledger stands for the snapshot's base,
// unless it has none.
absl::Status AdvanceLedger(ledger::Ledger& ledger, const SpooledSnapshot& snapshot, const std::string& id);

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_NEWEST_LEDGER_H_
