#include "agent/ledger/page_index.h"

#include <algorithm>

#include "common/base/bytes.h"
#include "common/base/status.h"

namespace litefleet::ledger {
namespace {

constexpr uint32_t kMaxEntries = 256 << 10;
constexpr uint32_t kBatch = 1024;

uint32_t FingerprintOf(const format::PageDigest& digest) { return LoadLittleEndian<uint32_t>(digest.bytes.data() + 4); }

}  // namespace

size_t PageIndex::SlotOf(const format::PageDigest& digest) const {
  const uint32_t fingerprint = FingerprintOf(digest);
  size_t at = (uint64_t{LoadLittleEndian<uint32_t>(digest.bytes.data())} * slots_.size()) >> 32;
  while (slots_[at].page != 0 && slots_[at].fingerprint != fingerprint) at = at + 1 == slots_.size() ? 0 : at + 1;
  return at;
}

absl::StatusOr<PageIndex> PageIndex::Build(Ledger& ledger) {
  const uint32_t pages = ledger.state()->page_count;
  const uint32_t step = pages / kMaxEntries + 1;
  PageIndex index(std::min(pages, kMaxEntries) * 3 / 2 + 16);
  std::vector<format::PageDigest> digests;
  for (uint32_t first = 1; first <= pages; first += kBatch) {
    digests.resize(std::min(kBatch, pages - first + 1));
    LF_RETURN_IF_ERROR(ledger.Read(first, digests));
    for (uint32_t i = 0; i < digests.size(); ++i) {
      if ((first + i) % step != 0) continue;
      Slot& slot = index.slots_[index.SlotOf(digests[i])];
      // Of equal pages the first.
      if (slot.page == 0) slot = {.fingerprint = FingerprintOf(digests[i]), .page = first + i};
    }
    if (pages - first < kBatch) break;
  }
  return index;
}

std::optional<uint32_t> PageIndex::Find(const format::PageDigest& digest) const {
  const Slot& slot = slots_[SlotOf(digest)];
  if (slot.page == 0) return std::nullopt;
  return slot.page;
}

}  // namespace litefleet::ledger
