// Views of bytes, and their text forms. Thread safety: values and pure functions.
#ifndef LITEFLEET_COMMON_BASE_BYTES_H_
#define LITEFLEET_COMMON_BASE_BYTES_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace litefleet {

using ByteView = std::span<const std::byte>;
using Bytes = std::vector<std::byte>;

inline ByteView AsBytes(std::string_view text) { return std::as_bytes(std::span(text.data(), text.size())); }
inline std::string_view AsText(ByteView bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Lower case.
std::string ToHex(ByteView bytes);
// Nothing where `text` is not an even number of hexadecimal digits.
std::optional<Bytes> FromHex(std::string_view text);

template <class T>
T LoadLittleEndian(const std::byte* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= static_cast<T>(std::to_integer<T>(at[i]) << (8 * i));
  return value;
}
template <class T>
void StoreLittleEndian(T value, std::byte* at) {
  for (size_t i = 0; i < sizeof(T); ++i) at[i] = static_cast<std::byte>((value >> (8 * i)) & 0xff);
}
template <class T>
T LoadBigEndian(const std::byte* at) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value = static_cast<T>((value << 8) | std::to_integer<T>(at[i]));
  return value;
}

// Fills `out` from the kernel's generator; ends the process where there is none.
void RandomBytes(std::span<std::byte> out);

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_BYTES_H_
