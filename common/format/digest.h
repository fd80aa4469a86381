// The three digests that everything is proven by; FORMAT.md is their definition.
//
//   page digest  SHA-256(0x00, u32 page size, page)
//   chunk name   SHA-256(0x01, u32 page size, u32 n, n page digests)
//   root digest  SHA-256(0x02, u8 version, u32 page size, u32 page count, names of the extents as chunks)
//
// Integers are little-endian. The kinds are types of their own: one is never taken for another. Do not change these values: they are on
// disk and on the wire. Thread safety: values and pure functions; RootBuilder is used by one thread.
#ifndef LITEFLEET_COMMON_FORMAT_DIGEST_H_
#define LITEFLEET_COMMON_FORMAT_DIGEST_H_

#include <array>
#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"

namespace litefleet::format {

inline constexpr size_t kDigestBytes = 32;
inline constexpr uint32_t kRootVersion = 1;

template <class Tag>
struct Digest {
  std::array<std::byte, kDigestBytes> bytes{};

  // Nothing unless `raw` has 32 bytes.
  static std::optional<Digest> FromBytes(std::string_view raw) {
    if (raw.size() != kDigestBytes) return std::nullopt;
    Digest digest;
    std::memcpy(digest.bytes.data(), raw.data(), kDigestBytes);
    return digest;
  }
  std::string_view AsString() const { return AsText(bytes); }
  std::string Hex() const { return ToHex(bytes); }
  friend auto operator<=>(const Digest&, const Digest&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Digest& d) {
    uint64_t head;
    std::memcpy(&head, d.bytes.data(), sizeof head);
    return H::combine(std::move(h), head);
  }
};

using PageDigest = Digest<struct PageDigestTag>;
using ChunkName = Digest<struct ChunkNameTag>;
using RootDigest = Digest<struct RootDigestTag>;

// REQUIRES: page.size() is the page size.
PageDigest DigestPage(ByteView page);
ChunkName NameChunk(uint32_t page_size, std::span<const PageDigest> pages);
// Hashes each page of `raw`. REQUIRES: raw.size() is a multiple of page_size.
ChunkName NameChunkOf(uint32_t page_size, ByteView raw);

// The digests of the pages of `raw`, appended. REQUIRES: raw.size() is a multiple of page_size.
void DigestPages(uint32_t page_size, ByteView raw, std::vector<PageDigest>& out);

// Takes the names of all extents in ascending order.
class RootBuilder {
 public:
  RootBuilder(uint32_t page_size, uint32_t page_count);
  ~RootBuilder();
  RootBuilder(RootBuilder&&) noexcept;
  RootBuilder& operator=(RootBuilder&&) noexcept;

  void Add(const ChunkName& extent);
  // Once.
  RootDigest Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Plain SHA-256, for tokens, keys and files.
std::array<std::byte, 32> Sha256(ByteView data);

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_DIGEST_H_
