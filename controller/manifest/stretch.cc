#include "controller/manifest/stretch.h"

#include <algorithm>

namespace litefleet::manifest {

void Stretch::Reset(uint32_t page_size, uint32_t page_count, uint32_t number) {
  page_size_ = page_size;
  number_ = number;
  const uint32_t per = format::PagesPerStretch(page_size);
  first_page_ = number * per + 1;
  pages_.assign(std::min(per, page_count - number * per), PageRef{});
  chunks_.clear();
  numbers_.clear();
  names_.assign(format::ExtentCount(page_size, this->page_count()), std::nullopt);
  name_layers_.assign(names_.size(), 0);
}

std::optional<uint32_t> Stretch::ChunkNumber(const format::ChunkName& name, uint32_t page_count) {
  const auto [it, inserted] = numbers_.try_emplace(name, static_cast<uint32_t>(chunks_.size()));
  if (inserted) chunks_.push_back({.name = name, .page_count = page_count});
  if (chunks_[it->second].page_count != page_count) return std::nullopt;
  return it->second;
}

void Stretch::Place(uint32_t first_page, uint32_t page_count, uint32_t chunk, uint32_t index, uint8_t layer) {
  const uint64_t begin = std::max<uint64_t>(first_page, first_page_);
  const uint64_t end = std::min(uint64_t{first_page} + page_count, uint64_t{first_page_} + pages_.size());
  for (uint64_t page = begin; page < end; ++page) {
    pages_[page - first_page_] = {.chunk = chunk, .index = static_cast<uint16_t>(index + (page - first_page)), .layer = layer};
  }
}

void Stretch::ClearFrom(uint64_t page) {
  if (page >= uint64_t{first_page_} + pages_.size()) return;
  const auto from = static_cast<uint32_t>(page <= first_page_ ? 0 : page - first_page_);
  std::fill(pages_.begin() + from, pages_.end(), PageRef{});
  for (uint32_t extent = from / format::PagesPerExtent(page_size_); extent < extent_count(); ++extent) names_[extent].reset();
}

std::optional<uint32_t> Stretch::WholeChunk(uint32_t extent) const {
  const uint32_t first = FirstOf(extent);
  const uint32_t count = PagesIn(extent);
  const uint32_t chunk = pages_[first].chunk;
  if (chunk == kNoChunk || chunks_[chunk].page_count != count) return std::nullopt;
  for (uint32_t i = 0; i < count; ++i) {
    if (pages_[first + i].chunk != chunk || pages_[first + i].index != i) return std::nullopt;
  }
  return chunk;
}

bool Stretch::Complete() const {
  return std::all_of(pages_.begin(), pages_.end(), [](const PageRef& page) { return page.chunk != kNoChunk; });
}

}  // namespace litefleet::manifest
