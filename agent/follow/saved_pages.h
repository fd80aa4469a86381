// What stretches of a WAL changed, kept in memory: the last version of each page, so that the WAL may be started over before it was sent.
//
//   saved.Add(stretch, database)   once, and again with what came after it: one state, the last one's
//
// Not for what is larger than its bound: that is sent from the WAL as it stands. Thread safety: none. Memory: `max_bytes` of pages.
// Errors: kAborted FRAME_DAMAGED, kResourceExhausted SAVED_TOO_LARGE, those of reading. After one what is saved is of no use.
#ifndef LITEFLEET_AGENT_FOLLOW_SAVED_PAGES_H_
#define LITEFLEET_AGENT_FOLLOW_SAVED_PAGES_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <span>

#include "absl/status/statusor.h"
#include "agent/capture/user_database.h"
#include "agent/capture/wal_frames.h"
#include "agent/capture/wal_index.h"
#include "agent/follow/moment.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"

namespace litefleet::follow {

// A state to be shipped, by what changed since the one before.
struct Stretch {
  capture::WalPlace from;
  capture::WalPlace to;
  capture::WalState look;  // that of `to`
  SystemTime taken_at;     // after the look
  std::chrono::nanoseconds since_boot{0};

  Moment moment() const { return {taken_at, since_boot}; }
};

// How many databases may have pages in memory at once. Thread safety: any thread. Outlives its turns.
class SavedTurns {
 public:
  explicit SavedTurns(int most) : free_(most) {}

  class Turn {
   public:
    explicit Turn(SavedTurns& turns) : turns_(turns) {}
    ~Turn() {
      turns_.wanted_.store(false);
      turns_.free_.fetch_add(1);
    }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    SavedTurns& turns_;
  };
  // Null: all are taken.
  std::unique_ptr<Turn> Take() {
    for (int free = free_.load(); free > 0;) {
      if (free_.compare_exchange_weak(free, free - 1)) return std::make_unique<Turn>(*this);
    }
    wanted_.store(true);
    return nullptr;
  }
  // Somebody was refused, and nobody has given a turn back since.
  bool wanted() const { return wanted_.load(); }

 private:
  std::atomic<int> free_;
  std::atomic<bool> wanted_{false};
};

class SavedPages {
 public:
  // `known_pages`: of the state that the first stretch begins at.
  SavedPages(uint32_t known_pages, uint64_t max_bytes) : growth_(known_pages + 1), max_bytes_(max_bytes) {}

  // False: it would be too much, and what was saved before stands. REQUIRES: a hold of `database` has lasted since before `to` was looked
  // at; `from` is what the last one led to.
  absl::StatusOr<bool> Add(const Stretch& stretch, capture::UserDatabase& database);

  // The end of a generation of which the WAL has been started over (capture::EndOfGeneration): as Add, but the database file has all of it,
  // and each page is compared with what is there, unless `look` has a newer one. kAborted FRAME_DAMAGED where that differs. REQUIRES: what
  // the new generation has up to `look` is added before anything is sent.
  absl::StatusOr<bool> AddEnd(const Stretch& stretch, capture::UserDatabase& database);

  const std::map<uint32_t, Bytes>& pages() const { return pages_; }
  uint64_t bytes() const { return pages_.size() * uint64_t{page_size_}; }
  uint32_t commits() const { return commits_; }
  uint64_t bytes_read() const { return bytes_read_; }

 private:
  // Puts the frames' pages over those that are there; which, where `seen` is given.
  absl::Status AddFrames(const Stretch& stretch, capture::UserDatabase& database, std::set<uint32_t>* seen);
  // How many pages the frames of `stretch` add to those that are there: at most one a frame; where that would be too much, counted.
  absl::StatusOr<uint64_t> PagesOfFrames(const Stretch& stretch, capture::UserDatabase& database);
  absl::StatusOr<uint64_t> PagesToRead(const Stretch& stretch, capture::UserDatabase& database, const capture::WalIndex& index);
  bool Fits(uint64_t more_pages) const { return bytes() + more_pages * page_size_ <= max_bytes_; }
  absl::Status AddGrowth(const Stretch& stretch, capture::UserDatabase& database, const capture::WalIndex& index);

  std::map<uint32_t, Bytes> pages_;
  uint32_t growth_;  // the first page that may be new without a frame
  uint64_t max_bytes_;
  uint32_t page_size_ = 0;
  uint32_t commits_ = 0;
  uint64_t bytes_read_ = 0;
};

// A page that the database grew by and that no frame behind `after` has, as SQLite reads it: pages that were freed in the transaction that
// made them have none. False: a frame behind `after` has it.
absl::StatusOr<bool> ReadPageWithoutFrame(uint32_t page, uint32_t after, const capture::WalState& look, capture::UserDatabase& database,
                                          const capture::WalIndex& index, std::span<std::byte> out);

}  // namespace litefleet::follow

#endif  // LITEFLEET_AGENT_FOLLOW_SAVED_PAGES_H_
