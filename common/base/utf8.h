// Text for people and for protobuf's strings, which are UTF-8 or not read at all. Thread safety: pure functions. Source: RFC 3629.
#ifndef LITEFLEET_COMMON_BASE_UTF8_H_
#define LITEFLEET_COMMON_BASE_UTF8_H_

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

namespace litefleet {

// Bytes of the character at the begin of `text`, which is not empty; 0 where it is none.
inline size_t CharacterLength(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xc2 && lead < 0xe0 ? 2 : (lead & 0xf0) == 0xe0 ? 3 : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  if ((lead == 0xe0 && at(1) < 0xa0) || (lead == 0xed && at(1) > 0x9f) || (lead == 0xf0 && at(1) < 0x90) || (lead == 0xf4 && at(1) > 0x8f))
    return 0;
  return length;
}

// At most `limit` bytes of `text`, which may be anything: whole characters, and '?' for each byte that is of none.
inline std::string CleanUtf8(std::string_view text, size_t limit) {
  std::string clean;
  while (!text.empty()) {
    const size_t length = CharacterLength(text);
    const size_t bytes = std::max<size_t>(length, 1);
    if (clean.size() + bytes > limit) break;
    clean += length == 0 ? std::string_view("?") : text.substr(0, bytes);
    text.remove_prefix(bytes);
  }
  return clean;
}

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_UTF8_H_
