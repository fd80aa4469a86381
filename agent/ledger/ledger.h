// The page ledger of one database: the digests of the pages of the last snapshot that the controller has acknowledged. FORMAT.md has the
// bytes.
//
//   ledger->Read(first_page, digests);                      // what the controller has
//   ledger->Begin(page_size, page_count, Ledger::kChanges); // a backup begins
//   ledger->Put(first_page, digests);                       // ascending: what differs (kChanges), or every page (kAll)
//   ledger->Commit(snapshot_id, root);                      // acknowledged: from here on it stands for that snapshot
//
// Not a proof of anything: what it says is compared by the controller, which knows better. Thread safety: none; one object a database.
// Memory: 0.6 MiB while it is read, as much again for ReadAside, 64 KiB while it is written, 96 KiB for a map of the log, whatever the size
// of the database. A crash leaves the state of the last Commit that returned, or the one after (crash points ledger.before_commit,
// ledger.committed, ledger.before_rename, ledger.renamed).
// Errors: kDataLoss LEDGER_DAMAGED in Read, ReadAside and ReadNext, also where the disk does not give the bytes back; those of the file
// system.
#ifndef LITEFLEET_AGENT_LEDGER_LEDGER_H_
#define LITEFLEET_AGENT_LEDGER_LEDGER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/digest.h"
#include "common/io/file.h"

namespace litefleet::ledger {

struct LedgerState {
  std::string snapshot_id;
  format::RootDigest root;
  uint32_t page_size = 0;
  uint32_t page_count = 0;
};

// Of a database on a device: a ledger of another one does not count.
std::array<std::byte, 32> LedgerIdentity(const std::string& device_id, const std::string& database, const std::string& path);

class Ledger {
 public:
  enum Kind { kChanges, kAll };
  // What is read of the disk at once, in pages.
  static constexpr uint32_t kGroupPages = 16384;

  // `path` is that of the base; its directory exists, and no other object has it open. What a killed process was making is removed. A
  // ledger that is missing, damaged, of another database or of a later version has no state, and `problem` says why.
  static absl::StatusOr<std::unique_ptr<Ledger>> Open(const std::string& path, const std::array<std::byte, 32>& identity);
  // A new base that was begun and never committed is removed.
  ~Ledger();
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  const std::optional<LedgerState>& state() const { return state_; }
  // Empty for one that is fine, and for one that never was.
  const std::string& problem() const { return problem_; }
  // On the disk, base and log.
  uint64_t bytes() const { return base_bytes_ + log_end_; }

  // REQUIRES: state(); the pages are in it, and of one group of kGroupPages.
  absl::Status Read(uint32_t first_page, std::span<format::PageDigest> out);
  // As Read of one page, for who looks somewhere else while the ledger is read in order: it has a group of its own.
  absl::StatusOr<format::PageDigest> ReadAside(uint32_t page);
  // Whether ReadAside has this page in memory.
  bool IsAside(uint32_t page) const { return aside_.number == (page - 1) / kGroupPages; }
  // As Read, with what has been put since Begin over it; what neither has is zeros. REQUIRES: Begin of kChanges; the pages are below the
  // new page count.
  absl::Status ReadNext(uint32_t first_page, std::span<format::PageDigest> out);

  // Whatever an earlier Begin has gathered is forgotten. REQUIRES for kChanges: state() of this page size.
  absl::Status Begin(uint32_t page_size, uint32_t page_count, Kind kind);
  // Ascending, without overlaps; of kAll without holes.
  absl::Status Put(uint32_t first_page, std::span<const format::PageDigest> digests);
  // Durable, unless `lazily`: then a crash of the machine may leave an earlier state, which is true as well. That the log could not be
  // folded into a new base is no error: it is tried again when the log is half as long again. REQUIRES: Begin.
  absl::Status Commit(const std::string& snapshot_id, const format::RootDigest& root, bool lazily = false);
  // What was committed lazily is durable.
  absl::Status Sync();
  // The files are gone, and the state.
  absl::Status Remove();

 private:
  Ledger(std::string path, const std::array<std::byte, 32>& identity) : path_(std::move(path)), identity_(identity) {}

  std::string log_path() const { return path_ + "-log"; }
  std::string new_path() const { return path_ + "-new"; }
  absl::Status OpenBase();
  absl::Status OpenLog();
  // A part of the log, and the pages that its runs lie between.
  struct Part {
    uint64_t begin = 0;
    uint64_t end = 0;
    uint32_t first_page = 0;
    uint32_t last_page = 0;
  };
  struct Group {
    std::optional<uint32_t> number;
    std::vector<format::PageDigest> digests;
  };

  // Notes a record of pages that begins and ends there.
  void MapRecord(uint64_t begin, uint64_t end, ByteView body);
  // What stands behind `end` does not count any more.
  void CutMap(uint64_t end);
  // Calls `visit` for each run of pages in the part, up to `end` of the log.
  template <class Visit>
  absl::Status ForEachRun(const Part& part, uint64_t end, Visit visit);
  // With the log up to `log_end`, for a database of so many pages. Empties the group first.
  absl::Status LoadGroup(Group& group, uint32_t number, uint32_t page_count, uint64_t log_end);
  // No group is in memory.
  void Forget();
  absl::Status StartLog();
  absl::Status AppendRecord(uint32_t type, ByteView body);
  absl::Status FlushRuns();
  absl::Status WriteNew(std::span<const format::PageDigest> digests);
  // The new base stands for `state`; it takes the place of the old one.
  absl::Status InstallNew(const LedgerState& state);
  absl::Status Fold();
  // A new base that has not taken the place of the old one goes.
  void DropNew();

  const std::string path_;
  const std::array<std::byte, 32> identity_;
  std::optional<LedgerState> state_;
  std::string problem_;

  io::UniqueFd base_;
  uint64_t generation_ = 0;
  uint32_t base_pages_ = 0;
  uint64_t base_bytes_ = 0;
  io::UniqueFd log_;
  uint64_t log_end_ = 0;         // behind the last snapshot record
  bool lazy_ = false;            // it may not be on the disk yet
  uint64_t fold_from_ = 0;       // of log_end_: a shorter log is not folded, since that failed
  std::vector<Part> log_parts_;  // in order; a group is read from those that have pages of it

  Group group_;  // of the state, or with what was put
  bool group_is_next_ = false;
  Group aside_;  // of the state

  // Of a running backup.
  std::optional<Kind> writing_;
  LedgerState next_;
  uint64_t write_end_ = 0;  // of the log
  Bytes runs_;              // a record that is not written yet
  io::UniqueFd new_;
  uint32_t new_pages_ = 0;
  Bytes block_;  // digests whose checksum is not known yet
  std::vector<uint32_t> checksums_;
};

}  // namespace litefleet::ledger

#endif  // LITEFLEET_AGENT_LEDGER_LEDGER_H_
