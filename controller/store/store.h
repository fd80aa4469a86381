// Where chunks and records are kept: the interface that a local directory and, later, an object store fulfil.
//
// Not for finding anything: a store knows locations, the catalog knows what is where. It verifies neither a chunk's name when it is put
// (ingest has done so) nor when it is read (the reader does), only that the record is what was written.
//
// Thread safety: all members may be called from any thread. Blocking: Put for a write into the page cache, Sync for the disk.
// Durability: what Put returned is durable once a Sync of its epoch, begun afterwards, has returned OK. Errors that every call may give:
// kResourceExhausted DISK_FULL (nothing was put; reads go on), kUnavailable STORE_FAILED (a write or sync failed; what was not yet durable
// is lost, later puts may work again), kInternal IO_ERROR, kPermissionDenied NO_PERMISSION.
#ifndef LITEFLEET_CONTROLLER_STORE_STORE_H_
#define LITEFLEET_CONTROLLER_STORE_STORE_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/format/pack_record.h"

namespace litefleet::store {

// Of a record: its pack, and where its header begins.
struct Location {
  uint64_t pack = 0;
  uint64_t offset = 0;
  friend auto operator<=>(const Location&, const Location&) = default;
};

// Of a pack: as long as somebody has it the pack says so (PackInfo::held), and prune leaves it alone.
using PackHold = std::shared_ptr<const void>;

struct Placed {
  Location location;
  // Counts the failures that lost what was not durable. Sync(epoch) fails when one happened since the Put.
  uint64_t epoch = 0;
  // Kept until the catalog refers to the record, or nobody ever will.
  PackHold hold;
};

// The holds of many records, one for each pack.
class PackHolds {
 public:
  void Add(const PackHold& hold) {
    if (std::find(holds_.begin(), holds_.end(), hold) == holds_.end()) holds_.push_back(hold);
  }

 private:
  std::vector<PackHold> holds_;
};

struct ChunkToPut {
  format::ChunkName name;
  format::Codec codec = format::Codec::kRaw;
  uint32_t page_size = 0;
  uint32_t page_count = 0;
  ByteView stored;
  bool may_use_reserve = false;  // for what frees more than it takes
};

struct StoredRecord {
  format::RecordHeader header;
  std::string payload;  // as stored; its checksum has been verified
};

struct PackInfo {
  uint64_t id = 0;
  bool sealed = false;
  bool held = false;  // holds what the catalog does not know yet; one that is sealed and not held stays so
  uint64_t size = 0;
};

struct PackScan {
  uint64_t records = 0;        // that checked
  uint64_t damaged_bytes = 0;  // skipped, a torn end included
  uint64_t unknown_bytes = 0;  // of these, those where records of any kind may have stood
};

struct StoreStats {
  uint64_t packs = 0;
  uint64_t stored_bytes = 0;          // of all packs
  uint64_t free_bytes = 0;            // of the file system
  uint64_t reserve_bytes = 0;         // uploads are refused below this
  uint64_t damaged_bytes = 0;         // skipped when packs were recovered
  uint64_t cut_bytes = 0;             // torn tails, cut off when packs were recovered
  std::vector<std::string> problems;  // for people: packs left alone, failures since the start
};

class Store {
 public:
  virtual ~Store() = default;

  virtual absl::StatusOr<Placed> PutChunk(const ChunkToPut& chunk) = 0;
  // REQUIRES: type is not kChunk or kFooter; payload is at most kMaxRecordPayload. Manifest parts respect the reserve of free space,
  // other records may use it.
  virtual absl::StatusOr<Placed> PutRecord(format::RecordType type, ByteView payload) = 0;
  // Shares one fsync with whoever else waits.
  virtual absl::Status Sync(uint64_t epoch) = 0;

  // Errors: kDataLoss CHUNK_MISSING (no such pack, or it ends before), CHUNK_DAMAGED (that the disk cannot read it, too).
  virtual absl::StatusOr<StoredRecord> Read(const Location& location) = 0;

  // All records of all packs, durable or not, in the order of packs and offsets; the payload is valid during the call. Damage is skipped.
  virtual absl::Status ForEachRecord(absl::FunctionRef<absl::Status(const Location&, const format::ScannedRecord&)> visit) = 0;

  // All packs, ascending.
  virtual std::vector<PackInfo> Packs() = 0;
  // As above, of one pack, without its footer; what the disk cannot read is damage. Errors: kDataLoss CHUNK_MISSING, CHUNK_DAMAGED,
  // PACK_DAMAGED; kFailedPrecondition PACK_TOO_NEW; those of `visit`.
  virtual absl::StatusOr<PackScan> ScanPack(uint64_t pack,
                                            absl::FunctionRef<absl::Status(const Location&, const format::ScannedRecord&)> visit) = 0;

  // ---- for prune
  // The open pack is sealed where it holds anything, so that it may be rewritten.
  virtual absl::Status SealOpenPack() = 0;
  // Packs that a failed sync ended are written again and sealed, so that they can be scrubbed and rewritten as any. What fails is among the
  // problems of Stats, and tried again by the next call. Beside it records are put and synced as ever.
  virtual void SealGivenUpPacks() {}
  // The file is gone, durably, when it returns; bytes that somebody reads just now stay readable to them. One that is not there is fine.
  // REQUIRES: nothing refers to the pack any more. Errors: kFailedPrecondition PACK_OPEN, PACK_HELD.
  virtual absl::Status RemovePack(uint64_t pack) = 0;

  // A hint before a pack is read to prove it: what was cached of it is let go, so that the disk is asked.
  virtual void ForgetCached(uint64_t pack) = 0;

  // OK where an upload may begin now.
  virtual absl::Status CheckSpace() = 0;
  virtual absl::StatusOr<StoreStats> Stats() = 0;
};

}  // namespace litefleet::store

#endif  // LITEFLEET_CONTROLLER_STORE_STORE_H_
