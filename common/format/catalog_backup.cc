#include "common/format/catalog_backup.h"

#include <algorithm>
#include <cstring>

#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/format/digest.h"
#include "fmt/format.h"

namespace litefleet::format {
namespace {

constexpr char kMagic[8] = {'L', 'F', 'C', 'A', 'T', 'B', '\r', '\n'};
constexpr size_t kHeaderBytes = 64;
constexpr size_t kBlockHeaderBytes = 20;
constexpr size_t kEndBytes = 64;
constexpr int kLevel = 3;

absl::Status Damaged(std::string_view why) {
  return Error(absl::StatusCode::kDataLoss, "CATALOG_BACKUP_DAMAGED", fmt::format("a backup of the catalog is damaged: {}", why),
               "older ones stand beside it");
}

absl::Status TooNew(std::string message) {
  return Error(absl::StatusCode::kFailedPrecondition, "CATALOG_BACKUP_TOO_NEW", message, "install the newer litefleet-controller again");
}

// Each link holds the one before and the digest of its block.
void Chain(std::array<std::byte, 32>& chain, ByteView block) {
  const std::array<std::byte, 32> digest = Sha256(block);
  std::array<std::byte, 64> link;
  std::copy(chain.begin(), chain.end(), link.begin());
  std::copy(digest.begin(), digest.end(), link.begin() + 32);
  chain = Sha256(link);
}

absl::Status ReadExactly(ReadBackupAt read, uint64_t offset, std::span<std::byte> out) {
  LF_ASSIGN_OR_RETURN(const size_t got, read(offset, out));
  return got == out.size() ? absl::OkStatus() : Damaged("it is cut off");
}

}  // namespace

CatalogBackupWriter::CatalogBackupWriter() : compressor_(kLevel) {}

absl::Status CatalogBackupWriter::Begin(const CatalogBackupHeader& header, Write write) {
  std::array<std::byte, kHeaderBytes> out{};
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  StoreLittleEndian<uint32_t>(kCatalogBackupVersion, out.data() + 8);
  StoreLittleEndian<uint32_t>(kHeaderBytes, out.data() + 12);
  StoreLittleEndian<uint64_t>(0, out.data() + 16);  // features required
  StoreLittleEndian<uint64_t>(header.id, out.data() + 24);
  StoreLittleEndian<uint64_t>(static_cast<uint64_t>(header.made_at_ms), out.data() + 32);
  StoreLittleEndian<uint32_t>(header.catalog_version, out.data() + 40);
  StoreLittleEndian<uint32_t>(Crc32c(ByteView(out).first(60)), out.data() + 60);
  return write(out);
}

absl::Status CatalogBackupWriter::Add(ByteView block, Write write) {
  if (block.empty() || block.size() > kCatalogBlockBytes) {
    return Error(absl::StatusCode::kInternal, "BLOCK_INVALID", fmt::format("a block of a catalog's backup with {} bytes", block.size()));
  }
  LF_ASSIGN_OR_RETURN(const Codec codec, compressor_.Compress(block, stored_));
  std::array<std::byte, kBlockHeaderBytes> out{};
  StoreLittleEndian<uint32_t>(static_cast<uint32_t>(block.size()), out.data());
  StoreLittleEndian<uint32_t>(static_cast<uint32_t>(stored_.size()), out.data() + 4);
  StoreLittleEndian<uint32_t>(static_cast<uint32_t>(codec), out.data() + 8);
  StoreLittleEndian<uint32_t>(Crc32c(AsBytes(stored_)), out.data() + 12);
  StoreLittleEndian<uint32_t>(Crc32c(ByteView(out).first(16)), out.data() + 16);
  Chain(chain_, block);
  ++blocks_;
  raw_bytes_ += block.size();
  LF_RETURN_IF_ERROR(write(out));
  return write(AsBytes(stored_));
}

absl::Status CatalogBackupWriter::Finish(Write write) {
  std::array<std::byte, kEndBytes> out{};
  StoreLittleEndian<uint64_t>(raw_bytes_, out.data() + 8);
  StoreLittleEndian<uint64_t>(blocks_, out.data() + 16);
  std::copy(chain_.begin(), chain_.end(), out.begin() + 24);
  StoreLittleEndian<uint32_t>(Crc32c(ByteView(out).first(60)), out.data() + 60);
  return write(out);
}

absl::StatusOr<CatalogBackupHeader> ReadCatalogBackupHeader(ReadBackupAt read) {
  std::array<std::byte, kHeaderBytes> bytes;
  LF_RETURN_IF_ERROR(ReadExactly(read, 0, bytes));
  if (std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) return Damaged("this is none");
  if (LoadLittleEndian<uint32_t>(bytes.data() + 60) != Crc32c(ByteView(bytes).first(60))) return Damaged("its header's checksum is wrong");
  const auto version = LoadLittleEndian<uint32_t>(bytes.data() + 8);
  if (version != kCatalogBackupVersion) {
    return TooNew(fmt::format("a backup of the catalog has format version {}, this program knows {}", version, kCatalogBackupVersion));
  }
  if (LoadLittleEndian<uint32_t>(bytes.data() + 12) != kHeaderBytes) return Damaged("its header's size is wrong");
  if (const auto features = LoadLittleEndian<uint64_t>(bytes.data() + 16); features != 0) {
    return TooNew(fmt::format("a backup of the catalog requires features {:#x} that this program does not know", features));
  }
  return CatalogBackupHeader{.id = LoadLittleEndian<uint64_t>(bytes.data() + 24),
                             .made_at_ms = static_cast<int64_t>(LoadLittleEndian<uint64_t>(bytes.data() + 32)),
                             .catalog_version = LoadLittleEndian<uint32_t>(bytes.data() + 40)};
}

absl::StatusOr<CatalogBackupHeader> ReadCatalogBackup(ReadBackupAt read, absl::FunctionRef<absl::Status(ByteView)> visit) {
  LF_ASSIGN_OR_RETURN(const CatalogBackupHeader header, ReadCatalogBackupHeader(read));
  ChunkDecompressor decompressor;
  std::array<std::byte, 32> chain{};
  std::array<std::byte, kEndBytes> head;
  Bytes stored, raw;
  uint64_t offset = kHeaderBytes, blocks = 0, raw_bytes = 0;
  for (bool last = false;; ++blocks) {
    LF_RETURN_IF_ERROR(ReadExactly(read, offset, std::span(head).first(kBlockHeaderBytes)));
    const auto raw_size = LoadLittleEndian<uint32_t>(head.data());
    if (raw_size == 0) break;
    if (LoadLittleEndian<uint32_t>(head.data() + 16) != Crc32c(ByteView(head).first(16))) return Damaged("a block's header");
    const auto stored_size = LoadLittleEndian<uint32_t>(head.data() + 4);
    const auto codec = LoadLittleEndian<uint32_t>(head.data() + 8);
    const bool known = codec == static_cast<uint32_t>(Codec::kRaw) || codec == static_cast<uint32_t>(Codec::kZstd);
    if (last || !known || raw_size > kCatalogBlockBytes || stored_size == 0 || stored_size > kCatalogBlockBytes) {
      return Damaged("a block's sizes");
    }
    last = raw_size < kCatalogBlockBytes;
    stored.resize(stored_size);
    LF_RETURN_IF_ERROR(ReadExactly(read, offset + kBlockHeaderBytes, stored));
    if (LoadLittleEndian<uint32_t>(head.data() + 12) != Crc32c(stored)) return Damaged("a block's checksum");
    if (!decompressor.Decompress(static_cast<Codec>(codec), stored, raw_size, raw).ok()) return Damaged("a block cannot be decompressed");
    Chain(chain, raw);
    raw_bytes += raw_size;
    offset += kBlockHeaderBytes + stored_size;
    LF_RETURN_IF_ERROR(visit(raw));
  }
  LF_RETURN_IF_ERROR(ReadExactly(read, offset, head));
  if (LoadLittleEndian<uint32_t>(head.data() + 60) != Crc32c(ByteView(head).first(60))) return Damaged("its end");
  const bool whole = LoadLittleEndian<uint64_t>(head.data() + 8) == raw_bytes && LoadLittleEndian<uint64_t>(head.data() + 16) == blocks &&
                     std::equal(chain.begin(), chain.end(), head.begin() + 24);
  if (!whole) return Damaged("its blocks are not those that were written");
  std::byte more;
  LF_ASSIGN_OR_RETURN(const size_t behind, read(offset + kEndBytes, std::span(&more, 1)));
  if (behind != 0) return Damaged("something stands behind its end");
  return header;
}

}  // namespace litefleet::format
