#include "agent/follow/saved_pages.h"

#include <algorithm>

#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::follow {
namespace {

// Of the same pages again and again: more are not read to be counted.
constexpr uint64_t kMostFramesOfAPage = 4;

uint32_t FirstFrameBehind(const Stretch& stretch) { return stretch.from.salts == stretch.to.salts ? stretch.from.frame : 0; }

}  // namespace

absl::StatusOr<bool> ReadPageWithoutFrame(uint32_t page, uint32_t after, const capture::WalState& look, capture::UserDatabase& database,
                                          const capture::WalIndex& index, std::span<std::byte> out) {
  LF_ASSIGN_OR_RETURN(const uint32_t frame, index.FindFrame(page, look));
  if (frame > after) return false;
  std::fill(out.begin(), out.end(), std::byte{0});
  LF_ASSIGN_OR_RETURN(const uint32_t backfilled, index.Backfilled());
  sqlite3_file* from = nullptr;
  sqlite3_int64 at = 0;
  const auto page_size = static_cast<uint32_t>(out.size());
  if (frame > backfilled) {
    from = database.wal_file();
    at = static_cast<sqlite3_int64>(capture::WalBytes(page_size, frame) - page_size);
  } else if (page != format::LockBytePage(page_size)) {
    from = database.file();
    at = static_cast<sqlite3_int64>(format::DatabaseBytes(page_size, page - 1));
  } else {
    return true;
  }
  const int rc = from == nullptr ? SQLITE_CANTOPEN : from->pMethods->xRead(from, out.data(), static_cast<int>(out.size()), at);
  if (rc != SQLITE_OK && rc != SQLITE_IOERR_SHORT_READ) return database.ErrorFor(rc, "read");
  return true;
}

absl::StatusOr<uint64_t> SavedPages::PagesOfFrames(const Stretch& stretch, capture::UserDatabase& database) {
  const uint64_t count = stretch.to.frame - FirstFrameBehind(stretch), most = max_bytes_ / page_size_;
  if (Fits(count) || count > kMostFramesOfAPage * most) return count;
  std::set<uint32_t> added;
  LF_ASSIGN_OR_RETURN(capture::WalFrames frames, capture::WalFrames::Open(database.wal_file(), stretch.from, stretch.to));
  while (!frames.done() && Fits(added.size())) {
    LF_ASSIGN_OR_RETURN(const capture::WalFrame frame, frames.Next());
    if (!pages_.contains(frame.page)) added.insert(frame.page);
  }
  bytes_read_ += frames.bytes_read();
  return added.size();
}

absl::StatusOr<uint64_t> SavedPages::PagesToRead(const Stretch& stretch, capture::UserDatabase& database, const capture::WalIndex& index) {
  const uint32_t after = FirstFrameBehind(stretch);
  LF_ASSIGN_OR_RETURN(uint64_t pages, PagesOfFrames(stretch, database));
  for (uint32_t page = growth_; page <= stretch.to.page_count && Fits(pages); ++page) {
    LF_ASSIGN_OR_RETURN(const uint32_t frame, index.FindFrame(page, stretch.look));
    if (frame <= after) ++pages;
  }
  return pages;
}

absl::StatusOr<bool> SavedPages::Add(const Stretch& stretch, capture::UserDatabase& database) {
  const capture::WalIndex index(database.file(), database.wal_file());
  page_size_ = stretch.to.page_size;
  LF_ASSIGN_OR_RETURN(const uint64_t more, PagesToRead(stretch, database, index));
  if (!Fits(more)) return false;
  LF_RETURN_IF_ERROR(AddFrames(stretch, database, nullptr));
  LF_RETURN_IF_ERROR(AddGrowth(stretch, database, index));
  // Which frame is a page's last one was the wal-index's word.
  LF_RETURN_IF_ERROR(index.NotStartedOver(stretch.look));
  pages_.erase(pages_.upper_bound(stretch.to.page_count), pages_.end());
  return true;
}

absl::Status SavedPages::AddFrames(const Stretch& stretch, capture::UserDatabase& database, std::set<uint32_t>* seen) {
  LF_ASSIGN_OR_RETURN(capture::WalFrames frames, capture::WalFrames::Open(database.wal_file(), stretch.from, stretch.to));
  while (!frames.done()) {
    LF_ASSIGN_OR_RETURN(const capture::WalFrame frame, frames.Next());
    if (frame.commit_pages != 0) {
      ++commits_;
      // What was cut off and came back without a frame is read as well.
      growth_ = std::min(growth_, frame.commit_pages + 1);
    }
    if (frame.page > stretch.to.page_count) continue;
    // Not read once more: it was proven as it was read.
    pages_[frame.page].assign(frames.page().begin(), frames.page().end());
    if (seen != nullptr) seen->insert(frame.page);
  }
  bytes_read_ += frames.bytes_read();
  return absl::OkStatus();
}

absl::StatusOr<bool> SavedPages::AddEnd(const Stretch& stretch, capture::UserDatabase& database) {
  page_size_ = stretch.to.page_size;
  LF_ASSIGN_OR_RETURN(const uint64_t more, PagesOfFrames(stretch, database));
  if (!Fits(more)) return false;
  std::set<uint32_t> seen;
  LF_RETURN_IF_ERROR(AddFrames(stretch, database, &seen));
  const auto damaged = [](std::string_view what) { return Error(absl::StatusCode::kAborted, "FRAME_DAMAGED", what); };
  for (; growth_ <= stretch.to.page_count; ++growth_) {
    if (!seen.contains(growth_)) return damaged("the database grew by a page that no frame has");
  }
  const capture::WalIndex index(database.file(), database.wal_file());
  sqlite3_file* const file = database.file();
  Bytes there(page_size_);
  for (const uint32_t page : seen) {
    if (page > stretch.to.page_count) continue;
    // Of the new generation, which may have been copied since: that version is taken over this one before any of it is sent.
    LF_ASSIGN_OR_RETURN(const uint32_t newer, index.FindFrame(page, stretch.look));
    if (newer != 0) continue;
    const auto at = static_cast<sqlite3_int64>(format::DatabaseBytes(page_size_, page - 1));
    const int rc = file == nullptr ? SQLITE_CANTOPEN : file->pMethods->xRead(file, there.data(), static_cast<int>(there.size()), at);
    if (rc != SQLITE_OK) return database.ErrorFor(rc, "read");
    if (there != pages_[page]) return damaged("the database file has something else than the last frame of a generation");
  }
  pages_.erase(pages_.upper_bound(stretch.to.page_count), pages_.end());
  return true;
}

absl::Status SavedPages::AddGrowth(const Stretch& stretch, capture::UserDatabase& database, const capture::WalIndex& index) {
  Bytes page(page_size_);
  for (; growth_ <= stretch.to.page_count; ++growth_) {
    // Not counted before: the database was cut off and grew again within what was read.
    if (bytes() + page_size_ > max_bytes_ && !pages_.contains(growth_)) {
      return Error(absl::StatusCode::kResourceExhausted, "SAVED_TOO_LARGE",
                   "the database grew by more pages without a frame than are kept");
    }
    LF_ASSIGN_OR_RETURN(const bool read, ReadPageWithoutFrame(growth_, FirstFrameBehind(stretch), stretch.look, database, index, page));
    if (read) pages_[growth_] = page;
  }
  growth_ = stretch.to.page_count + 1;
  return absl::OkStatus();
}

}  // namespace litefleet::follow
