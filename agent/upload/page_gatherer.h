// Puts pages together into chunks: up to 256 KiB, all of one stretch, in ascending order.
//
// From 128 KiB on a chunk ends behind a page whose digest says so, on average after 64 KiB more. So what is gathered again after some pages
// more or less have changed falls into the same chunks a little later, and has the names of those that are durable at the controller.
//
// Thread safety: none; payloads are packed on any thread. Memory: one buffer of 256 KiB for each chunk that is referenced, used again.
#ifndef LITEFLEET_AGENT_UPLOAD_PAGE_GATHERER_H_
#define LITEFLEET_AGENT_UPLOAD_PAGE_GATHERER_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/upload/session.h"
#include "common/base/mutex.h"
#include "common/format/digest.h"

namespace litefleet::upload {

// A payload that can be turned into what is sent.
struct PackablePayload : Payload {
  virtual absl::StatusOr<PackedChunk> Pack(format::ChunkCompressor& compressor) = 0;
  // Of a chunk that was just read, or is compared: what it holds.
  virtual absl::StatusOr<std::string> Raw() const = 0;
};

class PageGatherer {
 public:
  explicit PageGatherer(uint32_t page_size);

  // The chunk that was complete before these pages, if any. REQUIRES: pages ascend; they are of one extent, `digests` theirs.
  std::optional<Chunk> Add(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests);
  // As above; each page is where `sources` says in the base.
  std::optional<Chunk> AddMoved(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests,
                                std::span<const uint32_t> sources);
  // What is left.
  std::optional<Chunk> Flush();
  // A chunk of its own.
  Chunk Whole(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests);

 private:
  class Buffers;
  struct RawPayload;

  const uint32_t page_size_;
  const std::shared_ptr<Buffers> buffers_;
  std::vector<PageRun> runs_;
  std::vector<PageRun> sources_;
  std::vector<format::PageDigest> digests_;
  std::unique_ptr<Bytes> bytes_;
  bool ends_ = false;  // behind the pages that it has
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_PAGE_GATHERER_H_
