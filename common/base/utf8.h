// Text of which nobody knows whether it is UTF-8, which protobuf and JSON want. Pure functions. Source: RFC 3629.
#ifndef LITEFLEET_COMMON_BASE_UTF8_H_
#define LITEFLEET_COMMON_BASE_UTF8_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace litefleet {

// Bytes of the first character of `text`; 0 where it is none.
inline size_t Utf8CharacterBytes(std::string_view text) {
  if (text.empty()) return 0;
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t bytes = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  if (bytes <= 1 || bytes > text.size()) return bytes <= 1 ? bytes : 0;
  uint32_t code = first & (0x7fU >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if ((byte & 0xc0) != 0x80) return 0;
    code = code << 6 | (byte & 0x3f);
  }
  const bool shortest = bytes == 2 || code >= (bytes == 3 ? 0x800U : 0x10000U);
  return shortest && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? bytes : 0;
}

// With U+FFFD for each byte that is no part of a character.
inline std::string AsUtf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t bytes = Utf8CharacterBytes(text);
    out += bytes == 0 ? std::string_view("\xef\xbf\xbd") : text.substr(0, bytes);
    text.remove_prefix(bytes == 0 ? 1 : bytes);
  }
  return out;
}

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_UTF8_H_
