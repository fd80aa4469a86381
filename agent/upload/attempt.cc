#include "agent/upload/attempt.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

using google::protobuf::util::TimeUtil;

constexpr std::chrono::milliseconds kLook{50};

absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled"); }

}  // namespace

Attempt::Attempt(const AttemptOptions& options, const v1::UploadBegin& begin, RateLimit& rate)
    : options_(options),
      rate_(rate),
      base_(begin.base_snapshot_id()),
      base_root_(begin.base_root_digest()),
      size_at_commit_(begin.size_at_commit()),
      session_(begin, options.limits),
      last_progress_(Now()) {}

absl::StatusOr<v1::UploadCommitted> Attempt::Run(const AttemptOptions& options, UploadTransport& transport, const v1::UploadBegin& begin,
                                                 ChunkFeed& feed, const std::function<void(v1::UploadCommit&)>& complete, RateLimit& rate,
                                                 const CancelToken& cancel,
                                                 const std::function<void(const UploadSession::Counts&)>& progress,
                                                 UploadSession::Counts& counts) {
  if (cancel.cancelled()) return Cancelled();  // before the controller hears of it
  AttemptOptions chosen = options;
  if (!transport.takes_whole() || options.precopy) chosen.limits.whole_bytes = 0;
  const auto attempt = std::make_shared<Attempt>(chosen, begin, rate);
  attempt->stream_ = transport.Open(attempt);
  std::vector<std::thread> compressors;
  for (int i = 0; i < options.compressors; ++i) compressors.emplace_back([&attempt] { attempt->Compress(); });
  attempt->stream_->Start();
  attempt->Pump();
  const absl::Status status = attempt->Feed(feed, complete, cancel, progress);
  attempt->Stop();
  for (std::thread& compressor : compressors) compressor.join();
  if (status.ok()) {
    attempt->stream_->Finish();
  } else {
    attempt->stream_->Cancel();
  }
  MutexLock lock(attempt->mu_);
  counts = attempt->session_.counts();
  counts.source_failed = attempt->source_failed_;
  if (attempt->session_.accepted()) transport.SetTakesWhole(attempt->session_.takes_whole());
  if (attempt->session_.sent_whole() && ReasonOf(status) == "UPLOAD_OUT_OF_ORDER") {
    transport.SetTakesWhole(false);
    return Error(absl::StatusCode::kUnavailable, "UPLOAD_CUT", "the controller is an older one than before", "the upload is sent in parts");
  }
  if (!status.ok()) return status;
  return attempt->session_.result();
}

absl::Status Attempt::Feed(ChunkFeed& feed, const std::function<void(v1::UploadCommit&)>& complete, const CancelToken& cancel,
                           const std::function<void(const UploadSession::Counts&)>& progress) {
  PageGatherer gatherer(feed.page_size());
  const auto ready = [](const UploadSession& session) { return session.CanOffer() || session.has_differing(); };
  for (bool more = true; more;) {
    LF_RETURN_IF_ERROR(WaitFor(ready, options_.no_progress, feed, cancel, progress));
    {
      MutexLock lock(mu_);
      if (session_.committed()) return absl::OkStatus();
      LF_RETURN_IF_ERROR(CheckAccepted());
    }
    LF_RETURN_IF_ERROR(CompareDiffering(gatherer, feed.page_size()));
    {
      MutexLock lock(mu_);
      if (!session_.CanOffer()) continue;
    }
    absl::StatusOr<std::optional<Chunk>> chunk = feed.Next();
    if (!chunk.ok()) return FromSource(chunk.status());
    more = chunk->has_value();
    if (more) OfferChunk(**std::move(chunk));
  }
  read_ = true;
  // Nothing was sent yet where it is one message. What is answered last is compared too.
  bool whole;
  {
    MutexLock lock(mu_);
    whole = session_.whole();
  }
  const auto answered = [](const UploadSession& session) { return session.settled() || session.has_differing(); };
  for (bool settled = whole; !settled;) {
    LF_RETURN_IF_ERROR(WaitFor(answered, options_.no_progress, feed, cancel, progress));
    LF_RETURN_IF_ERROR(CompareDiffering(gatherer, feed.page_size()));
    MutexLock lock(mu_);
    if (session_.committed()) return absl::OkStatus();
    LF_RETURN_IF_ERROR(CheckAccepted());
    settled = session_.settled();
  }
  if (std::optional<Chunk> last = gatherer.Flush()) {
    last->compared = true;
    OfferChunk(*std::move(last));
  }
  v1::UploadCommit commit = feed.Commit();
  const std::chrono::nanoseconds described_at = SinceBoot();
  complete(commit);
  {
    MutexLock lock(mu_);
    described_at_ = described_at;
    session_.Commit(std::move(commit));
  }
  changed_.SignalAll();  // what is one message is packed only now
  Pump();
  LF_RETURN_IF_ERROR(
      WaitFor([](const UploadSession& session) { return session.commit_sent(); }, options_.no_progress, feed, cancel, progress));
  return WaitFor([](const UploadSession& session) { return session.committed(); }, options_.commit_wait, feed, cancel, progress);
}

absl::Status Attempt::CheckAccepted() const {
  if (!session_.accepted()) return absl::OkStatus();
  // Another snapshot with the same root is as good.
  const bool same = session_.base() == base_ || (!session_.base().empty() && session_.base_root() == base_root_);
  if (!base_.empty() && !same) {
    return Error(absl::StatusCode::kFailedPrecondition, "BASE_GONE",
                 fmt::format("the controller has snapshot {} not any more, or not as this device knows it", base_));
  }
  if (options_.precopy && !session_.can_precopy()) {
    return Error(absl::StatusCode::kFailedPrecondition, "CONTROLLER_TOO_OLD",
                 "more has changed than the spool holds, and the controller cannot take pages ahead of a backup",
                 "install a newer litefleet-controller, or raise `[limits] spool_bytes` of agent.toml");
  }
  if (size_at_commit_ && !session_.can_size_at_commit()) {
    return Error(absl::StatusCode::kFailedPrecondition, "CONTROLLER_TOO_OLD",
                 "it does not fit into the spool, and the controller cannot take what is sent before it is known how much it is",
                 "install a newer litefleet-controller, or raise `[limits] spool_bytes` of agent.toml");
  }
  return absl::OkStatus();
}

absl::Status Attempt::FromSource(absl::Status status) {
  MutexLock lock(mu_);
  source_failed_ = true;
  return status;
}

void Attempt::OfferChunk(Chunk chunk) {
  {
    MutexLock lock(mu_);
    session_.Offer(std::move(chunk));
  }
  Pump();
}

absl::Status Attempt::CompareDiffering(PageGatherer& gatherer, uint32_t page_size) {
  constexpr size_t kPrefix = 8;
  for (;;) {
    std::optional<Differing> differing;
    {
      MutexLock lock(mu_);
      differing = session_.TakeDiffering();
    }
    if (!differing) return absl::OkStatus();
    if (runs_ >= options_.max_runs) {
      differing->chunk.compared = true;
      OfferChunk(std::move(differing->chunk));
      continue;
    }
    const absl::StatusOr<std::string> read = static_cast<PackablePayload&>(*differing->chunk.payload).Raw();
    if (!read.ok()) return FromSource(read.status());
    const std::string& raw = *read;
    differing->chunk.payload.reset();
    std::vector<format::PageDigest> digests;
    format::DigestPages(page_size, AsBytes(raw), digests);
    bool in_run = false;
    for (size_t i = 0; i < digests.size(); ++i) {
      const std::string_view theirs =
          std::string_view(differing->page_digests).substr(std::min(differing->page_digests.size(), i * kPrefix), kPrefix);
      const bool same = digests[i].AsString().substr(0, kPrefix) == theirs;
      if (!same && !in_run) ++runs_;
      in_run = !same;
      if (same) continue;
      std::optional<Chunk> chunk = gatherer.Add(differing->chunk.runs[0].first_page + static_cast<uint32_t>(i),
                                                AsBytes(raw).subspan(i * page_size, page_size), std::span(digests).subspan(i, 1));
      if (!chunk) continue;
      chunk->compared = true;
      OfferChunk(*std::move(chunk));
    }
  }
}

absl::Status Attempt::WaitFor(const std::function<bool(const UploadSession&)>& done, std::chrono::milliseconds no_progress, ChunkFeed& feed,
                              const CancelToken& cancel, const std::function<void(const UploadSession::Counts&)>& progress) {
  const SteadyTime began = Now();
  for (bool flushed = false;;) {
    if (cancel.cancelled()) {
      MutexLock lock(mu_);
      // What is acknowledged is there, whatever was wanted meanwhile.
      return session_.committed() ? absl::OkStatus() : Cancelled();
    }
    if (options_.paused && options_.paused())
      return Error(absl::StatusCode::kUnavailable, "BACKUP_PAUSED", "the pause hook of this device holds the backup up");
    if (options_.still_kept) {
      absl::Status kept = options_.still_kept();
      if (!kept.ok() && !read_) return FromSource(std::move(kept));
      if (!kept.ok() && options_.let_go) options_.let_go(kept);
    }
    UploadSession::Counts counts;
    {
      MutexLock lock(mu_);
      if (session_.committed() || (!ended_ && done(session_))) return absl::OkStatus();
      if (ended_) {
        // Offers that came early may have been refused because the base was.
        LF_RETURN_IF_ERROR(CheckAccepted());
        return *ended_;
      }
      const SteadyTime now = Now();
      const bool held_back = session_.has_chunks_ready() && rate_.Budget(now) <= 0;
      if (held_back) last_progress_ = now;
      // Of several messages under way each is told of, so that no silence is longer than one of them takes.
      const int64_t under_way = std::min(session_.unreceived_bytes(), static_cast<int64_t>(options_.limits.message_bytes));
      const auto patience = no_progress + std::chrono::milliseconds(1000 * std::max(last_payload_, under_way) / options_.slowest_link);
      if (now - std::max(last_progress_, began) >= patience) {
        return Error(absl::StatusCode::kDeadlineExceeded, "UPLOAD_STALLED",
                     fmt::format("nothing was heard from the controller for {} s",
                                 std::chrono::duration_cast<std::chrono::seconds>(patience).count()),
                     "look at the link to the controller; the upload goes on from where it was");
      }
      if (!flushed) session_.FlushOffers();
      counts = session_.counts();
      counts.held_back = held_back;
    }
    Pump();
    progress(counts);
    if (flushed) {
      const absl::StatusOr<bool> read = feed.ReadAhead(network_wait_);
      if (!read.ok()) return FromSource(read.status());
      if (*read) continue;
    }
    MutexLock lock(mu_);
    if (flushed && !ended_ && !done(session_)) {
      const SteadyTime since = Now();
      const bool network = session_.waits_for_network();
      changed_.WaitUntil(mu_, std::chrono::steady_clock::now() + kLook);
      if (network) network_wait_ += Now() - since;
    }
    flushed = true;
  }
}

void Attempt::Compress() {
  format::ChunkCompressor compressor(options_.compression_level);
  for (;;) {
    std::optional<UploadSession::Wanted> wanted;
    {
      MutexLock lock(mu_);
      while (!stopped_ && !(wanted = session_.TakeWanted())) changed_.Wait(mu_);
      if (!wanted) return;
    }
    absl::StatusOr<PackedChunk> packed = static_cast<PackablePayload&>(*wanted->chunk.payload).Pack(compressor);
    {
      MutexLock lock(mu_);
      if (packed.ok()) {
        session_.GivePacked(wanted->number, *std::move(packed));
      } else if (!ended_) {
        ended_ = packed.status();
        source_failed_ = true;
      }
    }
    wanted.reset();
    changed_.SignalAll();
    Pump();
  }
}

void Attempt::Pump() {
  v1::UploadRequest request;
  int64_t payload = 0;
  {
    MutexLock lock(mu_);
    if (writing_ || stopped_ || ended_) return;
    session_.LimitUnreceived(pace_.Window(static_cast<int64_t>(options_.limits.message_bytes)));
    std::optional<v1::UploadRequest> next = session_.NextRequest(rate_.Budget(Now()));
    if (!next) return;
    if (next->has_begin() || next->has_offer()) pace_.Asked(Now());
    if (next->has_chunks()) pace_.Sent(Now());
    request = *std::move(next);
    v1::UploadCommit* const commit = request.has_commit()  ? request.mutable_commit()
                                     : request.has_whole() ? request.mutable_whole()->mutable_commit()
                                                           : nullptr;
    if (commit != nullptr && commit->has_age()) {
      // Chunks went before it, which take their time on a slow link.
      google::protobuf::Duration& age = *commit->mutable_age();
      age = TimeUtil::NanosecondsToDuration(TimeUtil::DurationToNanoseconds(age) + (SinceBoot() - described_at_).count());
    }
    writing_ = true;
    const v1::UploadChunks& chunks = request.has_whole() ? request.whole().chunks() : request.chunks();
    for (const v1::ChunkData& chunk : chunks.chunks()) payload += static_cast<int64_t>(chunk.data().size());
    if (payload > 0) last_payload_ = payload;
  }
  rate_.Spend(payload);
  stream_->Write(std::move(request));
  // Room for packed chunks.
  changed_.SignalAll();
}

void Attempt::Stop() {
  {
    MutexLock lock(mu_);
    stopped_ = true;
  }
  changed_.SignalAll();
}

void Attempt::OnResponse(const v1::UploadResponse& response) {
  {
    MutexLock lock(mu_);
    last_progress_ = Now();
    // A whole upload has answers that belong to no question.
    if ((response.has_accepted() || response.has_missing()) && !session_.sent_whole()) pace_.Answered(last_progress_);
    absl::Status status = session_.OnResponse(response);
    if (response.has_received()) pace_.Received(session_.received_bytes(), last_progress_);
    if (status.ok() && session_.sent_whole()) status = CheckAccepted();  // nobody else looks any more
    if (!status.ok() && !ended_) ended_ = status;
  }
  changed_.SignalAll();
  Pump();
}

void Attempt::OnWritten() {
  {
    MutexLock lock(mu_);
    last_progress_ = Now();
    writing_ = false;
  }
  Pump();
}

void Attempt::OnClosed(absl::Status status) {
  {
    MutexLock lock(mu_);
    if (status.ok()) {
      status = Error(absl::StatusCode::kUnavailable, "UPLOAD_CUT", "the controller ended the upload before it was committed",
                     "the upload goes on from where it was");
    }
    if (!ended_) ended_ = std::move(status);
  }
  changed_.SignalAll();
}

}  // namespace litefleet::upload
