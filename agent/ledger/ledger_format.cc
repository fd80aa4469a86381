#include "agent/ledger/ledger_format.h"

#include <algorithm>
#include <cstring>

#include "common/base/ids.h"
#include "common/format/crc32c.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::ledger {
namespace {

constexpr char kBaseMagic[] = "LFLEDGER";
constexpr char kLogMagic[] = "LFLEDLOG";
constexpr uint32_t kVersion = 1;
constexpr size_t kUlidBytes = 26;
constexpr size_t kSnapshotBytes = 4 + 4 + format::kDigestBytes + kUlidBytes;

}  // namespace

std::array<std::byte, 32> LedgerIdentity(const std::string& device_id, const std::string& database, const std::string& path) {
  std::string text = "litefleet-ledger";
  text += '\0';
  for (const std::string& part : {device_id, database, path}) {
    text += part;
    text += '\0';
  }
  return format::Sha256(AsBytes(text));
}

void EncodeBaseHeader(const BaseHeader& header, std::span<std::byte, kBaseHeaderBytes> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  std::memcpy(&out[0], kBaseMagic, 8);
  StoreLittleEndian<uint32_t>(kVersion, &out[8]);
  StoreLittleEndian<uint32_t>(kBaseHeaderBytes, &out[12]);
  StoreLittleEndian<uint64_t>(header.generation, &out[24]);
  StoreLittleEndian<uint32_t>(header.state.page_size, &out[32]);
  StoreLittleEndian<uint32_t>(header.state.page_count, &out[36]);
  std::copy(header.identity.begin(), header.identity.end(), &out[40]);
  std::copy(header.state.root.bytes.begin(), header.state.root.bytes.end(), &out[72]);
  std::memcpy(&out[104], header.state.snapshot_id.data(), std::min(kUlidBytes, header.state.snapshot_id.size()));
  StoreLittleEndian<uint32_t>(format::Crc32c(out.first(252)), &out[252]);
}

std::string DecodeBaseHeader(std::span<const std::byte, kBaseHeaderBytes> raw, BaseHeader& header) {
  if (std::memcmp(&raw[0], kBaseMagic, 8) != 0) return "it is no ledger";
  if (LoadLittleEndian<uint32_t>(&raw[8]) != kVersion || LoadLittleEndian<uint64_t>(&raw[16]) != 0) return "it is of a later version";
  if (LoadLittleEndian<uint32_t>(&raw[252]) != format::Crc32c(raw.first(252))) return "its header's checksum is wrong";
  header.generation = LoadLittleEndian<uint64_t>(&raw[24]);
  header.state.page_size = LoadLittleEndian<uint32_t>(&raw[32]);
  header.state.page_count = LoadLittleEndian<uint32_t>(&raw[36]);
  std::copy_n(raw.begin() + 40, header.identity.size(), header.identity.begin());
  std::copy_n(raw.begin() + 72, format::kDigestBytes, header.state.root.bytes.begin());
  header.state.snapshot_id = std::string(AsText(raw.subspan(104, kUlidBytes)));
  if (!format::IsPageSize(header.state.page_size) || header.state.page_count > format::kMaxPageCount || !IsUlid(header.state.snapshot_id))
    return "its header makes no sense";
  return {};
}

void EncodeLogHeader(uint64_t generation, std::span<std::byte, kLogHeaderBytes> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  std::memcpy(&out[0], kLogMagic, 8);
  StoreLittleEndian<uint32_t>(kVersion, &out[8]);
  StoreLittleEndian<uint32_t>(kLogHeaderBytes, &out[12]);
  StoreLittleEndian<uint64_t>(generation, &out[16]);
  StoreLittleEndian<uint32_t>(format::Crc32c(out.first(28)), &out[28]);
}

std::string DecodeLogHeader(std::span<const std::byte, kLogHeaderBytes> raw, uint64_t& generation) {
  if (std::memcmp(&raw[0], kLogMagic, 8) != 0) return "it is no ledger's log";
  if (LoadLittleEndian<uint32_t>(&raw[8]) != kVersion) return "it is of a later version";
  if (LoadLittleEndian<uint32_t>(&raw[28]) != format::Crc32c(raw.first(28))) return "its header's checksum is wrong";
  generation = LoadLittleEndian<uint64_t>(&raw[16]);
  return {};
}

Bytes EncodeRecord(uint32_t type, ByteView body) {
  Bytes record(kRecordHeadBytes + body.size());
  StoreLittleEndian<uint32_t>(type, &record[0]);
  StoreLittleEndian<uint32_t>(static_cast<uint32_t>(body.size()), &record[4]);
  std::copy(body.begin(), body.end(), record.begin() + kRecordHeadBytes);
  // The checksum over type, size and body, as if its own place were not there.
  Bytes covered(record.begin(), record.begin() + 8);
  covered.insert(covered.end(), body.begin(), body.end());
  StoreLittleEndian<uint32_t>(format::Crc32c(covered), &record[8]);
  return record;
}

bool RecordChecks(std::span<const std::byte, kRecordHeadBytes> head, ByteView body) {
  Bytes covered(head.begin(), head.begin() + 8);
  covered.insert(covered.end(), body.begin(), body.end());
  return LoadLittleEndian<uint32_t>(&head[8]) == format::Crc32c(covered);
}

void EncodeSnapshot(const LedgerState& state, Bytes& body) {
  body.assign(kSnapshotBytes, std::byte{0});
  StoreLittleEndian<uint32_t>(state.page_size, &body[0]);
  StoreLittleEndian<uint32_t>(state.page_count, &body[4]);
  std::copy(state.root.bytes.begin(), state.root.bytes.end(), body.begin() + 8);
  std::memcpy(&body[8 + format::kDigestBytes], state.snapshot_id.data(), std::min(kUlidBytes, state.snapshot_id.size()));
}

bool DecodeSnapshot(ByteView body, LedgerState& state) {
  if (body.size() != kSnapshotBytes) return false;
  state.page_size = LoadLittleEndian<uint32_t>(&body[0]);
  state.page_count = LoadLittleEndian<uint32_t>(&body[4]);
  std::copy_n(body.begin() + 8, format::kDigestBytes, state.root.bytes.begin());
  state.snapshot_id = std::string(AsText(body.subspan(8 + format::kDigestBytes, kUlidBytes)));
  return format::IsPageSize(state.page_size) && state.page_count <= format::kMaxPageCount && IsUlid(state.snapshot_id);
}

}  // namespace litefleet::ledger
