// SHA-256 of what comes in pieces. Not for pages, extents and roots: digest.h has their definitions.
//
// Thread safety: none.
#ifndef LITEFLEET_COMMON_FORMAT_SHA256_STREAM_H_
#define LITEFLEET_COMMON_FORMAT_SHA256_STREAM_H_

#include <array>
#include <memory>

#include "common/base/bytes.h"

namespace litefleet::format {

class Sha256Stream {
 public:
  Sha256Stream();
  ~Sha256Stream();
  Sha256Stream(Sha256Stream&&) noexcept;
  Sha256Stream& operator=(Sha256Stream&&) noexcept;

  void Add(ByteView piece);
  // Once.
  std::array<std::byte, 32> Finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_SHA256_STREAM_H_
