#include "agent/follow/wal_feed.h"

#include <algorithm>
#include <utility>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/format/extent.h"

namespace litefleet::follow {
namespace {

constexpr size_t kBatch = 16384;

}  // namespace

WalFeed::WalFeed(const Stretch& stretch, capture::UserDatabase& database, ledger::Ledger& ledger, ExtentNames& names, Order order)
    : stretch_(stretch),
      database_(&database),
      saved_(nullptr),
      index_(capture::WalIndex(database.file(), database.wal_file())),
      ledger_(ledger),
      names_(names),
      known_pages_(ledger.state()->page_count),
      gatherer_(stretch.to.page_size),
      step_(order == Order::kAscending ? Step::kProve : Step::kFrames),
      growth_(ledger.state()->page_count + 1) {}

WalFeed::WalFeed(const Stretch& stretch, const SavedPages& saved, ledger::Ledger& ledger, ExtentNames& names)
    : stretch_(stretch),
      database_(nullptr),
      saved_(&saved),
      ledger_(ledger),
      names_(names),
      known_pages_(ledger.state()->page_count),
      gatherer_(stretch.to.page_size),
      saved_at_(saved.pages().begin()),
      growth_(stretch.to.page_count + 1),
      commits_(saved.commits()) {}

int64_t WalFeed::read_bytes() const {
  if (saved_ != nullptr) return static_cast<int64_t>(saved_->bytes_read());
  return frames_.has_value() ? static_cast<int64_t>(frames_->bytes_read()) : 0;
}

absl::StatusOr<bool> WalFeed::Begin() {
  LF_RETURN_IF_ERROR(names_.Follow(ledger_));
  if (saved_ == nullptr) {
    LF_ASSIGN_OR_RETURN(frames_, capture::WalFrames::Open(database_->wal_file(), stretch_.from, stretch_.to));
  }
  LF_RETURN_IF_ERROR(ledger_.Begin(page_size(), page_count(), ledger::Ledger::kChanges));
  page_.resize(page_size());
  touched_.assign(format::ExtentCount(page_size(), page_count()), false);
  changed_ = page_count() != known_pages_;
  LF_ASSIGN_OR_RETURN(std::optional<upload::Chunk> first, Next());
  if (first.has_value()) ready_.push_front(*std::move(first));
  return changed_;
}

absl::StatusOr<std::optional<upload::Chunk>> WalFeed::Next() {
  absl::StatusOr<std::optional<upload::Chunk>> chunk = Read();
  failed_ |= !chunk.ok();
  return chunk;
}

absl::StatusOr<std::optional<upload::Chunk>> WalFeed::Read() {
  while (ready_.empty() && step_ != Step::kDone) {
    switch (step_) {
      case Step::kFrames:
        if (saved_ != nullptr && saved_at_ != saved_->pages().end()) {
          LF_RETURN_IF_ERROR(Take(saved_at_->first, saved_at_->second));
          ++saved_at_;
        } else if (batch_at_ < batch_.size()) {
          LF_RETURN_IF_ERROR(TakeVersion(batch_[batch_at_++]));
        } else if (saved_ != nullptr || frames_->done()) {
          Flush();
          step_ = Step::kGrowth;
        } else {
          Flush();
          LF_RETURN_IF_ERROR(FillBatch());
        }
        break;
      case Step::kProve:
        LF_RETURN_IF_ERROR(ProveFrames());
        step_ = Step::kPages;
        break;
      case Step::kPages:
        if (next_page_ <= page_count()) {
          LF_RETURN_IF_ERROR(TakeNextPage());
        } else {
          growth_ = page_count() + 1;  // taken with them
          step_ = Step::kGrowth;
        }
        break;
      case Step::kGrowth:
        if (growth_ <= page_count()) {
          LF_RETURN_IF_ERROR(TakeGrowth());
        } else {
          // Proven frames are read once more in the order of their pages, and a hold on mark 0 that began with what was not shipped does
          // not keep them.
          if (saved_ == nullptr) LF_RETURN_IF_ERROR(index_->NotStartedOver(stretch_.look));
          Flush();
          step_ = Step::kNames;
        }
        break;
      case Step::kNames:
        LF_RETURN_IF_ERROR(NameExtents());
        step_ = Step::kDone;
        break;
      case Step::kDone:
        break;
    }
  }
  if (ready_.empty()) return std::nullopt;
  upload::Chunk chunk = std::move(ready_.front());
  ready_.pop_front();
  return chunk;
}

absl::Status WalFeed::FillBatch() {
  batch_.clear();
  batch_at_ = 0;
  while (!frames_->done() && batch_.size() < kBatch) {
    LF_ASSIGN_OR_RETURN(const capture::WalFrame frame, frames_->Next());
    if (frame.commit_pages != 0) {
      ++commits_;
      // What was cut off and came back without a frame is read as well.
      growth_ = std::min(growth_, frame.commit_pages + 1);
    }
    if (frame.page > page_count()) continue;
    LF_ASSIGN_OR_RETURN(const uint32_t last, index_->FindFrame(frame.page, stretch_.look));
    if (last == frame.number) batch_.push_back({frame.page, frame.number});
  }
  std::sort(batch_.begin(), batch_.end(), [](const Version& a, const Version& b) { return a.page < b.page; });
  return absl::OkStatus();
}

absl::Status WalFeed::ProveFrames() {
  in_stretch_.assign(touched_.size(), false);
  const uint32_t per_extent = format::PagesPerExtent(page_size());
  while (!frames_->done()) {
    LF_ASSIGN_OR_RETURN(const capture::WalFrame frame, frames_->Next());
    if (frame.commit_pages != 0) {
      ++commits_;
      growth_ = std::min(growth_, frame.commit_pages + 1);
    }
    if (frame.page <= page_count()) in_stretch_[(frame.page - 1) / per_extent] = true;
    if (frame.number % kBatch == 0 && on_batch_) LF_RETURN_IF_ERROR(on_batch_());
  }
  for (uint64_t page = growth_; page <= page_count(); page += per_extent) in_stretch_[(page - 1) / per_extent] = true;
  if (growth_ <= page_count()) in_stretch_.back() = true;
  return absl::OkStatus();
}

absl::Status WalFeed::TakeNextPage() {
  const uint32_t per_extent = format::PagesPerExtent(page_size());
  const auto page = static_cast<uint32_t>(next_page_);
  if (const uint32_t extent = (page - 1) / per_extent; !in_stretch_[extent]) {
    next_page_ = (uint64_t{extent} + 1) * per_extent + 1;
    return absl::OkStatus();
  }
  ++next_page_;
  LF_ASSIGN_OR_RETURN(const uint32_t last, index_->FindFrame(page, stretch_.look));
  if (last > frames_before()) return TakeVersion({page, last});
  if (page < growth_) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const bool read, ReadPageWithoutFrame(page, frames_before(), stretch_.look, *database_, *index_, page_));
  return read ? Take(page, page_) : absl::OkStatus();
}

absl::Status WalFeed::TakeVersion(const Version& version) {
  LF_RETURN_IF_ERROR(frames_->ReadPage(version.frame, page_));
  return Take(version.page, page_);
}

absl::Status WalFeed::TakeGrowth() {
  const uint32_t page = growth_++;
  LF_ASSIGN_OR_RETURN(const bool read, ReadPageWithoutFrame(page, frames_before(), stretch_.look, *database_, *index_, page_));
  return read ? Take(page, page_) : absl::OkStatus();  // else it came with the frames
}

absl::Status WalFeed::Take(uint32_t page, ByteView content) {
  const format::PageDigest digest = format::DigestPage(content);
  if (page <= known_pages_) {
    format::PageDigest known;
    LF_RETURN_IF_ERROR(ledger_.Read(page, std::span(&known, 1)));
    if (known == digest) return absl::OkStatus();
  }
  changed_ = true;
  touched_[(page - 1) / format::PagesPerExtent(page_size())] = true;
  LF_RETURN_IF_ERROR(ledger_.Put(page, std::span(&digest, 1)));
  if (std::optional<upload::Chunk> chunk = gatherer_.Add(page, content, std::span(&digest, 1))) ready_.push_back(*std::move(chunk));
  return absl::OkStatus();
}

void WalFeed::Flush() {
  if (std::optional<upload::Chunk> last = gatherer_.Flush()) ready_.push_back(*std::move(last));
}

absl::Status WalFeed::NameExtents() {
  // An extent that became shorter or longer has another name.
  if (page_count() != known_pages_ && page_count() > 0 && known_pages_ > 0)
    touched_[(std::min(page_count(), known_pages_) - 1) / format::PagesPerExtent(page_size())] = true;
  std::vector<format::PageDigest> digests;
  for (uint32_t extent = 0; extent < touched_.size(); ++extent) {
    if (!touched_[extent]) continue;
    digests.resize(format::PagesIn(page_size(), page_count(), extent));
    LF_RETURN_IF_ERROR(ledger_.ReadNext(format::FirstPageOf(page_size(), extent), digests));
    LF_RETURN_IF_ERROR(names_.Set(extent, format::NameChunk(page_size(), digests)));
  }
  if (!changed_) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(root_, names_.Root(page_size(), page_count()));
  commit_.set_page_size(page_size());
  commit_.set_page_count(page_count());
  commit_.set_root_digest(std::string(root_.AsString()));
  commit_.set_root_version(format::kRootVersion);
  *commit_.mutable_taken_at() = MillisTimestamp(ToUnixMillis(stretch_.taken_at));
  commit_.set_journal_mode(v1::JOURNAL_MODE_WAL);
  commit_.set_source_check(v1::CHECK_STATE_UNKNOWN);
  commit_.set_read_bytes(read_bytes());
  commit_.set_commits(commits_);
  return absl::OkStatus();
}

}  // namespace litefleet::follow
