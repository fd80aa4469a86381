// The bytes of a ledger's two files; FORMAT.md is the definition. Thread safety: pure functions.
#ifndef LITEFLEET_AGENT_LEDGER_LEDGER_FORMAT_H_
#define LITEFLEET_AGENT_LEDGER_LEDGER_FORMAT_H_

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "agent/ledger/ledger.h"
#include "common/base/bytes.h"
#include "common/format/digest.h"

namespace litefleet::ledger {

inline constexpr size_t kBaseHeaderBytes = 256;
inline constexpr size_t kLogHeaderBytes = 32;
inline constexpr size_t kRecordHeadBytes = 12;
inline constexpr uint32_t kBlockPages = 1024;
// Values are on disk: do not change them.
inline constexpr uint32_t kPagesRecord = 1;
inline constexpr uint32_t kSnapshotRecord = 2;

struct BaseHeader {
  uint64_t generation = 0;
  std::array<std::byte, 32> identity{};
  LedgerState state;
};

constexpr uint32_t BlockCount(uint32_t pages) { return pages / kBlockPages + (pages % kBlockPages != 0 ? 1 : 0); }
constexpr uint64_t ChecksumsAt(uint32_t pages) { return kBaseHeaderBytes + uint64_t{pages} * format::kDigestBytes; }
constexpr uint64_t BaseBytes(uint32_t pages) { return ChecksumsAt(pages) + uint64_t{BlockCount(pages)} * 4; }

void EncodeBaseHeader(const BaseHeader& header, std::span<std::byte, kBaseHeaderBytes> out);
// What is wrong; empty when nothing is.
std::string DecodeBaseHeader(std::span<const std::byte, kBaseHeaderBytes> raw, BaseHeader& header);
void EncodeLogHeader(uint64_t generation, std::span<std::byte, kLogHeaderBytes> out);
std::string DecodeLogHeader(std::span<const std::byte, kLogHeaderBytes> raw, uint64_t& generation);

Bytes EncodeRecord(uint32_t type, ByteView body);
bool RecordChecks(std::span<const std::byte, kRecordHeadBytes> head, ByteView body);
void EncodeSnapshot(const LedgerState& state, Bytes& body);
bool DecodeSnapshot(ByteView body, LedgerState& state);

}  // namespace litefleet::ledger

#endif  // LITEFLEET_AGENT_LEDGER_LEDGER_FORMAT_H_
