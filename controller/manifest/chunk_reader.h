// Opens chunks of a manifest: their content, their page digests, or what is stored.
//
// Thread safety: none. Ownership: catalog, store and cache outlive it. Memory: opened chunks up to a cap of 28 MiB, which holds all chunks
// that a stretch shares between its extents (common/format/FORMAT.md, "Manifests"), and 60 bytes for each chunk of a stretch.
// Errors: kDataLoss CHUNK_MISSING, CHUNK_DAMAGED; those of the store.
#ifndef LITEFLEET_CONTROLLER_MANIFEST_CHUNK_READER_H_
#define LITEFLEET_CONTROLLER_MANIFEST_CHUNK_READER_H_

#include <cstdint>
#include <list>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/chunk_codec.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/manifest/digest_cache.h"
#include "controller/manifest/stretch.h"
#include "controller/store/store.h"

namespace litefleet::manifest {

struct OpenChunk {
  format::ChunkName name;
  Bytes raw;
  PageDigests digests;  // null where the content was not proven
};

class ChunkReader {
 public:
  // `cache` may be null.
  ChunkReader(const catalog::IngestCatalog& catalog, store::Store& store, DigestCache* cache, uint32_t page_size)
      : catalog_(catalog), store_(store), cache_(cache), page_size_(page_size) {}

  // Looks the chunks of a stretch up, in one transaction, and forgets where others are.
  absl::Status Locate(const std::vector<ChunkRef>& chunks);
  // Where a chunk is that the catalog does not know yet; not forgotten. The caller holds its pack.
  void Know(const format::ChunkName& chunk, const store::Location& place) { known_[chunk] = place; }
  // What the cache has of it; null else. Needs no place.
  PageDigests CachedDigests(const ChunkRef& chunk);
  // As stored; its content is not looked at. REQUIRES for this and the others: located or known.
  absl::StatusOr<store::StoredRecord> ReadStored(const ChunkRef& chunk);
  // The content, proven. Valid until the next call of Open, Content or Locate.
  absl::StatusOr<const OpenChunk*> Open(const ChunkRef& chunk);
  // The same for who hands it on: of what is stored the checksum is compared, and whoever uses it proves it.
  absl::StatusOr<const OpenChunk*> Content(const ChunkRef& chunk);
  absl::StatusOr<PageDigests> Digests(const ChunkRef& chunk);

 private:
  absl::Status OpenInto(const ChunkRef& chunk, Bytes& raw, std::vector<format::PageDigest>* digests);
  const OpenChunk* Opened(const ChunkRef& chunk);
  const OpenChunk* Keep(OpenChunk opened);

  const catalog::IngestCatalog& catalog_;
  store::Store& store_;
  DigestCache* const cache_;
  const uint32_t page_size_;
  absl::flat_hash_map<format::ChunkName, store::Location> places_;
  absl::flat_hash_map<format::ChunkName, store::Location> known_;
  format::ChunkDecompressor decompressor_;
  std::list<OpenChunk> opened_;  // the last used first
  absl::flat_hash_map<format::ChunkName, std::list<OpenChunk>::iterator> index_;
  size_t opened_bytes_ = 0;
  Bytes spare_;  // of the chunk that was let go last: the next one fills it
  Bytes scratch_;
};

}  // namespace litefleet::manifest

#endif  // LITEFLEET_CONTROLLER_MANIFEST_CHUNK_READER_H_
