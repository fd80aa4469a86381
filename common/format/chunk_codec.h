// Compression of chunks. One frame a chunk, with the content size in the frame and without zstd's own checksum, since the chunk's
// name proves more.
//
// Thread safety: an object is used by one thread at a time; it keeps a zstd context between calls. Memory: about 1 MiB at level 1.
#ifndef LITEFLEET_COMMON_FORMAT_CHUNK_CODEC_H_
#define LITEFLEET_COMMON_FORMAT_CHUNK_CODEC_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/format/digest.h"

namespace litefleet::format {

// Values are on disk and on the wire (litefleet.v1.Codec): do not change them.
enum class Codec : uint8_t { kRaw = 1, kZstd = 2 };

class ChunkCompressor {
 public:
  // zstd's levels, 1 to 19.
  explicit ChunkCompressor(int level);
  ~ChunkCompressor();
  ChunkCompressor(ChunkCompressor&&) noexcept;
  ChunkCompressor& operator=(ChunkCompressor&&) noexcept;

  // Replaces `out`; raw where compression gains nothing.
  absl::StatusOr<Codec> Compress(ByteView raw, std::string& out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

class ChunkDecompressor {
 public:
  ChunkDecompressor();
  ~ChunkDecompressor();
  ChunkDecompressor(ChunkDecompressor&&) noexcept;
  ChunkDecompressor& operator=(ChunkDecompressor&&) noexcept;

  // `out` gets exactly raw_bytes (at most kExtentBytes); whatever `stored` claims, no more is allocated.
  // Errors: kDataLoss CHUNK_DAMAGED.
  absl::Status Decompress(Codec codec, ByteView stored, uint32_t raw_bytes, Bytes& out);

  // Decompress, hash, compare. `out` holds the pages on success, `digests` theirs unless it is null. Errors: kDataLoss CHUNK_DAMAGED.
  absl::Status Open(Codec codec, ByteView stored, uint32_t raw_bytes, uint32_t page_size, const ChunkName& name, Bytes& out,
                    std::vector<PageDigest>* digests = nullptr);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace litefleet::format

#endif  // LITEFLEET_COMMON_FORMAT_CHUNK_CODEC_H_
