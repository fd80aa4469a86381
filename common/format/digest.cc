#define OPENSSL_SUPPRESS_DEPRECATED  // EVP costs an allocation a page; the plain functions use the same code
#include "common/format/digest.h"

#include <openssl/sha.h>

namespace litefleet::format {
namespace {

template <class T>
void Update(SHA256_CTX& context, T value) {
  std::byte raw[sizeof(T)];
  StoreLittleEndian(value, raw);
  SHA256_Update(&context, raw, sizeof raw);
}

template <class D>
D Finish(SHA256_CTX& context) {
  D digest;
  SHA256_Final(reinterpret_cast<unsigned char*>(digest.bytes.data()), &context);
  return digest;
}

}  // namespace

PageDigest DigestPage(ByteView page) {
  SHA256_CTX context;
  SHA256_Init(&context);
  Update<uint8_t>(context, 0x00);
  Update<uint32_t>(context, static_cast<uint32_t>(page.size()));
  SHA256_Update(&context, page.data(), page.size());
  return Finish<PageDigest>(context);
}

ChunkName NameChunk(uint32_t page_size, std::span<const PageDigest> pages) {
  SHA256_CTX context;
  SHA256_Init(&context);
  Update<uint8_t>(context, 0x01);
  Update<uint32_t>(context, page_size);
  Update<uint32_t>(context, static_cast<uint32_t>(pages.size()));
  for (const PageDigest& page : pages) SHA256_Update(&context, page.bytes.data(), page.bytes.size());
  return Finish<ChunkName>(context);
}

ChunkName NameChunkOf(uint32_t page_size, ByteView raw) {
  SHA256_CTX context;
  SHA256_Init(&context);
  Update<uint8_t>(context, 0x01);
  Update<uint32_t>(context, page_size);
  Update<uint32_t>(context, static_cast<uint32_t>(raw.size() / page_size));
  for (size_t at = 0; at + page_size <= raw.size(); at += page_size) {
    const PageDigest page = DigestPage(raw.subspan(at, page_size));
    SHA256_Update(&context, page.bytes.data(), page.bytes.size());
  }
  return Finish<ChunkName>(context);
}

void DigestPages(uint32_t page_size, ByteView raw, std::vector<PageDigest>& out) {
  // Whoever collects those of a whole database would have all of them moved each time, were it made exactly as large as needed.
  if (out.empty()) out.reserve(raw.size() / page_size);
  for (size_t at = 0; at + page_size <= raw.size(); at += page_size) out.push_back(DigestPage(raw.subspan(at, page_size)));
}

struct RootBuilder::State {
  SHA256_CTX context;
};

RootBuilder::RootBuilder(uint32_t page_size, uint32_t page_count) : state_(std::make_unique<State>()) {
  SHA256_Init(&state_->context);
  Update<uint8_t>(state_->context, 0x02);
  Update<uint8_t>(state_->context, static_cast<uint8_t>(kRootVersion));
  Update<uint32_t>(state_->context, page_size);
  Update<uint32_t>(state_->context, page_count);
}
RootBuilder::~RootBuilder() = default;
RootBuilder::RootBuilder(RootBuilder&&) noexcept = default;
RootBuilder& RootBuilder::operator=(RootBuilder&&) noexcept = default;

void RootBuilder::Add(const ChunkName& extent) { SHA256_Update(&state_->context, extent.bytes.data(), extent.bytes.size()); }
RootDigest RootBuilder::Finish() { return format::Finish<RootDigest>(state_->context); }

std::array<std::byte, 32> Sha256(ByteView data) {
  std::array<std::byte, 32> digest;
  SHA256(reinterpret_cast<const unsigned char*>(data.data()), data.size(), reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

}  // namespace litefleet::format
