// Where the chunks of an upload come from: a page source that is being read, or a spool file.
//
// Thread safety: a feed is used by one thread; payloads are packed on any thread. Memory: a source feed holds one buffer of 256 KiB for
// each chunk that is referenced, and what the ledger needs.
#ifndef LITEFLEET_AGENT_UPLOAD_CHUNK_FEED_H_
#define LITEFLEET_AGENT_UPLOAD_CHUNK_FEED_H_

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/page_source.h"
#include "agent/ledger/ledger.h"
#include "agent/ledger/page_index.h"
#include "agent/upload/page_gatherer.h"
#include "agent/upload/session.h"
#include "common/format/digest.h"

namespace litefleet::upload {

class ChunkFeed {
 public:
  virtual ~ChunkFeed() = default;
  // The next chunk in ascending order of pages; nothing at the end.
  virtual absl::StatusOr<std::optional<Chunk>> Next() = 0;
  // Whoever takes the chunks has to wait for the network, altogether so long by now: does something useful meanwhile. False: there is
  // nothing to do. What it reads ahead, Next yields in its order.
  virtual absl::StatusOr<bool> ReadAhead(std::chrono::nanoseconds waited) {
    static_cast<void>(waited);
    return false;
  }
  // What the controller needs to know in the end. REQUIRES: Next() has returned nothing.
  virtual v1::UploadCommit Commit() = 0;
  // CLOCK_BOOTTIME when the state was pinned.
  virtual std::chrono::nanoseconds pinned_since_boot() const = 0;
  virtual uint32_t page_size() const = 0;
  virtual uint32_t page_count() const = 0;
  // Bytes of the database that have been looked at.
  virtual int64_t read_bytes() const = 0;
  // Content that is still to come, where that is known; else 0.
  virtual uint64_t bytes_to_come() const { return 0; }
};

// An upload may name a million runs of pages (DELTA_TOO_LARGE); half of them are for extents that are sent whole, which is enough for 128
// GiB.
inline constexpr size_t kMaxRunsSent = 512 << 10;

// How a source is read.
struct FeedPlan {
  // What is read is written there; null: nowhere. Not committed.
  ledger::Ledger* ledger = nullptr;
  // Only pages that differ from the ledger's are handed on, not whole extents. REQUIRES: the ledger's state is of this page size.
  bool changes_only = false;
  // Pages that the ledger has elsewhere are told apart from those that are new. Without it chunks ascend by their pages.
  bool find_moved = true;
  // Of the index that finds them.
  uint32_t index_entries = ledger::PageIndex::kMaxEntries;
  // Of pages that differ; extents that differ after that are handed on whole.
  size_t max_runs = kMaxRunsSent;
};

// What is said of a source once it has been read to the end and closed; `root` belongs to it.
v1::UploadCommit DescribeSource(const capture::PageSource& source, const format::RootDigest& root);

// Reads, hashes, compares. When it has come to the end, the source is closed before Next returns.
class SourceFeed final : public ChunkFeed {
 public:
  explicit SourceFeed(std::unique_ptr<capture::PageSource> source, FeedPlan plan = {});

  absl::StatusOr<std::optional<Chunk>> Next() override;
  v1::UploadCommit Commit() override;
  std::chrono::nanoseconds pinned_since_boot() const override { return source_->info().pinned_since_boot; }
  // The source or the ledger ended with an error, and not whoever takes the chunks.
  bool failed() const { return failed_; }
  // So far, or altogether.
  std::chrono::nanoseconds pinned_for() const { return source_->pinned_for(); }
  bool changes_only() const { return plan_.changes_only; }
  uint32_t page_size() const override { return source_->info().page_size; }
  uint32_t page_count() const override { return source_->info().page_count; }
  int64_t read_bytes() const override { return read_bytes_; }
  uint64_t bytes_to_come() const override;

 private:
  absl::StatusOr<std::optional<Chunk>> Read();
  // The next extent; false at the end.
  absl::StatusOr<bool> ReadExtent();
  absl::Status Compare(uint32_t first_page, ByteView pages);
  // Hands pages that differ on, those that only moved apart from the others.
  absl::Status HandOn(uint32_t first_page, ByteView pages, std::span<const format::PageDigest> digests);

  const std::unique_ptr<capture::PageSource> source_;
  const FeedPlan plan_;
  const uint32_t known_pages_;  // of the ledger
  PageGatherer gatherer_;
  PageGatherer moved_;                      // of pages that the ledger has in another place
  std::optional<ledger::PageIndex> index_;  // made for the first page that differs
  std::vector<uint32_t> sources_;
  format::RootBuilder root_;
  uint32_t next_extent_ = 0;
  size_t runs_ = 0;  // handed on, of pages that differ
  bool begun_ = false;
  bool failed_ = false;
  int64_t read_bytes_ = 0;
  std::vector<format::PageDigest> digests_;  // of the extent that is read
  std::vector<format::PageDigest> known_;
  std::deque<Chunk> ready_;
  std::optional<v1::UploadCommit> commit_;
};

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_CHUNK_FEED_H_
