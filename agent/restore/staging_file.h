// The new database while it is fetched: written in ascending order, every byte part of the root digest, written back while more arrives.
//
// Thread safety: none. Memory: 8 bytes for each extent of one that shares
// blocks, else constant. Errors: ErrnoError (DISK_FULL among them; of Append, Finish and Sync also
// for what was written before), kDataLoss ROOT_MISMATCH.
#ifndef LITEFLEET_AGENT_RESTORE_STAGING_FILE_H_
#define LITEFLEET_AGENT_RESTORE_STAGING_FILE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/restorer.h"
#include "agent/restore/staging_log.h"
#include "agent/restore/target_place.h"
#include "common/format/digest.h"
#include "common/io/file.h"
#include "common/io/writeback.h"

namespace litefleet::restore {

class StagingFile {
 public:
  // A new file of mode 0600, with its space reserved where the file system can do that. `place` outlives it.
  static absl::StatusOr<std::unique_ptr<StagingFile>> Create(const TargetPlace& place, const std::string& name, uint32_t page_size,
                                                             uint32_t page_count);
  // One of before; hash it with Verify where it is complete, with Resume where it is not.
  static absl::StatusOr<std::unique_ptr<StagingFile>> Reopen(const TargetPlace& place, const std::string& name, uint32_t page_size,
                                                             uint32_t page_count);

  // A file of before that is not a snapshot's and is put back as it is, whatever it holds: with the geometry that its header names.
  static absl::StatusOr<std::unique_ptr<StagingFile>> Take(const TargetPlace& place, const std::string& name);

  // Believes the extents from the first one on whose content has the name that `log` has of them, so that Append goes on behind them.
  // `read` is told after each. REQUIRES: nothing was appended yet. kCancelled CANCELLED.
  absl::Status Resume(const StagingLog& log, const CancelToken& cancel, const std::function<void(uint32_t)>& read);
  // REQUIRES: extents come in ascending order without holes, with as many pages as they have.
  absl::Status Append(const FetchedExtent& extent);
  uint32_t next_extent() const { return next_extent_; }

  // For an extent that is put together in its place (DeltaFetch): nothing of it counts before it is adopted.
  absl::Status WritePages(uint32_t first_page, ByteView pages);
  // The same for pages that the file behind `source` probably has at the same place: where the file system can, its blocks are shared and
  // nothing is written. What is shared is read back and compared, and written after all where it is something else. `source` is a
  // descriptor of somebody else's, or -1.
  absl::Status SharePages(int source, uint32_t first_page, ByteView pages);
  // Bytes that share blocks with another file: those that SharePages shared and WritePages has not touched since.
  uint64_t shared_bytes() const;
  absl::Status ReadExtent(uint32_t extent, Bytes& out) const;
  // The next extent's content has just been read and has this name.
  void Adopt(const format::ChunkName& name);
  // All extents are there: compares the root.
  absl::Status Finish(const format::RootDigest& expected);
  // Reads and hashes the whole file. `versions`: what bytes 18 and 19 were in the snapshot, empty where they are as they were.
  absl::Status Verify(const format::RootDigest& expected, std::string_view versions, const CancelToken& cancel);
  // Much may wait for the disk: kCancelled CANCELLED.
  absl::Status Sync(const CancelToken& cancel);

  // Bytes 18 and 19 of page 1. REQUIRES: the database is not empty.
  absl::StatusOr<std::string> ReadVersions() const;
  absl::Status WriteVersions(std::string_view versions);

  int fd() const { return fd_.get(); }
  const std::string& name() const { return name_; }
  std::string path() const { return place_.PathOf(name_); }
  uint32_t page_size() const { return page_size_; }
  uint32_t page_count() const { return page_count_; }
  uint64_t bytes() const { return static_cast<uint64_t>(page_size_) * page_count_; }

 private:
  StagingFile(const TargetPlace& place, std::string name, uint32_t page_size, uint32_t page_count, io::UniqueFd fd);
  // Of the blocks that these bytes touch.
  void SetShared(uint64_t offset, uint64_t size, bool shared);

  const TargetPlace& place_;
  const std::string name_;
  const uint32_t page_size_;
  const uint32_t page_count_;
  io::UniqueFd fd_;
  uint32_t next_extent_ = 0;
  bool can_share_ = true;         // until the file system says no
  std::vector<uint64_t> shared_;  // a bit for each block of 4 KiB, a word for each extent; empty before the first is shared
  Bytes compared_;
  io::Writeback writeback_;
  format::RootBuilder root_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_STAGING_FILE_H_
