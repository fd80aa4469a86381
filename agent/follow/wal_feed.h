// What a stretch of a WAL changed, as chunks of an upload: each page in its last version, once; then the root of the new state.
//
//   frames one after the other, proven -> those that are the last of their page (the wal-index knows) -> 16,384 at a time sorted by page ->
//   (or SavedPages, which are that; or, where pages have to ascend, page after page of the extents that frames are of, each by what the
//   wal-index says is its last frame) -> pages that differ from the ledger's -> chunks; at the end the names of the extents they are in,
//   and the root
//
// Pages that the database grew by and that no frame has (pages that were freed in the transaction that made them) are read as SQLite
// reads them. Not without a hold that has lasted since before `to` was looked at; that the WAL was not started over under it is looked at
// behind the last read, before the root is named. Thread safety: as ChunkFeed. Memory: a batch (128 KiB),
// a bit for each extent, one group of the ledger (2 MiB at most), chunks on their way; nothing grows with the transaction.
// Errors: kAborted FRAME_DAMAGED: there is doubt; those of reading, the ledger and the disk.
#ifndef LITEFLEET_AGENT_FOLLOW_WAL_FEED_H_
#define LITEFLEET_AGENT_FOLLOW_WAL_FEED_H_

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/user_database.h"
#include "agent/capture/wal_frames.h"
#include "agent/capture/wal_index.h"
#include "agent/follow/extent_names.h"
#include "agent/follow/saved_pages.h"
#include "agent/ledger/ledger.h"
#include "agent/upload/chunk_feed.h"

namespace litefleet::follow {

class WalFeed final : public upload::ChunkFeed {
 public:
  enum class Order {
    kBatches,    // the first chunk is there when a batch of frames was read
    kAscending,  // all frames are proven before the first page is read again
  };
  // What it refers to outlives it. REQUIRES: ledger.state() is what `from` stands for, of this page size.
  WalFeed(const Stretch& stretch, capture::UserDatabase& database, ledger::Ledger& ledger, ExtentNames& names,
          Order order = Order::kBatches);
  // Of what was saved, in ascending order: neither WAL nor database is read.
  WalFeed(const Stretch& stretch, const SavedPages& saved, ledger::Ledger& ledger, ExtentNames& names);

  // Called after each batch of frames that is proven before the first page is taken; an error ends it.
  void OnBatch(std::function<absl::Status()> on_batch) { on_batch_ = std::move(on_batch); }

  // Reads on to the first chunk. False: what was committed changed nothing.
  absl::StatusOr<bool> Begin();

  absl::StatusOr<std::optional<upload::Chunk>> Next() override;
  v1::UploadCommit Commit() override { return commit_; }
  std::chrono::nanoseconds pinned_since_boot() const override { return stretch_.since_boot; }
  uint32_t page_size() const override { return stretch_.to.page_size; }
  uint32_t page_count() const override { return stretch_.to.page_count; }
  int64_t read_bytes() const override;
  // The frames or the ledger ended with an error, and not whoever takes the chunks.
  bool failed() const { return failed_; }
  const format::RootDigest& root() const { return root_; }
  uint32_t commits() const { return commits_; }

 private:
  struct Version {
    uint32_t page = 0;
    uint32_t frame = 0;
  };
  enum class Step { kFrames, kProve, kPages, kGrowth, kNames, kDone };

  absl::StatusOr<std::optional<upload::Chunk>> Read();
  absl::Status FillBatch();
  // Proves all frames, and notes which extents they are in.
  absl::Status ProveFrames();
  // The next page of those extents.
  absl::Status TakeNextPage();
  uint32_t frames_before() const { return stretch_.from.salts == stretch_.to.salts ? stretch_.from.frame : 0; }
  absl::Status TakeVersion(const Version& version);
  // The next page that the database grew by and no frame has.
  absl::Status TakeGrowth();
  absl::Status Take(uint32_t page, ByteView content);
  absl::Status NameExtents();
  void Flush();

  const Stretch stretch_;
  capture::UserDatabase* const database_;  // or
  const SavedPages* const saved_;
  std::optional<capture::WalIndex> index_;
  ledger::Ledger& ledger_;
  ExtentNames& names_;
  const uint32_t known_pages_;
  std::optional<capture::WalFrames> frames_;
  upload::PageGatherer gatherer_;
  Step step_ = Step::kFrames;
  std::vector<Version> batch_;
  size_t batch_at_ = 0;
  std::map<uint32_t, Bytes>::const_iterator saved_at_;
  uint32_t growth_;  // page
  uint64_t next_page_ = 1;
  std::function<absl::Status()> on_batch_;
  std::vector<bool> in_stretch_;  // extents
  Bytes page_;
  std::vector<bool> touched_;  // extents
  bool changed_ = false;
  uint32_t commits_ = 0;
  bool failed_ = false;
  std::deque<upload::Chunk> ready_;
  v1::UploadCommit commit_;
  format::RootDigest root_;
};

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_WAL_FEED_H_
