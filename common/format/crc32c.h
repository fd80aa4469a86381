// CRC-32C (Castagnoli), by the processor's instruction where there is one. It finds accidents, not attackers.
//
// Thread safety: pure functions. Source: RFC 3720, appendix B.4 (the test vectors).
#ifndef LITEFLEET_COMMON_FORMAT_CRC32C_H_
#define LITEFLEET_COMMON_FORMAT_CRC32C_H_

#include <cstdint>

#include "common/base/bytes.h"

namespace litefleet::format {

uint32_t Crc32c(ByteView data);

namespace internal {
// For tests: without special instructions.
uint32_t Crc32cPortable(ByteView data);
}  // namespace internal

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_CRC32C_H_
