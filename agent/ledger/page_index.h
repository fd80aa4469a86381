// Where a ledger has a page of a given digest: finds pages that only moved within their database.
//
// A guess: it keeps 32 bits of each digest, and of a very large database only every n-th page; whoever offers a page by it is answered
// whether the controller agrees. Thread safety: none. Memory: 3 MiB, whatever the size of the database. Errors of Build: those of the
// ledger.
#ifndef LITEFLEET_AGENT_LEDGER_PAGE_INDEX_H_
#define LITEFLEET_AGENT_LEDGER_PAGE_INDEX_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/ledger/ledger.h"
#include "common/format/digest.h"

namespace litefleet::ledger {

class PageIndex {
 public:
  // Reads all of the ledger once. REQUIRES: ledger.state().
  static absl::StatusOr<PageIndex> Build(Ledger& ledger);
  // A page with this digest, from 1.
  std::optional<uint32_t> Find(const format::PageDigest& digest) const;

 private:
  struct Slot {
    uint32_t fingerprint = 0;
    uint32_t page = 0;  // 0: free
  };
  explicit PageIndex(size_t slots) : slots_(slots) {}
  // The slot of this digest, or the free one where it belongs.
  size_t SlotOf(const format::PageDigest& digest) const;

  std::vector<Slot> slots_;
};

}  // namespace litefleet::ledger

#endif  // LITEFLEET_AGENT_LEDGER_PAGE_INDEX_H_
