// Reads one pack through and finds what in it is not what the catalog believes.
//
// Every chunk is decompressed and hashed against its name, and every record of a snapshot that the catalog has there must have been found.
// Where bytes are damaged, or fewer chunks were found than the catalog has there, each row of the pack is looked at by itself. Nothing is
// changed here. Thread safety: none. Memory: one record, and 8 bytes for each record of a snapshot.
// Errors: kCancelled from `pace`; those of store and catalog that say nothing about the data (a directory that is gone, permissions):
// then nothing is concluded. A file that is missing while others of the store are there is damage.
#ifndef LITEFLEET_CONTROLLER_SCRUB_PACK_SCRUBBER_H_
#define LITEFLEET_CONTROLLER_SCRUB_PACK_SCRUBBER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/format/chunk_codec.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/store/store.h"

namespace litefleet::scrub {

struct PackFindings {
  bool gone = false;           // a prune has removed the pack: nothing is concluded
  uint64_t stored_bytes = 0;   // read
  uint64_t logical_bytes = 0;  // hashed
  uint64_t chunks = 0;
  std::vector<catalog::ScrubCatalog::PlacedChunk> bad;
  std::vector<SnapshotId> without_manifest;  // a part of it cannot be read
  std::vector<catalog::ScrubCatalog::PlacedRecord> without_record;
  uint64_t damaged_bytes = 0;  // that are no record, a torn end included
};

class PackScrubber {
 public:
  // After each record, with its bytes in the pack; slows down, reports, and cancels by an error.
  using Pace = std::function<absl::Status(uint64_t bytes)>;

  PackScrubber(store::Store& store, const catalog::IngestCatalog& chunks, const catalog::ScrubCatalog& catalog)
      : store_(store), chunks_(chunks), catalog_(catalog) {}

  absl::StatusOr<PackFindings> Scrub(uint64_t pack, const Pace& pace);

 private:
  struct Seen {
    format::ChunkName name;
    uint64_t offset = 0;
    bool sound = false;
  };
  // In bytes; nothing where the store has no such pack.
  std::optional<uint64_t> SizeOf(uint64_t pack);
  // Counts those that the catalog has just here, and notes the bad ones of them.
  absl::Status Compare(uint64_t pack, std::vector<Seen>& seen, PackFindings& findings, int64_t& here);
  absl::Status LookAtRows(uint64_t pack, uint64_t end, const Pace& pace, PackFindings& findings);
  // `found`: where records of snapshots were, ascending.
  absl::Status LookAtRecords(uint64_t pack, uint64_t end, const std::vector<uint64_t>& found, PackFindings& findings);
  // OK: sound. kDataLoss: not. Others: cannot tell.
  absl::Status LookAtChunk(const catalog::ScrubCatalog::PlacedChunk& chunk);

  store::Store& store_;
  const catalog::IngestCatalog& chunks_;
  const catalog::ScrubCatalog& catalog_;
  format::ChunkDecompressor decompressor_;
  Bytes raw_;
};

}  // namespace litefleet::scrub

#endif  // LITEFLEET_CONTROLLER_SCRUB_PACK_SCRUBBER_H_
