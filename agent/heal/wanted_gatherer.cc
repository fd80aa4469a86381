#include "agent/heal/wanted_gatherer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::heal {
namespace {

constexpr size_t kMaxItems = 4096;
constexpr uint64_t kMaxPages = 1 << 16;
constexpr size_t kDigestBytes = 32;

absl::Status Invalid(std::string_view what) {
  return Error(absl::StatusCode::kInvalidArgument, "ORDER_INVALID", fmt::format("the controller's order makes no sense: {}", what),
               "run the same release on both sides");
}

uint32_t PagesOf(const v1::WantedPages& wanted) {
  uint32_t pages = 0;
  for (const v1::PageRun& run : wanted.runs()) pages += run.page_count();
  return pages;
}

}  // namespace

absl::Status WantedGatherer::Check(const v1::HealOrder& order) {
  if (!format::IsPageSize(order.page_size())) return Invalid("it has no page size");
  if (static_cast<size_t>(order.wanted_size()) > kMaxItems) return Invalid("it wants too much");
  uint64_t all = 0;
  for (const v1::WantedPages& wanted : order.wanted()) {
    if (!format::ChunkName::FromBytes(wanted.name()).has_value()) return Invalid("a name is not 32 bytes long");
    uint64_t pages = 0;
    for (const v1::PageRun& run : wanted.runs()) {
      if (run.first_page() == 0 || run.page_count() == 0 || uint64_t{run.first_page()} + run.page_count() > format::kMaxPageCount)
        return Invalid("it names pages that no database has");
      pages += run.page_count();
      if (pages > format::PagesPerExtent(order.page_size())) return Invalid("it wants chunks that are too large");
    }
    all += pages;
    if (pages == 0 || all > kMaxPages) return Invalid("it wants no pages, or too many");
    if (wanted.known_digests().size() != static_cast<size_t>(wanted.known_positions_size()) * kDigestBytes)
      return Invalid("positions and digests do not go together");
    int64_t last = -1;
    for (const uint32_t position : wanted.known_positions()) {
      if (position <= last || position >= pages) return Invalid("a known page is not one of the chunk's");
      last = position;
    }
    if (static_cast<uint64_t>(wanted.known_positions_size()) == pages) return Invalid("it wants pages that are known");
  }
  return absl::OkStatus();
}

WantedGatherer::WantedGatherer(const v1::HealOrder& order, std::span<const uint32_t> positions) : order_(order) {
  for (const uint32_t item : positions) {
    uint32_t at = 0;
    for (const v1::PageRun& run : order.wanted(static_cast<int>(item)).runs()) {
      for (uint32_t i = 0; i < run.page_count(); ++i) places_.push_back({.page = run.first_page() + i, .item = item, .at = at++});
    }
  }
  std::sort(places_.begin(), places_.end(),
            [](const Place& a, const Place& b) { return a.page != b.page ? a.page < b.page : a.item < b.item; });
}

WantedGatherer::Open WantedGatherer::Begin(const v1::WantedPages& wanted) const {
  Open open;
  const uint32_t pages = PagesOf(wanted);
  open.digests.resize(pages);
  open.slots.assign(pages, 0);
  for (int i = 0; i < wanted.known_positions_size(); ++i) {
    const uint32_t position = wanted.known_positions(i);
    std::memcpy(open.digests[position].bytes.data(), wanted.known_digests().data() + static_cast<size_t>(i) * kDigestBytes, kDigestBytes);
    open.slots[position] = -1;
  }
  int32_t slot = 0;
  for (int32_t& one : open.slots) {
    if (one >= 0) one = slot++;
  }
  open.sent.resize(static_cast<size_t>(slot));
  open.raw.resize(static_cast<size_t>(slot) * order_.page_size());
  open.missing = pages;
  return open;
}

void WantedGatherer::Look(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests) {
  const size_t page_size = order_.page_size();
  for (; next_ < places_.size() && places_[next_].page < first_page + digests.size(); ++next_) {
    const Place& place = places_[next_];
    if (place.page < first_page || left_out_.contains(place.item)) continue;
    auto at = open_.find(place.item);
    if (at == open_.end()) {
      if (open_.size() >= kMaxOpen) {
        left_out_[place.item] = true;
        skipped_.push_back(place.item);
        continue;
      }
      at = open_.emplace(place.item, Begin(order_.wanted(static_cast<int>(place.item)))).first;
    }
    Open& open = at->second;
    const size_t index = place.page - first_page;
    if (const int32_t slot = open.slots[place.at]; slot >= 0) {
      open.digests[place.at] = open.sent[static_cast<size_t>(slot)] = digests[index];
      std::memcpy(open.raw.data() + static_cast<size_t>(slot) * page_size, pages.data() + index * page_size, page_size);
    }
    if (--open.missing > 0) continue;
    Open whole = std::move(open);
    open_.erase(at);
    End(place.item, std::move(whole));
  }
}

void WantedGatherer::End(uint32_t item, Open open) {
  const auto wanted = format::ChunkName::FromBytes(order_.wanted(static_cast<int>(item)).name());
  if (format::NameChunk(order_.page_size(), open.digests) != *wanted) return;  // something has changed
  found_.push_back({.position = item, .name = format::NameChunk(order_.page_size(), open.sent), .raw = std::move(open.raw)});
}

std::optional<WantedGatherer::Found> WantedGatherer::TakeFound() {
  if (found_.empty()) return std::nullopt;
  Found found = std::move(found_.front());
  found_.pop_front();
  return found;
}

}  // namespace litefleet::heal
