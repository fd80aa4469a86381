// A backup that was read and waits for the network: compressed chunks in one file of the state directory.
//
// The writer takes chunks in the order of pages and packs them on threads of its own, so that reading the source waits for the disk and
// the processor and never for the network. Where compression cannot keep up, chunks are written as they are and compressed when they
// are sent. The file needs no format of its own: it does not outlive the process (StateDirectory::ClearSpool).
//
// Thread safety: none, except payloads, which may be packed on any thread. Memory: about 100 bytes a chunk, 400 KiB a GiB of
// database, and 8 bytes a run of changed pages.
#ifndef LITEFLEET_AGENT_UPLOAD_SPOOL_H_
#define LITEFLEET_AGENT_UPLOAD_SPOOL_H_

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/upload/chunk_feed.h"
#include "common/base/cancel_token.h"
#include "common/io/disk_reserve.h"
#include "common/io/file.h"

namespace litefleet::upload {

struct SpoolOptions {
  int compressors = 2;
  int compression_level = 1;
  io::DiskReserve reserve;
};

class Spool {
 public:
  // Reads `feed` to its end into `path`. Errors: those of the feed; kResourceExhausted DISK_FULL; kCancelled. Removes the file then.
  static absl::StatusOr<std::unique_ptr<Spool>> Fill(const std::string& path, SourceFeed& feed, const SpoolOptions& options,
                                                     const CancelToken& cancel);
  // Removes the file.
  ~Spool();

  // All chunks from the first one, as often as wanted. The spool outlives the feed and its payloads.
  std::unique_ptr<ChunkFeed> MakeFeed() const;

 private:
  struct Entry {
    format::ChunkName name;
    std::vector<PageRun> runs;
    uint32_t raw_bytes = 0;
    uint32_t stored_bytes = 0;
    uint64_t offset = 0;
    format::Codec codec = format::Codec::kRaw;
  };
  struct SpooledPayload;
  class SpoolFeed;
  class Writer;

  Spool(std::string path, io::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  const std::string path_;
  const io::UniqueFd fd_;
  std::vector<Entry> entries_;
  v1::UploadCommit commit_;
  std::chrono::nanoseconds pinned_since_boot_{0};
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_SPOOL_H_
