// Where a ledger has a page of a given digest: finds pages that only moved within their database.
//
// A guess: it keeps 32 bits of each digest, and of a database of more than kMaxEntries pages only of every n-th; the pages beside those are
// found since pages move in runs. Whoever offers a page by it is answered whether the controller agrees. Thread safety: none. Memory: 1.5
// MiB, and what Ledger::ReadAside takes, whatever the size of the database. Errors: those of the ledger.
#ifndef LITEFLEET_AGENT_LEDGER_PAGE_INDEX_H_
#define LITEFLEET_AGENT_LEDGER_PAGE_INDEX_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/ledger/ledger.h"
#include "common/format/digest.h"

namespace litefleet::ledger {

class PageIndex {
 public:
  static constexpr uint32_t kMaxEntries = 128 << 10;

  // Reads all of the ledger once. REQUIRES: ledger.state(); it outlives the index, and is not committed meanwhile.
  static absl::StatusOr<PageIndex> Build(Ledger& ledger, uint32_t max_entries = kMaxEntries);
  // Where the ledger has these pages, from 1; 0: not found. For pages in ascending order, an extent or less at once.
  absl::Status Find(uint32_t first_page, std::span<const format::PageDigest> digests, std::vector<uint32_t>& sources);
  // Of one that is in the index.
  std::optional<uint32_t> Find(const format::PageDigest& digest) const;

 private:
  struct Slot {
    uint32_t fingerprint = 0;
    uint32_t page = 0;  // 0: free
  };
  PageIndex(Ledger& ledger, uint32_t step, size_t slots) : ledger_(&ledger), step_(step), slots_(slots) {}
  // The slot of this digest, or the free one where it belongs.
  size_t SlotOf(const format::PageDigest& digest) const;

  // Where this page was, if it moved as far as those beside it; 0: it did not.
  absl::StatusOr<uint32_t> Follow(uint32_t page, const format::PageDigest& digest);

  Ledger* ledger_;
  uint32_t step_;  // every n-th page has a slot
  std::vector<Slot> slots_;
  std::optional<int64_t> shift_;  // from the last page that was found to where it was
  // Digests that Follow may still read: pages that moved in every direction cost no more than kCredit a page.
  static constexpr uint32_t kCredit = 16;
  uint64_t credit_ = uint64_t{4} * Ledger::kGroupPages;
};

}  // namespace litefleet::ledger

#endif  // LITEFLEET_AGENT_LEDGER_PAGE_INDEX_H_
