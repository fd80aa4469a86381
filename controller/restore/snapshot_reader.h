// Reads a snapshot out of the store: for fetches by devices, downloads, checks and drills. What leaves the controller leaves as it is
// stored, its checksum compared; its content is proven once, by whoever uses it: the device, the CLI, or Unpack here.
//
// Thread safety: none; one instance per reader, used by one thread at a time. Memory: constant (a part of each layer of the
// manifest, a stretch, up to 28 MiB of chunks).
// What it reads is pinned against prune as long as it lives.
#ifndef LITEFLEET_CONTROLLER_RESTORE_SNAPSHOT_READER_H_
#define LITEFLEET_CONTROLLER_RESTORE_SNAPSHOT_READER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/base/ids.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"

namespace litefleet::restore {

struct SnapshotGeometry {
  uint32_t page_size = 0;
  uint32_t page_count = 0;
  format::RootDigest root;
};

// Pages by their number, from 1.
struct WantedRun {
  uint32_t first_page = 0;
  uint32_t page_count = 0;
};

// One extent: the chunk that it is as it is stored, or put together of several.
struct StoredChunk {
  format::ChunkName name;
  format::Codec codec = format::Codec::kRaw;
  uint32_t raw_bytes = 0;
  std::string data;         // as stored; empty where it was put together: Pack makes it
  Bytes raw;                // decompressed; empty where it is as stored: Unpack makes it
  uint32_t first_page = 0;  // full snapshots: one run, ascending, without holes
  uint32_t page_count = 0;
  std::vector<WantedRun> runs;  // where its pages belong, if they are not one run
};

// Makes `data` of what was put together; nothing is done for others.
absl::Status Pack(StoredChunk& chunk, format::ChunkCompressor& compressor);
// Makes `raw` of what is as stored, and compares it with `name` in any case. Errors: kDataLoss CHUNK_DAMAGED.
absl::Status Unpack(StoredChunk& chunk, uint32_t page_size, format::ChunkDecompressor& decompressor);

class SnapshotReader {
 public:
  virtual ~SnapshotReader() = default;
  virtual const SnapshotGeometry& geometry() const = 0;
  // Chunks that hold pages of the wanted runs, ascending; nothing at the end. At the end of a full read the names of all extents
  // have been compared with the root digest. Errors: kDataLoss CHUNK_DAMAGED, CHUNK_MISSING, ROOT_MISMATCH.
  virtual absl::StatusOr<std::optional<StoredChunk>> Next() = 0;
};

// The names of all extents: what somebody who has a similar database compares with first.
class NameReader {
 public:
  virtual ~NameReader() = default;
  virtual const SnapshotGeometry& geometry() const = 0;
  // Ascending, those of a stretch (64 MiB) at a time; none at the end.
  virtual absl::StatusOr<std::vector<format::ChunkName>> Next() = 0;
};

// Of the digests of pages that somebody has, so that they are not read out again.
inline constexpr size_t kHaveBytes = 3;

class SnapshotReaderFactory {
 public:
  virtual ~SnapshotReaderFactory() = default;
  // `wanted` empty: everything. Errors: kNotFound SNAPSHOT_NOT_FOUND.
  virtual absl::StatusOr<std::unique_ptr<SnapshotReader>> Open(const SnapshotId& snapshot, std::span<const WantedRun> wanted) = 0;
  // Only those of the wanted pages whose digests do not begin as `have` says: kHaveBytes for each, in order. Chunks hold pages of several
  // extents, in ascending order. Errors also: kInvalidArgument RUNS_INVALID.
  virtual absl::StatusOr<std::unique_ptr<SnapshotReader>> OpenDifferent(const SnapshotId& snapshot, std::span<const WantedRun> wanted,
                                                                        std::string have) = 0;
  virtual absl::StatusOr<std::unique_ptr<NameReader>> OpenNames(const SnapshotId& snapshot) = 0;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_CONTROLLER_RESTORE_SNAPSHOT_READER_H_
