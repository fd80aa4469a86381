// The part of UploadSession that decides what an upload is compared with, and what of it is wanted.
#include <algorithm>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/format/segment.h"
#include "controller/ingest/upload_session.h"
#include "fmt/format.h"

namespace litefleet::ingest {
namespace {

constexpr int kMaxChunksPerOffer = 256;
constexpr int kMaxChunksOfWhole = 8;

absl::Status Invalid(std::string_view reason, const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, reason, message);
}

v1::SnapshotContent ContentOf(const v1::UploadBegin& begin) {
  return begin.content() == v1::SNAPSHOT_CONTENT_UNSPECIFIED ? v1::SNAPSHOT_CONTENT_DATABASE : begin.content();
}

absl::Status CheckContent(const v1::UploadBegin& begin) {
  if (!v1::SnapshotContent_IsValid(begin.content())) return Invalid("BEGIN_INVALID", "the content is unknown");
  if (begin.size_at_commit() && (ContentOf(begin) == v1::SNAPSHOT_CONTENT_DATABASE || begin.page_count() != 0))
    return Invalid("BEGIN_INVALID", "how many pages there are is told once, and of a database with the begin");
  if (ContentOf(begin) == v1::SNAPSHOT_CONTENT_DATABASE) return absl::OkStatus();
  if (begin.page_size() != format::kContentPageBytes)
    return Invalid("BEGIN_INVALID", fmt::format("content that is not a database has pages of {} bytes", format::kContentPageBytes));
  if (begin.compare() || !begin.base_snapshot_id().empty())
    return Invalid("BEGIN_INVALID", "content that is not a database is compared with nothing");
  return absl::OkStatus();
}

}  // namespace

absl::Status UploadSession::Whole(v1::UploadWhole& whole) {
  if (whole.begin().base_snapshot_id().empty() || whole.begin().compare() || !whole.has_commit())
    return Invalid("WHOLE_INVALID", "an upload in one message is on a base, and has a commit");
  if (whole.offer().chunks_size() > kMaxChunksOfWhole) {
    return Invalid("WHOLE_INVALID", fmt::format("an upload in one message offers {} chunks, {} are allowed", whole.offer().chunks_size(),
                                                kMaxChunksOfWhole));
  }
  // Others than those that it offers are of no use.
  if (whole.chunks().chunks_size() > kMaxChunksOfWhole) {
    return Invalid("WHOLE_INVALID", fmt::format("an upload in one message brings {} chunks, {} are allowed", whole.chunks().chunks_size(),
                                                kMaxChunksOfWhole));
  }
  std::vector<format::ChunkName> offered;
  for (const v1::ChunkOffer& chunk : whole.offer().chunks()) {
    if (const auto name = format::ChunkName::FromBytes(chunk.name()); name.has_value()) offered.push_back(*name);
  }
  holds_answers_ = true;
  LF_RETURN_IF_ERROR(Begin(whole.begin(), offered));
  if (state_ != State::kRunning) return absl::OkStatus();
  const bool on_base = delta_.has_value();
  if (on_base && whole.offer().chunks_size() > 0) LF_RETURN_IF_ERROR(Offer(whole.offer()));
  v1::UploadChunks wanted;
  size_t found = 0;
  for (v1::ChunkData& chunk : *whole.mutable_chunks()->mutable_chunks()) {
    if (found == expected_.size() || chunk.name() != expected_[found].name.AsString()) continue;
    wanted.add_chunks()->Swap(&chunk);
    ++found;
  }
  if (on_base && found == expected_.size()) {
    if (found > 0) LF_RETURN_IF_ERROR(Chunks(wanted));
    return Commit(whole.commit());
  }
  holds_answers_ = false;
  for (v1::UploadResponse& answer : held_answers_) sink_->Send(answer);
  held_answers_.clear();
  return absl::OkStatus();
}

void UploadSession::Tell(v1::UploadResponse response) {
  if (!holds_answers_) return sink_->Send(response);
  held_answers_.push_back(std::move(response));
}

absl::Status UploadSession::Begin(const v1::UploadBegin& begin, std::span<const format::ChunkName> offered) {
  const IngestLimits& limits = ingest_.limits();
  if (!IsUlid(begin.session_id())) return Invalid("BEGIN_INVALID", "the session id is no ULID");
  if (!begin.operation_id().empty() && !IsUlid(begin.operation_id())) return Invalid("BEGIN_INVALID", "the operation id is no ULID");
  if (!IsName(begin.database())) return Invalid("BEGIN_INVALID", "the database's name is none");
  if (begin.timeline() == 0 || begin.timeline() > INT64_MAX) return Invalid("BEGIN_INVALID", "timelines count from 1");
  if (!v1::Method_IsValid(begin.method()) || begin.method() == v1::METHOD_UNSPECIFIED)
    return Invalid("BEGIN_INVALID", "the method is unknown");
  if (!format::IsPageSize(begin.page_size())) return Invalid("BEGIN_INVALID", fmt::format("{} is no page size", begin.page_size()));
  if (begin.page_count() > format::kMaxPageCount ||
      format::DatabaseBytes(begin.page_size(), begin.page_count()) > limits.max_database_bytes) {
    return Invalid("DATABASE_TOO_LARGE",
                   fmt::format("{} pages of {} bytes are more than is accepted", begin.page_count(), begin.page_size()));
  }
  if (!begin.base_snapshot_id().empty() && !IsUlid(begin.base_snapshot_id())) return Invalid("BEGIN_INVALID", "the base's id is no ULID");
  LF_RETURN_IF_ERROR(CheckContent(begin));
  LF_ASSIGN_OR_RETURN(const ControllerNow now, ingest_.Now());
  if (now.time < kNoClockBefore) {
    return Error(absl::StatusCode::kUnavailable, "CLOCK_NOT_SET",
                 "the controller's clock was never set: nobody could say later how old a snapshot is", "set the controller's clock");
  }
  LF_RETURN_IF_ERROR(ingest_.deps().store.CheckSpace());
  const SessionId session(begin.session_id());
  // First the older stream of this session ends, so that what it received is claimed.
  ingest_.Register(session, shared_from_this());
  registered_ = true;
  begin_ = begin;
  // One a second: their rows are not kept for a week.
  const bool sync = begin.method() == v1::METHOD_CONTINUOUS && !begin.base_snapshot_id().empty();
  commits_at_begin_ = ingest_.commits(device_, begin.database());
  LF_ASSIGN_OR_RETURN(const catalog::UploadSessionRow row,
                      ingest_.deps().catalog.BeginSession(
                          device_, session, begin.database(), begin.timeline(), SnapshotId(begin.base_snapshot_id()),
                          now.time + (sync ? limits.sync_life : limits.session_life), begin.operation_id(), &facts_, offered));
  {
    MutexLock lock(mu_);
    row_ = row;
  }
  v1::UploadResponse response;
  v1::UploadAccepted& accepted = *response.mutable_accepted();
  accepted.set_durable_chunks(row.durable_chunks);
  accepted.set_window_bytes(limits.window_bytes);
  accepted.set_max_offered_chunks(limits.max_offered_chunks);
  accepted.set_can_precopy(true);
  accepted.set_can_size_at_commit(true);
  accepted.set_takes_whole(true);
  accepted.set_receive_window_bytes(limits.receive_window_bytes);
  if (row.committed) {
    accepted.set_base_snapshot_id(begin.base_snapshot_id());  // nothing will be compared: what follows is the answer
  } else {
    if (ingest_.deps().check_quota) LF_RETURN_IF_ERROR(ingest_.deps().check_quota(device_, /*goes_on=*/false));
    LF_RETURN_IF_ERROR(ChooseBase(begin, row, accepted));
  }
  Tell(std::move(response));
  if (row.committed) {
    TellCommitted({.snapshot = row.snapshot, .claims_left = true}, row.precopied);  // where a crash came before they were dropped
    return absl::OkStatus();
  }
  state_ = State::kRunning;
  return absl::OkStatus();
}

absl::Status UploadSession::ChooseBase(const v1::UploadBegin& begin, const catalog::UploadSessionRow& row, v1::UploadAccepted& accepted) {
  const IngestDeps& deps = ingest_.deps();
  if (ContentOf(begin) != v1::SNAPSHOT_CONTENT_DATABASE) {
    const auto most = static_cast<uint32_t>(
        std::min<uint64_t>(format::kMaxPageCount, static_cast<uint64_t>(ingest_.limits().max_database_bytes) / begin.page_size()));
    delta_.emplace(deps.catalog, deps.store, ingest_.digests(), ingest_.to_write(), snapshot_, begin.page_size(),
                   begin.size_at_commit() ? most : begin.page_count());
    return absl::OkStatus();
  }
  if (!row.pinned.value().empty() && (begin.compare() || !begin.base_snapshot_id().empty())) {
    std::optional<catalog::SnapshotLayout> layout = std::exchange(facts_.pinned, std::nullopt);
    const bool named =
        layout.has_value() && row.pinned.value() == begin.base_snapshot_id() && layout->root.AsString() == begin.base_root_digest();
    // A base of another page size shares nothing; one that a newer controller wrote cannot be read.
    if (layout.has_value() && layout->page_size == begin.page_size() && (named || begin.compare())) {
      absl::StatusOr<manifest::ManifestReader> base = manifest::ManifestReader::Open(deps.catalog, deps.store, *std::move(layout));
      if (base.ok()) {
        base->Know(std::exchange(facts_.parts, {}));
        accepted.set_base_snapshot_id(row.pinned.value());
        accepted.set_base_root_digest(std::string(base->layout().root.AsString()));
        delta_.emplace(deps.catalog, deps.store, ingest_.digests(), ingest_.to_write(), snapshot_, begin.page_count(), *std::move(base));
        return absl::OkStatus();
      }
    }
  }
  manifest_.emplace(deps.store, snapshot_, begin.page_size(), begin.page_count(), ingest_.limits().entries_per_part);
  pinned_.emplace(deps.catalog, deps.store, row.pinned, begin.page_size());
  return absl::OkStatus();
}

absl::Status UploadSession::Offer(const v1::UploadOffer& offer) {
  if (offer.offer_id() != next_offer_)
    return Invalid("OFFER_INVALID", fmt::format("offer {} came, {} is next", offer.offer_id(), next_offer_));
  if (offer.chunks_size() < 1 || offer.chunks_size() > kMaxChunksPerOffer) {
    return Invalid("OFFER_INVALID", fmt::format("an offer of {} chunks, 1 to {} are allowed", offer.chunks_size(), kMaxChunksPerOffer));
  }
  if (expected_.size() + static_cast<size_t>(offer.chunks_size()) > ingest_.limits().max_expected_chunks) {
    return Invalid("TOO_MANY_OFFERS", fmt::format("{} chunks are wanted and were not sent", expected_.size()));
  }
  ++next_offer_;
  v1::UploadResponse response;
  v1::UploadMissing& missing = *response.mutable_missing();
  missing.set_offer_id(offer.offer_id());
  LF_RETURN_IF_ERROR(delta_.has_value() ? OfferOnBase(offer, missing) : OfferWithoutBase(offer, missing));
  Tell(std::move(response));
  return absl::OkStatus();
}

absl::Status UploadSession::OfferWithoutBase(const v1::UploadOffer& offer, v1::UploadMissing& missing) {
  std::vector<OfferedChunk> chunks;
  std::vector<format::ChunkName> names;
  std::vector<bool> pinned;
  chunks.reserve(static_cast<size_t>(offer.chunks_size()));
  for (const v1::ChunkOffer& chunk : offer.chunks()) {
    LF_ASSIGN_OR_RETURN(chunks.emplace_back(), manifest_->Add(chunk));
    names.push_back(chunks.back().name);
    pinned.push_back(pinned_->Holds(chunk.runs(0).first_page(), chunks.back().name));
  }
  catalog::UploadSessionRow row;
  {
    MutexLock lock(mu_);
    row = row_;
  }
  LF_ASSIGN_OR_RETURN(const std::vector<catalog::Presence> presence, ingest_.deps().catalog.ClaimOffered(row, names, pinned));
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (presence[i] == catalog::Presence::kClaimed) continue;
    missing.add_positions(static_cast<uint32_t>(i));
    expected_.push_back({.name = chunks[i].name, .page_count = chunks[i].page_count, .stored = presence[i] == catalog::Presence::kForeign});
  }
  return absl::OkStatus();
}

absl::Status UploadSession::OfferOnBase(const v1::UploadOffer& offer, v1::UploadMissing& missing) {
  std::vector<DeltaBuilder::Checked> checked;
  std::vector<format::ChunkName> names;
  std::vector<int> positions;  // of `names` in the offer
  for (int i = 0; i < offer.chunks_size(); ++i) {
    LF_ASSIGN_OR_RETURN(checked.emplace_back(), delta_->Check(offer.chunks(i)));
    if (checked.back().same) continue;
    names.push_back(checked.back().chunk.name);
    positions.push_back(i);
  }
  if (names.empty()) return absl::OkStatus();
  catalog::UploadSessionRow row;
  {
    MutexLock lock(mu_);
    row = row_;
  }
  // What the store did not have a moment ago needs no claim; should it come meanwhile, the commit finds it.
  std::vector<catalog::Presence> presence;
  if (facts_.all_missing) {
    presence.assign(names.size(), catalog::Presence::kMissing);
  } else {
    LF_ASSIGN_OR_RETURN(presence, ingest_.deps().catalog.ClaimOffered(row, names, std::vector<bool>(names.size(), false)));
  }
  facts_.all_missing = false;
  for (size_t i = 0; i < names.size(); ++i) {
    const v1::ChunkOffer& chunk = offer.chunks(positions[i]);
    const DeltaBuilder::Checked& about = checked[static_cast<size_t>(positions[i])];
    // A device that named the base knows which pages differ from it.
    const bool compares = begin_.compare() && begin_.base_snapshot_id().empty() && !chunk.compared();
    if (presence[i] != catalog::Presence::kClaimed && about.comparable && compares) {
      v1::DifferingExtent& differing = *missing.add_differing();
      differing.set_position(static_cast<uint32_t>(positions[i]));
      LF_ASSIGN_OR_RETURN(*differing.mutable_page_digests(), delta_->DigestPrefixes(chunk));
      continue;
    }
    LF_RETURN_IF_ERROR(delta_->Take(chunk));
    if (presence[i] == catalog::Presence::kClaimed) continue;
    const absl::StatusOr<bool> copied = delta_->CopyMoved(chunk);
    if (copied.ok() && *copied) continue;
    // What of the base is damaged is sent.
    if (!copied.ok() && !absl::IsDataLoss(copied.status())) return copied.status();
    missing.add_positions(static_cast<uint32_t>(positions[i]));
    expected_.push_back(
        {.name = about.chunk.name, .page_count = about.chunk.page_count, .stored = presence[i] == catalog::Presence::kForeign});
  }
  return absl::OkStatus();
}

}  // namespace litefleet::ingest
