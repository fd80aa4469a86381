// The bytes of a pack: its header, its records, and the scanner that reads them without any index. FORMAT.md is the definition.
//
// Thread safety: pure functions; a PackScanner is used by one thread. Memory: a scanner holds one record.
#ifndef LITEFLEET_COMMON_FORMAT_PACK_RECORD_H_
#define LITEFLEET_COMMON_FORMAT_PACK_RECORD_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"

namespace litefleet::format {

inline constexpr size_t kPackHeaderBytes = 64;
inline constexpr size_t kRecordHeaderBytes = 72;
inline constexpr uint32_t kPackVersion = 1;
inline constexpr uint64_t kKnownFeatures = 0;
inline constexpr uint32_t kMaxChunkPayload = 256 * 1024;
inline constexpr uint32_t kMaxRecordPayload = 1 << 20;

// Values are on disk: do not change them.
enum class RecordType : uint8_t {
  kChunk = 1,
  kManifestPart = 2,
  kSnapshot = 3,
  kDevice = 4,
  kSnapshotMarks = 5,
  kDatabase = 8,
  kOperator = 9,
  kPolicy = 10,
  kRetentionHold = 11,
  kGap = 12,
  kCatalogGeneration = 13,
  kFooter = 127,
};

struct PackHeader {
  uint64_t features = 0;
  uint64_t pack_id = 0;
  uint64_t tag = 0;
  int64_t created_at_ms = 0;
  friend bool operator==(const PackHeader&, const PackHeader&) = default;
};

struct RecordHeader {
  RecordType type = RecordType::kChunk;
  Codec codec = Codec::kRaw;
  uint32_t stored_bytes = 0;
  uint32_t raw_bytes = 0;
  uint32_t page_size = 0;   // chunks
  uint32_t page_count = 0;  // chunks
  ChunkName name;           // chunks
  uint32_t payload_crc = 0;
  friend bool operator==(const RecordHeader&, const RecordHeader&) = default;
};

void EncodePackHeader(const PackHeader& header, std::span<std::byte, kPackHeaderBytes> out);
// Errors: kDataLoss PACK_DAMAGED; kFailedPrecondition PACK_TOO_NEW for a version or a feature that is unknown here.
absl::StatusOr<PackHeader> DecodePackHeader(ByteView bytes);

void EncodeRecordHeader(const RecordHeader& header, uint64_t tag, std::span<std::byte, kRecordHeaderBytes> out);
// Checks everything but the payload. Errors: kDataLoss RECORD_DAMAGED.
absl::StatusOr<RecordHeader> DecodeRecordHeader(ByteView bytes, uint64_t tag);
// Errors: kDataLoss RECORD_DAMAGED.
absl::Status CheckPayload(const RecordHeader& header, ByteView payload);

struct ScannedRecord {
  uint64_t offset = 0;  // of its header
  RecordHeader header;
  ByteView payload;  // as stored, checksum verified; valid until the next call
};

// Walks all records of a pack by the rules of FORMAT.md, "Torn tails".
class PackScanner {
 public:
  // Fills `out` from `offset`; returns how many bytes there were, fewer only at the end of the file.
  using ReadAt = std::function<absl::StatusOr<size_t>(uint64_t offset, std::span<std::byte> out)>;
  static absl::StatusOr<PackScanner> Open(ReadAt read, uint64_t file_bytes);
  // As that, where the header cannot be read and is known otherwise: it is not looked at.
  static PackScanner OpenBehindHeader(ReadAt read, uint64_t file_bytes, const PackHeader& header);

  const PackHeader& header() const { return header_; }
  // The next record that checks, of known and of unknown type; nothing at the end. Only errors of `read` are errors.
  absl::StatusOr<std::optional<ScannedRecord>> Next();

  // Where the last record that Next returned ends; kPackHeaderBytes before the first.
  uint64_t end_of_records() const { return end_; }
  // Bytes that were skipped in front of the last record: damage. What follows end_of_records() when Next has returned nothing is
  // the torn tail.
  uint64_t damaged_bytes() const { return damaged_; }
  // Of these, those of which a sound header says that they are a chunk: no other record stood there.
  uint64_t damaged_in_chunks() const { return damaged_in_chunks_; }

 private:
  PackScanner(ReadAt read, uint64_t file_bytes) : read_(std::move(read)), file_bytes_(file_bytes) {}
  // The record at `offset` if everything about it fits.
  absl::StatusOr<std::optional<ScannedRecord>> TryAt(uint64_t offset);
  // How long the record at `offset` is where its header is that of a chunk; else 0.
  absl::StatusOr<uint64_t> ChunkAt(uint64_t offset);
  // At least `size` bytes from `offset` on, fewer at the end of the file.
  absl::StatusOr<ByteView> Window(uint64_t offset, size_t size);

  ReadAt read_;
  uint64_t file_bytes_;
  PackHeader header_;
  uint64_t end_ = kPackHeaderBytes;
  uint64_t damaged_ = 0;
  uint64_t damaged_in_chunks_ = 0;
  Bytes buffer_;
  uint64_t buffer_offset_ = 0;
};

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_PACK_RECORD_H_
