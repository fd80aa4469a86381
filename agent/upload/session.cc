#include "agent/upload/session.h"

#include <algorithm>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

constexpr size_t kMaxChunksPerOffer = 256;
constexpr size_t kFirstMessage = 64 << 10;
// Below it the controller may have taken out everything without telling.
constexpr int64_t kUntold = 64 << 10;

absl::Status Protocol(std::string_view what) {
  return Error(absl::StatusCode::kInternal, "UPLOAD_PROTOCOL", fmt::format("the controller {}", what),
               "run the same release on both sides");
}

}  // namespace

UploadSession::UploadSession(v1::UploadBegin begin, Limits limits)
    : limits_(limits),
      begin_(std::move(begin)),
      whole_(limits.whole_bytes > 0 && begin_->method() == v1::METHOD_CONTINUOUS && !begin_->base_snapshot_id().empty() &&
             !begin_->compare()),
      max_offered_(begin_->base_snapshot_id().empty() ? 0 : limits.early_chunks) {}

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

void UploadSession::Offer(Chunk chunk) {
  gathering_.push_back(std::move(chunk));
  if (!whole_) return;
  uint64_t bytes = 0;
  for (const Chunk& one : gathering_) bytes += one.raw_bytes;
  // What the base has elsewhere does not travel, if it is only offered.
  whole_ = gathering_.size() <= limits_.early_chunks && bytes <= limits_.whole_bytes && gathering_.back().sources.empty();
}

std::optional<Differing> UploadSession::TakeDiffering() {
  if (differing_.empty()) return std::nullopt;
  Differing differing = std::move(differing_.front());
  differing_.pop_front();
  return differing;
}

void UploadSession::FlushOffers() {
  flush_ = true;
  if (!commit_) whole_ = false;
}

void UploadSession::Commit(v1::UploadCommit commit) {
  commit_ = std::move(commit);
  flush_ = true;
  if (whole_) wanted_.assign(gathering_.begin(), gathering_.end());
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
  if (whole_) return NextWhole(budget);
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
    request.mutable_offer()->set_offer_id(sent.id);
    const auto end = gathering_.begin() + static_cast<std::ptrdiff_t>(count);
    sent.chunks.assign(std::make_move_iterator(gathering_.begin()), std::make_move_iterator(end));
    FillOffer(sent.chunks, *request.mutable_offer());
    gathering_.erase(gathering_.begin(), end);
    if (gathering_.empty()) flush_ = commit_.has_value();
    offered_chunks_ += count;
    offered_.push_back(std::move(sent));
    LF_CRASH_POINT("upload.after_offer");
    return request;
  }
  if (gathering_.empty() && !commit_) flush_ = false;

  if (auto chunks = NextChunks(budget)) return chunks;

  if (accepted_ && commit_ && gathering_.empty() && offered_.empty() && wanted_.empty() && ready_.empty()) {
    *request.mutable_commit() = CommitNow();
    commit_sent_ = true;
    LF_CRASH_POINT("upload.before_commit");
    return request;
  }
  return std::nullopt;
}

void UploadSession::FillOffer(const std::vector<Chunk>& chunks, v1::UploadOffer& offer) {
  const auto fill = [](const std::vector<PageRun>& from, google::protobuf::RepeatedPtrField<v1::PageRun>& to) {
    for (const PageRun& pages : from) {
      v1::PageRun& run = *to.Add();
      run.set_first_page(pages.first_page);
      run.set_page_count(pages.page_count);
    }
  };
  for (const Chunk& one : chunks) {
    v1::ChunkOffer& chunk = *offer.add_chunks();
    chunk.set_name(std::string(one.name.AsString()));
    chunk.set_compared(one.compared);
    fill(one.runs, *chunk.mutable_runs());
    fill(one.sources, *chunk.mutable_sources());
  }
}

void UploadSession::FillData(Sending sending, v1::ChunkData& data) {
  data.set_name(std::string(sending.chunk.name.AsString()));
  data.set_codec(static_cast<v1::Codec>(sending.packed->codec));
  data.set_raw_bytes(sending.chunk.raw_bytes);
  packed_bytes_ -= sending.packed->data.size();
  undurable_.push_back(static_cast<int64_t>(sending.packed->data.size()));
  counts_.wire_bytes += static_cast<int64_t>(sending.packed->data.size());
  *data.mutable_data() = std::move(sending.packed->data);
  counts_.sent_raw_bytes += sending.chunk.raw_bytes;
}

// Pages beside those of streams and rounds before this one; the controller counts no more than the database has.
v1::UploadCommit UploadSession::CommitNow() const {
  v1::UploadCommit commit = *commit_;
  const int64_t pages = commit.pages_sent() + counts_.sent_raw_bytes / std::max<int64_t>(1, commit.page_size());
  commit.set_pages_sent(static_cast<uint32_t>(std::min<int64_t>(pages, UINT32_MAX)));
  return commit;
}

std::optional<v1::UploadRequest> UploadSession::NextWhole(int64_t budget) {
  const bool packed = std::all_of(ready_.begin(), ready_.end(), [](const Sending& sending) { return sending.packed.has_value(); });
  if (!commit_ || !wanted_.empty() || !packed || (budget <= 0 && !ready_.empty())) return std::nullopt;
  v1::UploadRequest request;
  v1::UploadWhole& whole = *request.mutable_whole();
  whole_ = false;
  sent_whole_ = true;
  *whole.mutable_begin() = *std::move(begin_);
  begin_.reset();
  if (!gathering_.empty()) {
    SentOffer sent{next_offer_++, std::exchange(gathering_, {})};
    whole.mutable_offer()->set_offer_id(sent.id);
    FillOffer(sent.chunks, *whole.mutable_offer());
    offered_chunks_ = sent.chunks.size();
    offered_.push_back(std::move(sent));
  }
  for (; !ready_.empty(); ready_.pop_front()) FillData(std::move(ready_.front()), *whole.mutable_chunks()->add_chunks());
  *whole.mutable_commit() = CommitNow();
  commit_sent_ = true;
  LF_CRASH_POINT("upload.after_offer");
  LF_CRASH_POINT("upload.before_commit");
  return request;
}

std::optional<v1::UploadRequest> UploadSession::NextChunks(int64_t budget) {
  const int64_t undurable = counts_.wire_bytes - counts_.durable_bytes;
  const int64_t unreceived = sent_bytes_ - received_bytes_;
  const int64_t receive_window = receive_window_bytes_ > 0 ? std::min(receive_window_bytes_, most_unreceived_) : INT64_MAX;
  // The first one is small: soon it is known how fast the link is.
  const size_t message_bytes = sent_bytes_ == 0 ? std::min(limits_.message_bytes, kFirstMessage) : limits_.message_bytes;
  size_t count = 0;
  size_t bytes = 0;
  for (const Sending& sending : ready_) {
    if (!sending.packed) break;
    const size_t size = sending.packed->data.size();
    // On a slow link nothing is heard before a message has arrived, not even the answer to a ping: it grows beyond its size by no chunk but
    // the only one.
    if (count > 0 && bytes + size > message_bytes) break;
    // One chunk fits into every window: a window smaller than a chunk must not stop everything.
    if (undurable + static_cast<int64_t>(bytes) > 0 && undurable + static_cast<int64_t>(bytes + size) > window_bytes_) break;
    if (unreceived + static_cast<int64_t>(bytes) >= kUntold && static_cast<int64_t>(bytes + size) > receive_window - unreceived) break;
    ++count;
    bytes += size;
  }
  if (count == 0 || budget <= 0) return std::nullopt;
  // A small message goes out only when nothing is about to make it larger.
  const bool more_coming = count < ready_.size() || !wanted_.empty();
  const bool windows_open =
      undurable + static_cast<int64_t>(bytes) < window_bytes_ && static_cast<int64_t>(bytes) < receive_window - unreceived;
  if (bytes < message_bytes && more_coming && windows_open && packed_bytes_ < limits_.max_packed_bytes) {
    const bool stopped_by_size = count < ready_.size() && ready_[count].packed.has_value();
    if (!stopped_by_size) return std::nullopt;
  }
  v1::UploadRequest request;
  v1::UploadChunks& chunks = *request.mutable_chunks();
  for (size_t i = 0; i < count; ++i) {
    if (!ready_.front().chunk.compared) counts_.dealt_bytes += ready_.front().chunk.raw_bytes;
    FillData(std::move(ready_.front()), *chunks.add_chunks());
    ready_.pop_front();
  }
  sent_bytes_ += static_cast<int64_t>(bytes);
  return request;
}

absl::Status UploadSession::OnResponse(const v1::UploadResponse& response) {
  switch (response.message_case()) {
    case v1::UploadResponse::kAccepted:
      if (begin_ || accepted_) return Protocol("accepted an upload twice");
      accepted_ = true;
      window_bytes_ = response.accepted().window_bytes();
      max_offered_ = response.accepted().max_offered_chunks();
      counts_.durable_chunks = response.accepted().durable_chunks();
      base_ = response.accepted().base_snapshot_id();
      base_root_ = response.accepted().base_root_digest();
      can_precopy_ = response.accepted().can_precopy();
      can_size_at_commit_ = response.accepted().can_size_at_commit();
      takes_whole_ = response.accepted().takes_whole();
      receive_window_bytes_ = response.accepted().receive_window_bytes();
      if (sent_whole_) {
        // The parts that follow are sent again where they are missing, and the commit is: nothing of what was sent counts.
        commit_sent_ = false;
        undurable_.clear();
        counts_.sent_raw_bytes = 0;
        counts_.durable_bytes = counts_.wire_bytes;
      }
      if (window_bytes_ <= 0 || max_offered_ == 0) return Protocol("gave no window");
      return absl::OkStatus();
    case v1::UploadResponse::kMissing:
      return OnMissing(response.missing());
    case v1::UploadResponse::kReceived:
      received_bytes_ = std::clamp(response.received().bytes(), received_bytes_, sent_bytes_);
      return absl::OkStatus();
    case v1::UploadResponse::kDurable:
      // Chunks of streams before this one are in the count of `accepted`; the others became durable in the order sent.
      for (; counts_.durable_chunks < response.durable().durable_chunks() && !undurable_.empty(); ++counts_.durable_chunks) {
        counts_.durable_bytes += undurable_.front();
        undurable_.pop_front();
      }
      LF_CRASH_POINT("upload.durable");
      return absl::OkStatus();
    case v1::UploadResponse::kCommitted:
      // A session that had been committed before, whose answer was lost, may end at once.
      if (!commit_sent_ && response.committed().created()) return Protocol("committed what was not complete");
      committed_ = response.committed();
      // Of what was sent as a whole nothing else is heard.
      for (size_t i = 0; sent_whole_ && i < offered_.size(); ++i) {
        for (const Chunk& chunk : offered_[i].chunks) counts_.dealt_bytes += chunk.raw_bytes;
        counts_.answered_chunks += offered_[i].chunks.size();
      }
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
