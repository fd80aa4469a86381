#include "common/format/pack_record.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::format {
namespace {

constexpr char kPackMagic[8] = {'L', 'F', 'P', 'A', 'C', 'K', '\r', '\n'};
constexpr char kRecordMagic[4] = {'L', 'F', 'R', '1'};
constexpr size_t kWindowBytes = 2 << 20;  // what a scanner reads at once; more than any record

absl::Status PackDamaged(std::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "PACK_DAMAGED", fmt::format("a pack's header is damaged: {}", why));
}
absl::Status RecordDamaged(std::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "RECORD_DAMAGED", fmt::format("a record of a pack is damaged: {}", why));
}
absl::Status PackTooNew(std::string message) {
  return Error(absl::StatusCode::kFailedPrecondition, "PACK_TOO_NEW", message, "install the newer litefleet-controller again");
}

}  // namespace

void EncodePackHeader(const PackHeader& header, std::span<std::byte, kPackHeaderBytes> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  std::memcpy(out.data(), kPackMagic, sizeof kPackMagic);
  StoreLittleEndian<uint32_t>(kPackVersion, out.data() + 8);
  StoreLittleEndian<uint32_t>(kPackHeaderBytes, out.data() + 12);
  StoreLittleEndian<uint64_t>(header.features, out.data() + 16);
  StoreLittleEndian<uint64_t>(header.pack_id, out.data() + 24);
  StoreLittleEndian<uint64_t>(header.tag, out.data() + 32);
  StoreLittleEndian<uint64_t>(static_cast<uint64_t>(header.created_at_ms), out.data() + 40);
  StoreLittleEndian<uint32_t>(Crc32c(out.first(60)), out.data() + 60);
}

absl::StatusOr<PackHeader> DecodePackHeader(ByteView bytes) {
  if (bytes.size() < kPackHeaderBytes) return PackDamaged("it is too short");
  if (std::memcmp(bytes.data(), kPackMagic, sizeof kPackMagic) != 0) return PackDamaged("this is no pack");
  if (LoadLittleEndian<uint32_t>(bytes.data() + 60) != Crc32c(bytes.first(60))) return PackDamaged("its checksum is wrong");
  const auto version = LoadLittleEndian<uint32_t>(bytes.data() + 8);
  if (version != kPackVersion) return PackTooNew(fmt::format("a pack has format version {}, this program knows {}", version, kPackVersion));
  if (LoadLittleEndian<uint32_t>(bytes.data() + 12) != kPackHeaderBytes) return PackDamaged("its size is wrong");
  PackHeader header;
  header.features = LoadLittleEndian<uint64_t>(bytes.data() + 16);
  if ((header.features & ~kKnownFeatures) != 0) {
    return PackTooNew(fmt::format("a pack requires features {:#x} that this program does not know", header.features & ~kKnownFeatures));
  }
  header.pack_id = LoadLittleEndian<uint64_t>(bytes.data() + 24);
  header.tag = LoadLittleEndian<uint64_t>(bytes.data() + 32);
  header.created_at_ms = static_cast<int64_t>(LoadLittleEndian<uint64_t>(bytes.data() + 40));
  return header;
}

void EncodeRecordHeader(const RecordHeader& header, uint64_t tag, std::span<std::byte, kRecordHeaderBytes> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  std::memcpy(out.data(), kRecordMagic, sizeof kRecordMagic);
  out[4] = static_cast<std::byte>(header.type);
  out[5] = static_cast<std::byte>(header.codec);
  StoreLittleEndian<uint64_t>(tag, out.data() + 8);
  StoreLittleEndian<uint32_t>(header.stored_bytes, out.data() + 16);
  StoreLittleEndian<uint32_t>(header.raw_bytes, out.data() + 20);
  StoreLittleEndian<uint32_t>(header.page_size, out.data() + 24);
  StoreLittleEndian<uint32_t>(header.page_count, out.data() + 28);
  std::memcpy(out.data() + 32, header.name.bytes.data(), kDigestBytes);
  StoreLittleEndian<uint32_t>(header.payload_crc, out.data() + 64);
  StoreLittleEndian<uint32_t>(Crc32c(out.first(68)), out.data() + 68);
}

absl::StatusOr<RecordHeader> DecodeRecordHeader(ByteView bytes, uint64_t tag) {
  if (bytes.size() < kRecordHeaderBytes) return RecordDamaged("its header is too short");
  if (std::memcmp(bytes.data(), kRecordMagic, sizeof kRecordMagic) != 0) return RecordDamaged("no record begins here");
  if (LoadLittleEndian<uint64_t>(bytes.data() + 8) != tag) return RecordDamaged("it belongs to another pack");
  if (LoadLittleEndian<uint32_t>(bytes.data() + 68) != Crc32c(bytes.first(68))) return RecordDamaged("its header's checksum is wrong");
  RecordHeader header;
  header.type = static_cast<RecordType>(bytes[4]);
  header.codec = static_cast<Codec>(bytes[5]);
  header.stored_bytes = LoadLittleEndian<uint32_t>(bytes.data() + 16);
  header.raw_bytes = LoadLittleEndian<uint32_t>(bytes.data() + 20);
  header.page_size = LoadLittleEndian<uint32_t>(bytes.data() + 24);
  header.page_count = LoadLittleEndian<uint32_t>(bytes.data() + 28);
  std::memcpy(header.name.bytes.data(), bytes.data() + 32, kDigestBytes);
  header.payload_crc = LoadLittleEndian<uint32_t>(bytes.data() + 64);
  if (LoadLittleEndian<uint16_t>(bytes.data() + 6) != 0) return RecordDamaged("it has unknown flags");
  if (header.codec != Codec::kRaw && header.codec != Codec::kZstd) return RecordDamaged("its codec is unknown");
  if (header.stored_bytes > kMaxRecordPayload || header.raw_bytes > kMaxRecordPayload) return RecordDamaged("it is too large");
  if (header.codec == Codec::kRaw && header.raw_bytes != header.stored_bytes) return RecordDamaged("its sizes contradict each other");
  if (header.type == RecordType::kChunk) {
    if (header.stored_bytes > kMaxChunkPayload || header.raw_bytes > kExtentBytes) return RecordDamaged("the chunk is too large");
    if (!IsPageSize(header.page_size) || header.page_count == 0 ||
        static_cast<uint64_t>(header.page_size) * header.page_count != header.raw_bytes) {
      return RecordDamaged("the chunk's geometry is wrong");
    }
  }
  return header;
}

absl::Status CheckPayload(const RecordHeader& header, ByteView payload) {
  if (payload.size() != header.stored_bytes) return RecordDamaged("its payload is incomplete");
  if (Crc32c(payload) != header.payload_crc) return RecordDamaged("its payload's checksum is wrong");
  return absl::OkStatus();
}

absl::StatusOr<PackScanner> PackScanner::Open(ReadAt read, uint64_t file_bytes) {
  PackScanner scanner(std::move(read), file_bytes);
  LF_ASSIGN_OR_RETURN(const ByteView first, scanner.Window(0, kPackHeaderBytes));
  LF_ASSIGN_OR_RETURN(scanner.header_, DecodePackHeader(first));
  return scanner;
}

PackScanner PackScanner::OpenBehindHeader(ReadAt read, uint64_t file_bytes, const PackHeader& header) {
  PackScanner scanner(std::move(read), file_bytes);
  scanner.header_ = header;
  return scanner;
}

absl::StatusOr<ByteView> PackScanner::Window(uint64_t offset, size_t size) {
  const uint64_t left = offset < file_bytes_ ? file_bytes_ - offset : 0;
  size = static_cast<size_t>(std::min<uint64_t>(size, left));
  if (offset < buffer_offset_ || offset + size > buffer_offset_ + buffer_.size()) {
    buffer_.resize(static_cast<size_t>(std::min<uint64_t>(left, kWindowBytes)));
    buffer_offset_ = offset;
    if (!buffer_.empty()) {
      LF_ASSIGN_OR_RETURN(const size_t got, read_(offset, buffer_));
      buffer_.resize(got);
    }
  }
  const auto skip = static_cast<size_t>(std::min<uint64_t>(offset - buffer_offset_, buffer_.size()));
  const ByteView all = ByteView(buffer_).subspan(skip);
  return all.first(std::min(size, all.size()));
}

absl::StatusOr<std::optional<ScannedRecord>> PackScanner::TryAt(uint64_t offset) {
  LF_ASSIGN_OR_RETURN(ByteView bytes, Window(offset, kRecordHeaderBytes));
  const absl::StatusOr<RecordHeader> header = DecodeRecordHeader(bytes, header_.tag);
  if (!header.ok()) return std::nullopt;
  LF_ASSIGN_OR_RETURN(bytes, Window(offset, kRecordHeaderBytes + header->stored_bytes));
  if (bytes.size() != kRecordHeaderBytes + header->stored_bytes) return std::nullopt;
  const ByteView payload = bytes.subspan(kRecordHeaderBytes);
  if (!CheckPayload(*header, payload).ok()) return std::nullopt;
  return ScannedRecord{offset, *header, payload};
}

absl::StatusOr<uint64_t> PackScanner::ChunkAt(uint64_t offset) {
  LF_ASSIGN_OR_RETURN(const ByteView bytes, Window(offset, kRecordHeaderBytes));
  const absl::StatusOr<RecordHeader> header = DecodeRecordHeader(bytes, header_.tag);
  return header.ok() && header->type == RecordType::kChunk ? kRecordHeaderBytes + header->stored_bytes : 0;
}

absl::StatusOr<std::optional<ScannedRecord>> PackScanner::Next() {
  uint64_t offset = end_;
  uint64_t chunk = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(std::optional<ScannedRecord> record, TryAt(offset));
    if (record.has_value()) {
      damaged_ += offset - end_;
      damaged_in_chunks_ += std::min(offset - end_, chunk);
      end_ = offset + kRecordHeaderBytes + record->header.stored_bytes;
      return record;
    }
    if (offset == end_) {
      LF_ASSIGN_OR_RETURN(chunk, ChunkAt(offset));
    }
    // Search for the next header; a window's end is looked at again with the next window.
    ++offset;
    for (;;) {
      LF_ASSIGN_OR_RETURN(const ByteView bytes, Window(offset, std::min<size_t>(kWindowBytes, 64 << 10)));
      if (bytes.size() < kRecordHeaderBytes) return std::nullopt;
      const std::string_view text = AsText(bytes);
      const size_t at = text.find(std::string_view(kRecordMagic, sizeof kRecordMagic));
      if (at != std::string_view::npos) {
        offset += at;
        break;
      }
      offset += bytes.size() - (sizeof kRecordMagic - 1);
    }
  }
}

}  // namespace litefleet::format
