#include "agent/ledger/page_index.h"

#include <algorithm>

#include "common/base/bytes.h"
#include "common/base/status.h"

namespace litefleet::ledger {
namespace {

constexpr uint32_t kBatch = 1024;

uint32_t FingerprintOf(const format::PageDigest& digest) { return LoadLittleEndian<uint32_t>(digest.bytes.data() + 4); }

}  // namespace

size_t PageIndex::SlotOf(const format::PageDigest& digest) const {
  const uint32_t fingerprint = FingerprintOf(digest);
  size_t at = (uint64_t{LoadLittleEndian<uint32_t>(digest.bytes.data())} * slots_.size()) >> 32;
  while (slots_[at].page != 0 && slots_[at].fingerprint != fingerprint) at = at + 1 == slots_.size() ? 0 : at + 1;
  return at;
}

absl::StatusOr<PageIndex> PageIndex::Build(Ledger& ledger, uint32_t max_entries) {
  const uint32_t pages = ledger.state()->page_count;
  const uint32_t step = pages > max_entries ? (pages - 1) / max_entries + 1 : 1;
  PageIndex index(ledger, step, std::min(pages, max_entries) * 3 / 2 + 16);
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

absl::Status PageIndex::Find(uint32_t first_page, std::span<const format::PageDigest> digests, std::vector<uint32_t>& sources) {
  sources.assign(digests.size(), 0);
  credit_ += kCredit * digests.size();
  for (uint32_t at = 0; at < digests.size(); ++at) {
    // First what belongs to the run before: equal pages do not tear it.
    LF_ASSIGN_OR_RETURN(sources[at], Follow(first_page + at, digests[at]));
    if (sources[at] != 0) continue;
    const std::optional<uint32_t> found = Find(digests[at]);
    if (!found.has_value()) continue;
    sources[at] = *found;
    shift_ = int64_t{*found} - (first_page + at);
    // A run begins before the first of its pages that has a slot.
    for (uint32_t before = at; before > 0 && sources[before - 1] == 0; --before) {
      LF_ASSIGN_OR_RETURN(sources[before - 1], Follow(first_page + before - 1, digests[before - 1]));
      if (sources[before - 1] == 0) break;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> PageIndex::Follow(uint32_t page, const format::PageDigest& digest) {
  if (step_ == 1) return 0;  // what is not in the index is nowhere
  const int64_t at = page + shift_.value_or(0);
  if (!shift_.has_value() || at < 1 || at > ledger_->state()->page_count) return 0;
  const auto source = static_cast<uint32_t>(at);
  if (!ledger_->IsAside(source)) {
    if (credit_ < Ledger::kGroupPages) return 0;
    credit_ -= Ledger::kGroupPages;
  }
  LF_ASSIGN_OR_RETURN(const format::PageDigest there, ledger_->ReadAside(source));
  return there == digest ? source : 0;
}

std::optional<uint32_t> PageIndex::Find(const format::PageDigest& digest) const {
  const Slot& slot = slots_[SlotOf(digest)];
  if (slot.page == 0) return std::nullopt;
  return slot.page;
}

}  // namespace litefleet::ledger
