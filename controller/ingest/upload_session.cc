#include "controller/ingest/upload_session.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "controller/ingest/snapshot_record.h"
#include "fmt/format.h"

namespace litefleet::ingest {
namespace {

// Payload of a message that is verified at once: that takes less than waking another thread gains.
constexpr int64_t kVerifiedHere = 64 << 10;
// Of what was received a device hears after so much payload, as UploadReceived says.
constexpr int64_t kTellReceived = 64 << 10;
// Of chunks that may wait to be recorded: the payload does not bound how many there are.
constexpr size_t kMarksAhead = 4;

absl::Status Invalid(std::string_view reason, const std::string& message) {
  return Error(absl::StatusCode::kInvalidArgument, reason, message);
}
absl::Status OutOfOrder(std::string_view what) {
  return Invalid("UPLOAD_OUT_OF_ORDER", fmt::format("{} does not belong here: begin, then offers and chunks, then one commit", what));
}

absl::Status StoreFailed() {
  return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed during the upload", "the backup will be tried again");
}

}  // namespace

absl::Status UploadSession::AddEpochs(const std::deque<Slot>& slots, std::optional<uint64_t>& epoch) {
  for (const Slot& slot : slots) {
    if (!slot.chunk.place.has_value()) continue;
    if (epoch.has_value() && *epoch != slot.epoch) return StoreFailed();
    epoch = slot.epoch;
  }
  return absl::OkStatus();
}

std::vector<catalog::ArrivedChunk> UploadSession::ChunksOf(const std::deque<Slot>& slots) {
  std::vector<catalog::ArrivedChunk> chunks;
  chunks.reserve(slots.size());
  for (const Slot& slot : slots) chunks.push_back(slot.chunk);
  return chunks;
}

UploadSession::UploadSession(Ingest& ingest, DeviceId device, std::shared_ptr<UploadSink> sink)
    : ingest_(ingest),
      device_(std::move(device)),
      sink_(std::move(sink)),
      snapshot_(NewUlid(ingest.deps().clock.Now())),
      opened_at_(ingest.deps().clock.Steady()) {}

UploadSession::~UploadSession() { ingest_.UploadEnded(); }

absl::Status UploadSession::status() const {
  MutexLock lock(mu_);
  return status_;
}

void UploadSession::Fail(const absl::Status& status) {
  {
    MutexLock lock(mu_);
    if (status_.ok()) status_ = status;
    changed_.SignalAll();
    if (std::exchange(closed_, true)) return;
  }
  sink_->Close(status);
}

void UploadSession::Abort(const absl::Status& why) { Fail(why); }

void UploadSession::WaitEnded(SteadyTime deadline) {
  MutexLock lock(mu_);
  while (!ended_ && changed_.WaitUntil(mu_, deadline)) {}
}

absl::Status UploadSession::Handle(v1::UploadRequest& request) {
  LF_RETURN_IF_ERROR(status());
  const absl::Status result = Dispatch(request);
  if (!result.ok()) Fail(result);
  return result;
}

absl::Status UploadSession::Dispatch(v1::UploadRequest& request) {
  switch (request.message_case()) {
    case v1::UploadRequest::kBegin:
      return state_ == State::kNew ? Begin(request.begin()) : OutOfOrder("a begin");
    case v1::UploadRequest::kOffer:
      return state_ == State::kRunning ? Offer(request.offer()) : OutOfOrder("an offer");
    case v1::UploadRequest::kChunks:
      return state_ == State::kRunning ? Chunks(*request.mutable_chunks()) : OutOfOrder("a chunk");
    case v1::UploadRequest::kCommit:
      return state_ == State::kRunning ? Commit(request.commit()) : OutOfOrder("a commit");
    case v1::UploadRequest::kWhole:
      return state_ == State::kNew ? Whole(*request.mutable_whole()) : OutOfOrder("a whole upload");
    case v1::UploadRequest::MESSAGE_NOT_SET:
      break;
  }
  return OutOfOrder("an unknown message");
}

absl::Status UploadSession::Chunks(v1::UploadChunks& chunks) {
  const IngestLimits& limits = ingest_.limits();
  std::vector<Job> jobs;
  std::vector<Slot> slots;
  int64_t bytes = 0;
  for (v1::ChunkData& chunk : *chunks.mutable_chunks()) {
    if (expected_.empty() || chunk.name() != expected_.front().name.AsString()) {
      return Invalid("CHUNK_NOT_WANTED", "a chunk came that was not wanted, or not in the order of the offers");
    }
    const Expected expected = expected_.front();
    expected_.pop_front();
    if (chunk.codec() != v1::CODEC_RAW && chunk.codec() != v1::CODEC_ZSTD) return Invalid("CHUNK_INVALID", "a chunk's codec is unknown");
    if (chunk.raw_bytes() != expected.page_count * begin_.page_size()) {
      return Invalid("CHUNK_INVALID", fmt::format("a chunk of {} pages claims {} bytes", expected.page_count, chunk.raw_bytes()));
    }
    if (chunk.data().empty() || chunk.data().size() > chunk.raw_bytes()) {
      return Invalid("CHUNK_INVALID", fmt::format("a chunk of {} bytes has {} bytes of payload", chunk.raw_bytes(), chunk.data().size()));
    }
    Slot slot;
    slot.chunk = {.name = expected.name,
                  .page_size = begin_.page_size(),
                  .page_count = expected.page_count,
                  .codec = static_cast<format::Codec>(chunk.codec()),
                  .stored_bytes = static_cast<uint32_t>(chunk.data().size()),
                  .place = std::nullopt};
    slot.put = !expected.stored;
    slots.push_back(slot);
    bytes += static_cast<int64_t>(chunk.data().size());
    jobs.push_back({.slot = nullptr, .data = std::move(*chunk.mutable_data())});
  }
  if (jobs.empty()) return Invalid("CHUNK_INVALID", "a message without chunks");
  LF_RETURN_IF_ERROR(MakeRoom());
  {
    MutexLock lock(mu_);
    if (undurable_ > 0 && undurable_ + bytes > limits.window_bytes) {
      return Invalid("WINDOW_EXCEEDED",
                     fmt::format("{} bytes are not durable yet, the window is {}", undurable_ + bytes, limits.window_bytes));
    }
    while (in_flight_ > 0 && in_flight_ + bytes > limits.in_flight_bytes && status_.ok()) changed_.Wait(mu_);
    LF_RETURN_IF_ERROR(status_);
    for (size_t i = 0; i < slots.size(); ++i) {
      if (!recent_.insert(slots[i].chunk.name).second) slots[i].put = false;  // the same content twice in one window
      slots_.push_back(slots[i]);
      jobs[i].slot = &slots_.back();
    }
    unrecorded_ += slots.size();
    in_flight_ += bytes;
    undurable_ += bytes;
    unmarked_ += bytes;
  }
  auto task = [self = shared_from_this(), jobs = std::move(jobs), bytes]() mutable { self->Verify(std::move(jobs), bytes); };
  // TryPost consumes the task even when it refuses it: keep it where it can be run here instead.
  auto shared = std::make_shared<decltype(task)>(std::move(task));
  if (bytes <= kVerifiedHere || !ingest_.deps().verify_executor.TryPost([shared] { (*shared)(); })) (*shared)();
  MarkIfDue();
  LF_RETURN_IF_ERROR(status());
  received_bytes_ += bytes;
  // Of a whole upload nothing else is sent.
  if (!holds_answers_ && received_bytes_ - told_received_ >= kTellReceived) {
    told_received_ = received_bytes_;
    v1::UploadResponse response;
    response.mutable_received()->set_bytes(received_bytes_);
    Tell(std::move(response));
  }
  return absl::OkStatus();
}

void UploadSession::Verify(std::vector<Job> jobs, int64_t bytes) {
  for (Job& job : jobs) {
    // Also when the stream has ended meanwhile: what was received is kept for the next one.
    std::optional<store::Placed> placed;
    const absl::Status result = VerifyOne(*job.slot, job.data, placed);
    std::string().swap(job.data);
    if (!result.ok()) Fail(result);
    MutexLock lock(mu_);
    Slot& slot = *job.slot;
    slot.done = true;
    slot.good = result.ok();
    if (placed.has_value()) {
      slot.chunk.place = catalog::PackPlace{.pack = placed->location.pack, .offset = placed->location.offset};
      slot.epoch = placed->epoch;
      slot.hold = placed->hold;
    }
  }
  MutexLock lock(mu_);
  in_flight_ -= bytes;
  changed_.SignalAll();
}

absl::Status UploadSession::VerifyOne(const Slot& slot, const std::string& data, std::optional<store::Placed>& placed) {
  const auto scratch = ingest_.to_open().Take();
  const catalog::ArrivedChunk& chunk = slot.chunk;
  auto digests = std::make_shared<std::vector<format::PageDigest>>();
  const absl::Status opened = scratch->decompressor.Open(chunk.codec, AsBytes(data), chunk.page_count * chunk.page_size, chunk.page_size,
                                                         chunk.name, scratch->raw, digests.get());
  if (opened.ok()) ingest_.digests().Put(chunk.name, std::move(digests));
  if (!opened.ok()) return Invalid("CHUNK_INVALID", "what the device sent is not what it offered: " + MessageOf(opened));
  if (!slot.put) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(placed, ingest_.deps().store.PutChunk({.name = chunk.name,
                                                             .codec = chunk.codec,
                                                             .page_size = chunk.page_size,
                                                             .page_count = chunk.page_count,
                                                             .stored = AsBytes(data)}));
  LF_CRASH_POINT("ingest.after_chunk_write");
  return absl::OkStatus();
}

void UploadSession::TakeMark() {
  MutexLock lock(mu_);
  mark_queued_ = false;  // whoever waits for the mark does its work too
  while (marking_) changed_.Wait(mu_);
  marking_ = true;
}

void UploadSession::GiveMark() {
  MutexLock lock(mu_);
  marking_ = false;
  marked_at_ = ingest_.deps().clock.Steady();
  changed_.SignalAll();
}

void UploadSession::MarkIfDue() {
  {
    MutexLock lock(mu_);
    if (marking_ || mark_queued_ || !status_.ok()) return;
    const IngestLimits& limits = ingest_.limits();
    const bool soon = ingest_.deps().clock.Steady() - marked_at_ < limits.mark_pause;
    if (unmarked_ < (soon ? 2 : 1) * limits.mark_bytes && slots_.size() < limits.mark_chunks) return;
    mark_queued_ = true;
  }
  // In the background, so that receiving goes on. Where there is no room the next message tries again.
  if (ingest_.deps().session_executor.TryPost([self = shared_from_this()] { self->RunQueuedMark(); })) return;
  RunQueuedMark();
}

void UploadSession::RunQueuedMark() {
  {
    MutexLock lock(mu_);
    if (!mark_queued_ || marking_) return;
    mark_queued_ = false;
    marking_ = true;
  }
  if (Mark().ok()) MarkIfDue();
}

absl::Status UploadSession::Mark() {
  absl::Status result = MakeDurable(TakeSlots(), /*tell=*/true);
  if (result.ok() && ingest_.deps().check_quota) result = ingest_.deps().check_quota(device_, /*goes_on=*/true);
  // Before somebody else has the mark: whoever commits with it must not take for recorded what this one left out.
  if (!result.ok()) Fail(result);
  GiveMark();
  return result;
}

// Here, and not in the background: all threads that could do it there may be at this place.
absl::Status UploadSession::MakeRoom() {
  for (;;) {
    {
      MutexLock lock(mu_);
      if (!status_.ok() || unrecorded_ < kMarksAhead * ingest_.limits().mark_chunks) return status_;
    }
    TakeMark();
    LF_RETURN_IF_ERROR(Mark());
  }
}

std::deque<UploadSession::Slot> UploadSession::TakeSlots() {
  std::deque<Slot> slots;
  MutexLock lock(mu_);
  for (size_t left = std::min(slots_.size(), ingest_.limits().mark_chunks); left > 0; --left) {
    while (!slots_.front().done) changed_.Wait(mu_);
    unmarked_ -= slots_.front().chunk.stored_bytes;
    bad_ = bad_ || !slots_.front().good;
    if (!bad_) slots.push_back(std::move(slots_.front()));
    slots_.pop_front();
  }
  return slots;
}

absl::Status UploadSession::LeaveOneMark() {
  absl::Status result;
  for (;;) {
    {
      MutexLock lock(mu_);
      if (slots_.size() <= ingest_.limits().mark_chunks) return result;
    }
    const std::deque<Slot> slots = TakeSlots();
    if (result.ok()) result = MakeDurable(slots, /*tell=*/false);
  }
}

absl::Status UploadSession::MakeDurable(const std::deque<Slot>& slots, bool tell) {
  if (slots.empty()) return absl::OkStatus();
  std::optional<uint64_t> epoch;
  LF_RETURN_IF_ERROR(AddEpochs(slots, epoch));
  if (epoch.has_value()) LF_RETURN_IF_ERROR(ingest_.deps().store.Sync(*epoch));
  LF_CRASH_POINT("ingest.after_pack_sync");
  const std::vector<catalog::ArrivedChunk> chunks = ChunksOf(slots);
  catalog::UploadSessionRow row;
  {
    MutexLock lock(mu_);
    row = row_;
  }
  LF_ASSIGN_OR_RETURN(row, ingest_.deps().catalog.RecordChunks(row, chunks));
  {
    MutexLock lock(mu_);
    row_ = row;
    unrecorded_ -= chunks.size();
    for (const catalog::ArrivedChunk& chunk : chunks) {
      undurable_ -= chunk.stored_bytes;
      recent_.erase(chunk.name);
    }
    if (closed_) tell = false;
  }
  if (tell) {
    v1::UploadResponse response;
    response.mutable_durable()->set_durable_chunks(row.durable_chunks);
    response.mutable_durable()->set_durable_bytes(row.durable_bytes);
    sink_->Send(response);
  }
  return absl::OkStatus();
}

absl::Status UploadSession::Commit(const v1::UploadCommit& commit) {
  if (!expected_.empty()) return Invalid("CHUNKS_MISSING", fmt::format("{} chunks are wanted and were not sent", expected_.size()));
  if (commit.page_size() != begin_.page_size() || (commit.page_count() != begin_.page_count() && !begin_.size_at_commit())) {
    return Invalid("COMMIT_INVALID", "the commit's geometry is not the one that the upload began with");
  }
  if (begin_.size_at_commit()) LF_RETURN_IF_ERROR(delta_->SetPageCount(commit.page_count()));
  if (commit.precopied() && begin_.content() > v1::SNAPSHOT_CONTENT_DATABASE)
    return Invalid("COMMIT_INVALID", "only a database is uploaded ahead");
  if (commit.root_version() != format::kRootVersion)
    return Invalid("COMMIT_INVALID", fmt::format("version {} of the root digest is unknown", commit.root_version()));
  const auto root = format::RootDigest::FromBytes(commit.root_digest());
  if (!root.has_value()) return Invalid("COMMIT_INVALID", "the root digest is not 32 bytes long");
  if (manifest_.has_value()) LF_RETURN_IF_ERROR(manifest_->Finish(*root));
  TakeMark();
  absl::Status result = LeaveOneMark();
  const std::deque<Slot> slots = TakeSlots();
  if (result.ok()) result = status();
  if (result.ok()) result = CommitWithMark(commit, *root, slots);
  // What came stays for a session that goes on from here.
  if (!result.ok()) MakeDurable(slots, /*tell=*/false).IgnoreError();
  GiveMark();
  return result;
}

absl::Status UploadSession::CommitWithMark(const v1::UploadCommit& commit, const format::RootDigest& root, const std::deque<Slot>& slots) {
  const IngestDeps& deps = ingest_.deps();
  if (delta_.has_value()) {
    for (const Slot& slot : slots) delta_->Arrived(slot.chunk);
    LF_RETURN_IF_ERROR(delta_->Finish(root));
  }
  catalog::UploadSessionRow row;
  {
    MutexLock lock(mu_);
    if (unrecorded_ != slots.size()) return StoreFailed();  // a mark took some and did not record them
    row = row_;
  }
  LF_ASSIGN_OR_RETURN(std::optional<uint64_t> epoch, delta_.has_value() ? delta_->epoch() : manifest_->epoch());
  LF_RETURN_IF_ERROR(AddEpochs(slots, epoch));
  ingest_.BeginCommit(row.database);
  const auto end_commit = absl::MakeCleanup([this, &row] { ingest_.EndCommit(row.database, device_, begin_.database()); });
  catalog::CommitFacts facts = facts_.commit;
  // An operation may have been cancelled since, and its record would be found by a rebuild.
  if (!begin_.operation_id().empty() || ingest_.commits(device_, begin_.database()) != commits_at_begin_) {
    LF_ASSIGN_OR_RETURN(facts, deps.catalog.GetCommitFacts(row, begin_.operation_id()));
    // Another stream of this session was faster. A record of it with a higher number would outlive the mark of its deletion (FORMAT.md).
    if (!facts.committed.value().empty()) {
      TellCommitted({.snapshot = facts.committed, .claims_left = true}, facts.precopied);
      return absl::OkStatus();
    }
  }

  RecordFacts about;
  about.snapshot = snapshot_;
  about.device = device_;
  about.sequence = facts.next_sequence;
  about.manifest = delta_.has_value() ? delta_->TakeManifest() : manifest_->TakeManifest();
  about.pages_changed = delta_.has_value() ? delta_->pages_changed() : commit.page_count();
  LF_ASSIGN_OR_RETURN(const ControllerNow now, ingest_.Now());
  about.received_at = now.time;
  if (now.on_hold) about.system_time = deps.clock.Now();
  about.streamed = std::chrono::duration_cast<std::chrono::milliseconds>(deps.clock.Steady() - opened_at_);
  about.provenance = sink_->provenance();
  DeviceContact contact;
  if (facts_.contact.has_value()) {
    contact = {.clock_offset_ms = facts_.contact->clock_offset_ms, .heard_before = facts_.contact->heard_before};
  } else if (deps.contact) {
    contact = deps.contact(device_);
  }
  if (about.provenance.empty()) about.clock_offset_ms = contact.clock_offset_ms;
  about.not_before = facts.previous_effective_at;
  // A contact that is not over yet was stamped by a clock that has jumped: it tells nothing.
  if (contact.heard_before.has_value() && *contact.heard_before <= about.received_at)
    about.not_before = std::max(about.not_before.value_or(*contact.heard_before), *contact.heard_before);
  about.wire_bytes = facts.ahead_wire_bytes + row.durable_bytes;
  about.stored_bytes = facts.ahead_stored_bytes + row.stored_bytes;
  for (const Slot& slot : slots) {
    about.wire_bytes += slot.chunk.stored_bytes;
    if (slot.chunk.place.has_value()) about.stored_bytes += slot.chunk.stored_bytes;
  }
  const std::vector<catalog::ArrivedChunk> own = delta_.has_value() ? delta_->own_chunks() : std::vector<catalog::ArrivedChunk>();
  for (const catalog::ArrivedChunk& chunk : own) about.stored_bytes += chunk.stored_bytes;
  const storage::v1::SnapshotRecord record = MakeSnapshotRecord(begin_, commit, about);
  LF_ASSIGN_OR_RETURN(const store::Placed placed, deps.store.PutRecord(format::RecordType::kSnapshot, AsBytes(record.SerializeAsString())));
  if (epoch.has_value() && *epoch != placed.epoch) return StoreFailed();
  LF_RETURN_IF_ERROR(deps.store.Sync(placed.epoch));
  LF_CRASH_POINT("ingest.after_pack_sync");
  LF_CRASH_POINT("ingest.before_commit_tx");
  LF_ASSIGN_OR_RETURN(const catalog::CommitDone committed,
                      deps.catalog.Commit(row, record, {.pack = placed.location.pack, .offset = placed.location.offset}, about.manifest,
                                          ChunksOf(slots), own));
  LF_CRASH_POINT("ingest.after_commit_tx");
  TellCommitted(committed, record.precopied());
  if (committed.snapshot == snapshot_ && !record.precopied() && about.provenance.empty() && deps.on_committed)
    deps.on_committed({.snapshot = committed.snapshot,
                       .device = device_,
                       .database = begin_.database(),
                       .method = begin_.method(),
                       .part = !record.part().empty()});
  return absl::OkStatus();
}

void UploadSession::TellCommitted(const catalog::CommitDone& committed, bool precopied) {
  state_ = State::kCommitted;
  claims_left_ = committed.claims_left;
  v1::UploadResponse response;
  response.mutable_committed()->set_snapshot_id(committed.snapshot.value());
  response.mutable_committed()->set_created(committed.snapshot == snapshot_);
  response.mutable_committed()->set_precopied(precopied);
  {
    MutexLock lock(mu_);
    changed_.SignalAll();
    if (std::exchange(closed_, true)) return;
  }
  sink_->CloseWith(response);
}

void UploadSession::End() {
  if (state_ == State::kEnded) return;
  const bool began = state_ == State::kRunning || state_ == State::kCommitted;
  const bool committed = state_ == State::kCommitted;
  state_ = State::kEnded;
  if (began) {
    TakeMark();
    const absl::Status left = LeaveOneMark();
    const std::deque<Slot> slots = TakeSlots();
    // A failure leaves the resume point where it was; the device learns it when it comes back.
    if (!committed && left.ok()) MakeDurable(slots, /*tell=*/false).IgnoreError();
    GiveMark();
  }
  Fail(Error(absl::StatusCode::kCancelled, "UPLOAD_CANCELLED", "the stream ended before the commit"));
  int64_t session;
  {
    MutexLock lock(mu_);
    session = row_.id;
  }
  // Where its operation was cancelled, or nothing of it is durable, nothing of it stays; also of one that was refused after its row was
  // made.
  if (session != 0 && !committed) {
    const bool alone = ingest_.IsRegistered(SessionId(begin_.session_id()), this);
    if (const absl::Status removed = ingest_.RemoveIfOver(session, alone); !removed.ok())
      spdlog::error("remove an upload session: {}", MessageOf(removed));
  }
  if (committed && claims_left_) ingest_.deps().catalog.DropClaims(session).IgnoreError();  // else they go with the session's row
  if (registered_) ingest_.Unregister(SessionId(begin_.session_id()), this);
  MutexLock lock(mu_);
  ended_ = true;
  changed_.SignalAll();
}

}  // namespace litefleet::ingest
