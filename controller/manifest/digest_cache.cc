#include "controller/manifest/digest_cache.h"

#include <utility>

namespace litefleet::manifest {
namespace {

// Of an entry, its place in list and index included.
size_t Cost(const PageDigests& digests) { return digests->size() * format::kDigestBytes + 200; }

}  // namespace

PageDigests DigestCache::Find(const format::ChunkName& chunk) {
  MutexLock lock(mu_);
  const auto it = index_.find(chunk);
  if (it == index_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, it->second);
  return it->second->digests;
}

void DigestCache::Put(const format::ChunkName& chunk, PageDigests digests) {
  MutexLock lock(mu_);
  if (index_.contains(chunk)) return;
  bytes_ += Cost(digests);
  entries_.push_front({chunk, std::move(digests)});
  index_.emplace(chunk, entries_.begin());
  while (bytes_ > cap_bytes_) {
    bytes_ -= Cost(entries_.back().digests);
    index_.erase(entries_.back().chunk);
    entries_.pop_back();
  }
}

}  // namespace litefleet::manifest
