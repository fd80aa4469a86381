#include "common/check/read_ahead.h"

#include <sqlite3.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace litefleet::check {

ReadAhead::ReadAhead(int64_t bytes, ReadAt read)
    : bytes_(bytes), read_(std::move(read)), data_(std::make_unique<char[]>(kSlots * static_cast<size_t>(kBlock))) {
  recent_.fill(-2);
}

const char* ReadAhead::Find(int64_t block) {
  for (size_t i = 0; i < kSlots; ++i) {
    if (slots_[i].block != block) continue;
    slots_[i].used = ++uses_;
    return &data_[i * static_cast<size_t>(kBlock)];
  }
  return nullptr;
}

bool ReadAhead::Wanted(int64_t block) const {
  const auto near = [&](int64_t other) { return other == block || other == block - 1; };
  return std::any_of(recent_.begin(), recent_.end(), near) ||
         std::any_of(slots_.begin(), slots_.end(), [&](const Slot& slot) { return near(slot.block); });
}

const char* ReadAhead::Load(int64_t block) {
  const auto oldest = std::min_element(slots_.begin(), slots_.end(), [](const Slot& a, const Slot& b) { return a.used < b.used; });
  char* data = &data_[static_cast<size_t>(oldest - slots_.begin()) * static_cast<size_t>(kBlock)];
  oldest->block = -1;
  const int64_t begin = block * kBlock;
  if (read_(begin, data, static_cast<int>(std::min<int64_t>(kBlock, bytes_ - begin))) != SQLITE_OK) return nullptr;
  *oldest = {.block = block, .used = ++uses_};
  return data;
}

int ReadAhead::Read(int64_t offset, void* out, int amount) {
  const int64_t block = offset / kBlock;
  if (offset < 0 || offset + amount > std::min(bytes_, (block + 1) * kBlock)) return read_(offset, out, amount);
  const char* data = Find(block);
  if (data == nullptr && Wanted(block)) data = Load(block);
  if (data != nullptr) {
    std::memcpy(out, data + (offset - block * kBlock), static_cast<size_t>(amount));
    return SQLITE_OK;
  }
  recent_[next_recent_] = block;
  next_recent_ = (next_recent_ + 1) % recent_.size();
  return read_(offset, out, amount);
}

}  // namespace litefleet::check
