#include "agent/upload/session.h"

#include <algorithm>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

constexpr size_t kMaxMessageBytes = 600 << 10;
constexpr size_t kMaxChunksPerOffer = 256;

absl::Status Protocol(std::string_view what) {
  return Error(absl::StatusCode::kInternal, "UPLOAD_PROTOCOL", fmt::format("the controller {}", what),
               "run the same release on both sides");
}

}  // namespace

UploadSession::UploadSession(v1::UploadBegin begin, Limits limits)
    : limits_(limits), begin_(std::move(begin)), max_offered_(begin_->base_snapshot_id().empty() ? 0 : limits.early_chunks) {}

size_t UploadSession::raw_chunks() const {
  size_t packing = 0;
  for (const Sending& sending : ready_) packing += sending.packed ? 0 : 1;
  return gathering_.size() + offered_chunks_ + wanted_.size() + differing_.size() + packing;
}

bool UploadSession::waits_for_network() const {
  const bool packing = std::any_of(ready_.begin(), ready_.end(), [](const Sending& sending) { return !sending.packed; });
  return !packing && (wanted_.empty() || packed_bytes_ >= limits_.max_packed_bytes);
}

bool UploadSession::CanOffer() const {
  return !commit_ && raw_chunks() < (accepted_ ? limits_.max_raw_chunks : std::min<size_t>(max_offered_, limits_.max_raw_chunks));
}

void UploadSession::Offer(Chunk chunk) { gathering_.push_back(std::move(chunk)); }

std::optional<Differing> UploadSession::TakeDiffering() {
  if (differing_.empty()) return std::nullopt;
  Differing differing = std::move(differing_.front());
  differing_.pop_front();
  return differing;
}

void UploadSession::FlushOffers() { flush_ = true; }

void UploadSession::Commit(v1::UploadCommit commit) {
  commit_ = std::move(commit);
  flush_ = true;
}

std::optional<UploadSession::Wanted> UploadSession::TakeWanted() {
  // One chunk may always be on its way, whatever its size.
  if (wanted_.empty() || (!ready_.empty() && packed_bytes_ >= limits_.max_packed_bytes)) return std::nullopt;
  Wanted wanted{next_number_++, std::move(wanted_.front())};
  wanted_.pop_front();
  ready_.push_back({wanted.number, wanted.chunk, std::nullopt});
  return wanted;
}

void UploadSession::GivePacked(uint64_t number, PackedChunk packed) {
  for (Sending& sending : ready_) {
    if (sending.number != number) continue;
    packed_bytes_ += packed.data.size();
    sending.packed = std::move(packed);
    sending.chunk.payload.reset();
    return;
  }
}

std::optional<v1::UploadRequest> UploadSession::NextRequest(int64_t budget) {
  v1::UploadRequest request;
  if (begin_) {
    *request.mutable_begin() = *std::move(begin_);
    begin_.reset();
    return request;
  }
  if (commit_sent_) return std::nullopt;

  const size_t allowed = max_offered_ > offered_chunks_ ? max_offered_ - offered_chunks_ : 0;
  const size_t count = std::min({gathering_.size(), allowed, kMaxChunksPerOffer});
  if (count > 0 && (flush_ || gathering_.size() >= limits_.chunks_per_offer)) {
    SentOffer sent{next_offer_++, {}};
    v1::UploadOffer& offer = *request.mutable_offer();
    offer.set_offer_id(sent.id);
    for (size_t i = 0; i < count; ++i) {
      v1::ChunkOffer& chunk = *offer.add_chunks();
      chunk.set_name(std::string(gathering_[i].name.AsString()));
      for (const PageRun& pages : gathering_[i].runs) {
        v1::PageRun& run = *chunk.add_runs();
        run.set_first_page(pages.first_page);
        run.set_page_count(pages.page_count);
      }
      chunk.set_compared(gathering_[i].compared);
      for (const PageRun& pages : gathering_[i].sources) {
        v1::PageRun& run = *chunk.add_sources();
        run.set_first_page(pages.first_page);
        run.set_page_count(pages.page_count);
      }
      sent.chunks.push_back(std::move(gathering_[i]));
    }
    gathering_.erase(gathering_.begin(), gathering_.begin() + static_cast<std::ptrdiff_t>(count));
    if (gathering_.empty()) flush_ = commit_.has_value();
    offered_chunks_ += count;
    offered_.push_back(std::move(sent));
    LF_CRASH_POINT("upload.after_offer");
    return request;
  }
  if (gathering_.empty() && !commit_) flush_ = false;

  if (auto chunks = NextChunks(budget)) return chunks;

  if (accepted_ && commit_ && gathering_.empty() && offered_.empty() && wanted_.empty() && ready_.empty()) {
    // Beside those of streams and rounds before this one; the controller counts no more than the database has.
    const int64_t pages = commit_->pages_sent() + counts_.sent_raw_bytes / std::max<int64_t>(1, commit_->page_size());
    commit_->set_pages_sent(static_cast<uint32_t>(std::min<int64_t>(pages, UINT32_MAX)));
    *request.mutable_commit() = *commit_;
    commit_sent_ = true;
    LF_CRASH_POINT("upload.before_commit");
    return request;
  }
  return std::nullopt;
}

std::optional<v1::UploadRequest> UploadSession::NextChunks(int64_t budget) {
  const int64_t undurable = counts_.wire_bytes - counts_.durable_bytes;
  size_t count = 0;
  size_t bytes = 0;
  for (const Sending& sending : ready_) {
    if (!sending.packed) break;
    const size_t size = sending.packed->data.size();
    if (count > 0 && bytes + size > kMaxMessageBytes) break;
    // One chunk fits into every window: a window smaller than a chunk must not stop everything.
    if (undurable + static_cast<int64_t>(bytes) > 0 && undurable + static_cast<int64_t>(bytes + size) > window_bytes_) break;
    ++count;
    bytes += size;
  }
  if (count == 0 || budget <= 0) return std::nullopt;
  // A small message goes out only when nothing is about to make it larger.
  const bool more_coming = count < ready_.size() || !wanted_.empty();
  if (bytes < limits_.message_bytes && more_coming && undurable + static_cast<int64_t>(bytes) < window_bytes_ &&
      packed_bytes_ < limits_.max_packed_bytes) {
    const bool stopped_by_size = count < ready_.size() && ready_[count].packed.has_value();
    if (!stopped_by_size) return std::nullopt;
  }
  v1::UploadRequest request;
  v1::UploadChunks& chunks = *request.mutable_chunks();
  for (size_t i = 0; i < count; ++i) {
    Sending sending = std::move(ready_.front());
    ready_.pop_front();
    v1::ChunkData& data = *chunks.add_chunks();
    data.set_name(std::string(sending.chunk.name.AsString()));
    data.set_codec(static_cast<v1::Codec>(sending.packed->codec));
    data.set_raw_bytes(sending.chunk.raw_bytes);
    packed_bytes_ -= sending.packed->data.size();
    undurable_.push_back(static_cast<int64_t>(sending.packed->data.size()));
    *data.mutable_data() = std::move(sending.packed->data);
    if (!sending.chunk.compared) counts_.dealt_bytes += sending.chunk.raw_bytes;
    counts_.sent_raw_bytes += sending.chunk.raw_bytes;
  }
  counts_.wire_bytes += static_cast<int64_t>(bytes);
  return request;
}

absl::Status UploadSession::OnResponse(const v1::UploadResponse& response) {
  switch (response.message_case()) {
    case v1::UploadResponse::kAccepted:
      if (begin_ || accepted_) return Protocol("accepted an upload twice");
      accepted_ = true;
      window_bytes_ = response.accepted().window_bytes();
      max_offered_ = response.accepted().max_offered_chunks();
      durable_chunks_ = response.accepted().durable_chunks();
      base_ = response.accepted().base_snapshot_id();
      base_root_ = response.accepted().base_root_digest();
      can_precopy_ = response.accepted().can_precopy();
      if (window_bytes_ <= 0 || max_offered_ == 0) return Protocol("gave no window");
      return absl::OkStatus();
    case v1::UploadResponse::kMissing:
      return OnMissing(response.missing());
    case v1::UploadResponse::kDurable:
      // Chunks of streams before this one are in the count of `accepted`; the others became durable in the order sent.
      for (; durable_chunks_ < response.durable().durable_chunks() && !undurable_.empty(); ++durable_chunks_) {
        counts_.durable_bytes += undurable_.front();
        undurable_.pop_front();
      }
      LF_CRASH_POINT("upload.durable");
      return absl::OkStatus();
    case v1::UploadResponse::kCommitted:
      // A session that had been committed before, whose answer was lost, may end at once.
      if (!commit_sent_ && response.committed().created()) return Protocol("committed what was not complete");
      committed_ = response.committed();
      LF_CRASH_POINT("upload.committed");
      return absl::OkStatus();
    case v1::UploadResponse::MESSAGE_NOT_SET:
      return absl::OkStatus();  // of a later version
  }
  return absl::OkStatus();
}

absl::Status UploadSession::OnMissing(const v1::UploadMissing& missing) {
  if (offered_.empty() || offered_.front().id != missing.offer_id()) return Protocol("answered an offer out of order");
  SentOffer offer = std::move(offered_.front());
  offered_.pop_front();
  offered_chunks_ -= offer.chunks.size();
  counts_.answered_chunks += offer.chunks.size();
  std::vector<bool> left(offer.chunks.size(), true);
  int64_t last = -1;
  for (const v1::DifferingExtent& differing : missing.differing()) {
    if (int64_t{differing.position()} <= last || differing.position() >= offer.chunks.size())
      return Protocol("compared an extent that was not offered");
    last = differing.position();
    left[differing.position()] = false;
    counts_.dealt_bytes += offer.chunks[differing.position()].raw_bytes;
    differing_.push_back({std::move(offer.chunks[differing.position()]), differing.page_digests()});
  }
  last = -1;
  for (const uint32_t position : missing.positions()) {
    if (int64_t{position} <= last || position >= offer.chunks.size() || !left[position])
      return Protocol("asked for a chunk that was not offered");
    last = position;
    left[position] = false;
    wanted_.push_back(std::move(offer.chunks[position]));
  }
  for (size_t i = 0; i < left.size(); ++i) {
    if (left[i] && !offer.chunks[i].compared) counts_.dealt_bytes += offer.chunks[i].raw_bytes;
  }
  return absl::OkStatus();
}

}  // namespace litefleet::upload
