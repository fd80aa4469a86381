// One spooled snapshot as a file; FORMAT.md has the bytes.
//
// Thread safety: none; objects are used by one thread at a time. Memory: one chunk. Errors: those of the file system; what is read and
// makes no sense, or what the disk does not give back, is kDataLoss SPOOLED_DAMAGED; of a later version kFailedPrecondition STATE_TOO_NEW.
#ifndef LITEFLEET_AGENT_SPOOL_SPOOL_FILE_H_
#define LITEFLEET_AGENT_SPOOL_SPOOL_FILE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/upload/session.h"
#include "common/base/bytes.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/io/disk_reserve.h"
#include "common/io/file.h"
#include "litefleet/storage/v1/spool.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::spool {

// A chunk as it stands in the file.
struct StoredChunk {
  format::ChunkName name;
  std::vector<upload::PageRun> runs = {};
  uint32_t raw_bytes = 0;
  format::Codec codec = format::Codec::kRaw;
  std::string data = {};

  uint32_t last_page() const { return runs.back().first_page + runs.back().page_count - 1; }
};

class SpoolFileWriter {
 public:
  struct Limits {
    // Of the file. More is kResourceExhausted SPOOL_FULL.
    uint64_t max_bytes = 0;
    // Less free space is kResourceExhausted DISK_FULL.
    io::DiskReserve reserve;
    // Nothing is written, and nothing can be finished: it is asked whether it would fit.
    bool counts_only = false;
  };

  // Writes `path`.tmp.
  static absl::StatusOr<std::unique_ptr<SpoolFileWriter>> Create(const std::string& path, const storage::v1::SpooledHeader& header,
                                                                 const Limits& limits);
  // Removes what has no final name yet.
  ~SpoolFileWriter();
  SpoolFileWriter(const SpoolFileWriter&) = delete;
  SpoolFileWriter& operator=(const SpoolFileWriter&) = delete;

  // Ascending pages.
  absl::Status Add(const StoredChunk& chunk);
  // Durable, under its name, in the place of what had it.
  absl::Status Finish(const v1::UploadCommit& commit, int64_t ended_at_ms);
  uint32_t chunks() const { return footer_.chunks(); }
  uint64_t bytes() const { return end_; }

 private:
  SpoolFileWriter(std::string path, Limits limits) : path_(std::move(path)), limits_(limits) {}
  std::string tmp() const { return path_ + ".tmp"; }
  absl::Status Append(ByteView data);
  absl::Status CheckSpace();

  const std::string path_;
  const Limits limits_;
  io::UniqueFd fd_;
  uint64_t end_ = 0;
  uint64_t checked_at_ = 0;
  uint32_t last_page_ = 0;
  bool finished_ = false;
  storage::v1::SpooledFooter footer_;
};

class SpoolFileReader {
 public:
  // Reads header and footer.
  static absl::StatusOr<std::unique_ptr<SpoolFileReader>> Open(const std::string& path);

  const storage::v1::SpooledHeader& header() const { return header_; }
  const storage::v1::SpooledFooter& footer() const { return footer_; }
  const v1::UploadCommit& commit() const { return commit_; }
  uint64_t bytes() const { return bytes_; }
  bool full() const { return header_.base_spooled_id().empty() && header_.base_snapshot_id().empty(); }

  // The next chunk; nothing at the end. Its place in the order of pages, its bounds and its checksum are looked at, its content is not.
  absl::StatusOr<std::optional<StoredChunk>> Next();
  void Rewind();
  // Decompresses and proves. `digests` may be null.
  absl::Status Unpack(const StoredChunk& chunk, Bytes& pages, std::vector<format::PageDigest>* digests);

 private:
  SpoolFileReader(std::string path, io::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  absl::Status ReadEnds();
  absl::Status Damaged(std::string_view what) const;
  // As much as `out` has. A sector that does not come back is damage as well.
  absl::Status ReadAt(uint64_t at, std::string& out) const;
  // A head of 12 bytes and its body.
  absl::Status ReadBlock(uint64_t at, uint32_t type, uint32_t most, std::string& body);

  const std::string path_;
  const io::UniqueFd fd_;
  uint64_t bytes_ = 0;
  uint64_t first_chunk_ = 0;
  uint64_t footer_at_ = 0;
  storage::v1::SpooledHeader header_;
  storage::v1::SpooledFooter footer_;
  v1::UploadCommit commit_;
  format::ChunkDecompressor decompressor_;

  uint64_t next_at_ = 0;
  uint32_t next_page_ = 1;  // the least that the next chunk may begin with
  uint32_t read_ = 0;       // chunks
};

}  // namespace litefleet::spool

#endif  // LITEFLEET_AGENT_SPOOL_SPOOL_FILE_H_
