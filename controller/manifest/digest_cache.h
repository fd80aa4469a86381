// Page digests of chunks, as far as they are at hand: a delta is proven with them without opening the chunks of its base again.
//
// Only a help: what is not here is read from the chunk. Thread safety: all members may be called from any thread. Memory: the cap, 32 bytes
// a page.
#ifndef LITEFLEET_CONTROLLER_MANIFEST_DIGEST_CACHE_H_
#define LITEFLEET_CONTROLLER_MANIFEST_DIGEST_CACHE_H_

#include <cstddef>
#include <list>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/base/mutex.h"
#include "common/format/digest.h"

namespace litefleet::manifest {

using PageDigests = std::shared_ptr<const std::vector<format::PageDigest>>;

class DigestCache {
 public:
  explicit DigestCache(size_t cap_bytes) : cap_bytes_(cap_bytes) {}

  // Null where it is not here.
  PageDigests Find(const format::ChunkName& chunk);
  void Put(const format::ChunkName& chunk, PageDigests digests);

 private:
  struct Entry {
    format::ChunkName chunk;
    PageDigests digests;
  };

  const size_t cap_bytes_;
  Mutex mu_;
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mu_);  // the last used first
  absl::flat_hash_map<format::ChunkName, std::list<Entry>::iterator> index_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::manifest

#endif  // LITEFLEET_CONTROLLER_MANIFEST_DIGEST_CACHE_H_
