#include "common/base/ids.h"

#include <algorithm>
#include <array>

#include "common/base/bytes.h"

namespace litefleet {
namespace {

constexpr std::string_view kCrockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

bool IsAlnum(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

}  // namespace

std::string NewUlid(SystemTime now) {
  std::array<std::byte, 16> raw;
  RandomBytes(raw);
  const uint64_t millis = static_cast<uint64_t>(std::max<int64_t>(ToUnixMillis(now), 0));
  for (int i = 0; i < 6; ++i) raw[static_cast<size_t>(i)] = static_cast<std::byte>((millis >> (8 * (5 - i))) & 0xff);
  // 128 bits in 26 digits of 5 bits: the first digit holds the upper 3 bits.
  std::string text(26, '0');
  for (int digit = 0; digit < 26; ++digit) {
    unsigned value = 0;
    for (int bit = 0; bit < 5; ++bit) {
      const int position = digit * 5 + bit - 2;  // from the most significant bit of `raw`
      value <<= 1;
      if (position >= 0) value |= (std::to_integer<unsigned>(raw[static_cast<size_t>(position / 8)]) >> (7 - position % 8)) & 1;
    }
    text[static_cast<size_t>(digit)] = kCrockford[value];
  }
  return text;
}

bool IsUlid(std::string_view text) {
  return text.size() == 26 && text[0] <= '7' &&
         std::all_of(text.begin(), text.end(), [](char c) { return kCrockford.find(c) != std::string_view::npos; });
}

std::string NewUuid() {
  std::array<std::byte, 16> raw;
  RandomBytes(raw);
  raw[6] = (raw[6] & std::byte{0x0f}) | std::byte{0x40};
  raw[8] = (raw[8] & std::byte{0x3f}) | std::byte{0x80};
  std::string text = ToHex(raw);
  for (const size_t at : {8u, 13u, 18u, 23u}) text.insert(at, 1, '-');
  return text;
}

bool IsUuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
  }
  return true;
}

bool IsName(std::string_view text) {
  return !text.empty() && text.size() <= 63 && IsAlnum(text[0]) &&
         std::all_of(text.begin(), text.end(), [](char c) { return IsAlnum(c) || c == '.' || c == '_' || c == '-'; });
}

}  // namespace litefleet
