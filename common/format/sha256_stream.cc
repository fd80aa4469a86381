#include "common/format/sha256_stream.h"

#include <openssl/evp.h>

#include <cstdlib>

namespace litefleet::format {

struct Sha256Stream::State {
  // A digest that cannot be computed would be a wrong one: only out of memory does that.
  State() : context(EVP_MD_CTX_new()) {
    if (context == nullptr || EVP_DigestInit_ex(context, EVP_sha256(), nullptr) != 1) std::abort();
  }
  ~State() { EVP_MD_CTX_free(context); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  EVP_MD_CTX* const context;
};

Sha256Stream::Sha256Stream() : state_(std::make_unique<State>()) {}
Sha256Stream::~Sha256Stream() = default;
Sha256Stream::Sha256Stream(Sha256Stream&&) noexcept = default;
Sha256Stream& Sha256Stream::operator=(Sha256Stream&&) noexcept = default;

void Sha256Stream::Add(ByteView piece) {
  if (EVP_DigestUpdate(state_->context, piece.data(), piece.size()) != 1) std::abort();
}

std::array<std::byte, 32> Sha256Stream::Finish() {
  std::array<std::byte, 32> digest{};
  unsigned int size = 0;
  if (EVP_DigestFinal_ex(state_->context, reinterpret_cast<unsigned char*>(digest.data()), &size) != 1) std::abort();
  return digest;
}

}  // namespace litefleet::format
