#include "agent/upload/backup.h"

#include <google/protobuf/util/time_util.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "agent/upload/kept_copy.h"
#include "agent/upload/precopy_rounds.h"
#include "agent/upload/text_feed.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::upload {
namespace {

using google::protobuf::util::TimeUtil;

constexpr std::chrono::milliseconds kKeepTurn{1000};
constexpr std::chrono::milliseconds kLook{50};
constexpr std::chrono::milliseconds kReportEvery{250};
constexpr char kTextTooLarge[] =
    "raise `[limits] spool_bytes` of agent.toml, leave tables out of the dump, or let the application use WAL mode, where a dump is sent "
    "while it is read";

SteadyTime Now() { return std::chrono::steady_clock::now(); }

absl::Status Cancelled() { return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup was cancelled"); }

// False when cancelled.
bool Pause(std::chrono::milliseconds delay, SteadyTime give_up_at, const CancelToken& cancel) {
  const SteadyTime until = std::min(Now() + delay, give_up_at);
  while (!cancel.cancelled() && Now() < until) {
    std::this_thread::sleep_for(std::min<std::chrono::nanoseconds>(std::chrono::milliseconds(50), until - Now()));
  }
  return !cancel.cancelled();
}

// For as long as nothing is done but wait.
class Waiting {
 public:
  explicit Waiting(const BackupJob& job) : job_(job) {
    if (job_.waits) job_.waits(true);
  }
  ~Waiting() {
    if (job_.waits) job_.waits(false);
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  const BackupJob& job_;
};

enum class Retry { kNo, kLimited, kYes };

// What is to be done after an upload ended with an error of the stream.
Retry RetryAfter(const absl::Status& status) {
  if (ReasonOf(status) == "QUOTA_EXCEEDED") return Retry::kNo;  // until the next run: an operator has to do something
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return Retry::kYes;
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kCancelled:  // by the peer
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kResourceExhausted:
      return Retry::kLimited;
    default:
      return Retry::kNo;
  }
}

class Backup {
 public:
  Backup(const BackupJob& job, const BackupOptions& options, UploadTransport& transport, RateLimit& rate, const Clock& clock,
         const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress)
      : job_(job),
        options_(options),
        transport_(transport),
        rate_(rate),
        clock_(clock),
        cancel_(cancel),
        report_(progress),
        began_(Now()),
        backoff_(options.backoff, std::random_device{}()) {
    if (job.full) knowledge_ = Knowledge::kController;
    if (job.open_text) knowledge_ = Knowledge::kNone;
  }

  BackupOutcome Run() {
    absl::StatusOr<v1::UploadCommitted> committed = Loop();
    BackupOutcome outcome;
    outcome.status = committed.status();
    if (committed.ok()) {
      outcome.snapshot_id = committed->snapshot_id();
      progress_.set_total_bytes(std::max(progress_.total_bytes(), progress_.done_bytes()));
      progress_.set_done_bytes(progress_.total_bytes());
      progress_.set_phase("done");
    }
    outcome.progress = progress_;
    outcome.ledger_note = ledger_note_;
    outcome.outgrew_spool = outgrew_;
    outcome.outgrown_database_bytes = outgrew_ ? outgrown_database_bytes_ : 0;
    if (streams_ && committed.ok() && outgrew_) {
      outcome.steps.push_back(
          fmt::format("the text does not fit into a spool of {} MiB (`[limits] spool_bytes`): it was sent while it was read",
                      options_.spool.max_bytes >> 20));
    }
    if (of_copy_ && committed.ok()) {
      outcome.steps.push_back(outgrew_ ? "nobody could have written meanwhile: a copy was read"
                                       : "writers would have waited for too long while the text was read: a copy was read");
    }
    if (committed.ok() && !note_.empty()) outcome.steps.push_back(note_);
    if (std::string summary = rounds_.Summary(); !summary.empty()) outcome.steps.push_back(std::move(summary));
    return outcome;
  }

 private:
  absl::StatusOr<v1::UploadCommitted> Loop() {
    int stalls = 0;
    int fruitless = 0;
    for (;;) {
      Phase("connecting");
      LF_RETURN_IF_ERROR(Connect());
      bool source_failed = false;
      absl::StatusOr<v1::UploadCommitted> committed = job_.open_text ? PassOfText(source_failed)
                                                      : precopying_  ? Precopy(source_failed)
                                                                     : Pass(source_failed);
      if (committed.ok() && !committed->precopied()) return committed;
      if (committed.ok()) {
        AfterPrecopied(*committed);
        continue;
      }
      const absl::Status& status = committed.status();
      source_failed |= ReasonOf(status) == "COPY_GROWTH";  // also while nothing was read of it
      // The controller may know before this device was told.
      if (cancel_.cancelled() || ReasonOf(status) == "OPERATION_CANCELLED") return Cancelled();
      if (ReasonOf(status) == "SPOOL_FULL" && !precopying_ && job_.open_precopy) {
        LF_RETURN_IF_ERROR(rounds_.MayBegin(job_.database, options_.spool.max_bytes));
        spdlog::info("{}: {}; pages are uploaded ahead", job_.database, MessageOf(status));
        precopying_ = true;
        continue;
      }
      if (FallBack(status)) continue;
      if (source_failed) {
        const std::string reason = ReasonOf(status);
        const bool passes = reason == "WRITER_STALL" || reason == "SOURCE_CHANGED" || (reason == "DATABASE_BUSY" && job_.waits_for_locks);
        if (!passes || ++stalls > options_.stall_retries) return status;
        spdlog::info("{}: {}; trying again ({} of {})", job_.database, MessageOf(status), stalls, options_.stall_retries);
      } else if (lost_) {
        // What was read lies on this device, which does not give it back: no link is waited for, and it is read once more.
        if (job_.spooled != nullptr || std::exchange(read_again_, true)) return status;
        spdlog::warn("{}: what was read is lost and is read again: {}", job_.database, MessageOf(status));
        spool_.reset();
      } else {
        const Retry retry = RetryAfter(status);
        if (retry == Retry::kNo || job_.once) return status;
        fruitless = brought_something_ ? 0 : fruitless + 1;
        if (retry == Retry::kLimited && fruitless >= options_.fruitless_attempts) return status;
        spdlog::warn("{}: the upload was interrupted and goes on: {}", job_.database, MessageOf(status));
      }
      Phase("waiting");
      if (brought_something_) backoff_ = Backoff(options_.backoff, std::random_device{}());
      if (!PauseFor(backoff_.Next(Now()))) return Cancelled();
      if (Now() >= job_.give_up_at) return status;
    }
  }

  // Whether the upload is to be made once more with less trust in what was known; each step once.
  bool FallBack(const absl::Status& status) {
    const std::string reason = ReasonOf(status);
    const bool distrust =
        reason == "BASE_GONE" || reason == "LEDGER_DAMAGED" || reason == "ROOT_MISMATCH" || reason == "MANIFEST_INCOMPLETE";
    const bool unusable = reason == "DELTA_TOO_LARGE" || reason == "CHUNK_DAMAGED" || reason == "CHUNK_MISSING";
    if (!distrust && !unusable) return false;
    // What is not in the spool cannot be offered.
    if (job_.spooled != nullptr && !job_.spooled->base_snapshot_id.empty()) return false;
    const Knowledge next = unusable ? Knowledge::kNone : Knowledge::kController;
    if (next >= knowledge_) return false;
    spdlog::warn("{}: {}; the backup goes on without {}", job_.database, MessageOf(status),
                 next == Knowledge::kNone ? "what the controller has" : "the ledger");
    ledger_note_ = MessageOf(status);
    knowledge_ = next;
    spool_.reset();
    return true;
  }

  absl::Status WaitWhilePaused() {
    if (!job_.paused || !job_.paused()) return absl::OkStatus();
    Phase("paused");
    const Waiting waiting(job_);
    while (job_.paused()) {
      if (!Pause(kLook, job_.give_up_at, cancel_)) return Cancelled();
      copy_.CheckBetweenPasses();
      if (Now() < job_.give_up_at) continue;
      return Error(absl::StatusCode::kUnavailable, "BACKUP_PAUSED",
                   "the pause hook of this device held the backup up until it was given up",
                   "look at `[limits] pause_hook` of agent.toml; an ordered backup does not ask it");
    }
    Phase("connecting");
    return absl::OkStatus();
  }

  // A short wait is not worth the turn.
  absl::Status Connect() {
    LF_RETURN_IF_ERROR(WaitWhilePaused());
    if (job_.offline_after.count() > 0) return ConnectSoon();
    const absl::Status soon = transport_.WaitConnected(std::min(Now() + kKeepTurn, job_.give_up_at), cancel_);
    if (soon.ok() || cancel_.cancelled() || Now() >= job_.give_up_at) return soon;
    const Waiting waiting(job_);
    return WaitConnected(job_.give_up_at);
  }
  absl::Status WaitConnected(SteadyTime until) {
    for (;;) {
      const SteadyTime look = job_.still_kept ? std::min(until, Now() + KeptCopy::kLookEvery) : until;
      const absl::Status connected = transport_.WaitConnected(look, cancel_);
      if (!absl::IsDeadlineExceeded(connected) || cancel_.cancelled() || look == until) return connected;
      copy_.CheckBetweenPasses();
    }
  }
  absl::Status ConnectSoon() {
    const absl::Status connected = WaitConnected(std::min(Now() + job_.offline_after, job_.give_up_at));
    if (connected.ok() || cancel_.cancelled()) return connected;
    return Error(absl::StatusCode::kUnavailable, "CONTROLLER_OFFLINE",
                 fmt::format("the controller could not be reached for {} s", job_.offline_after.count() / 1000));
  }
  bool PauseFor(std::chrono::milliseconds delay) {
    if (delay < kKeepTurn) return Pause(delay, job_.give_up_at, cancel_);
    const Waiting waiting(job_);
    const SteadyTime until = std::min(Now() + delay, job_.give_up_at);
    while (Pause(KeptCopy::kLookEvery, until, cancel_)) {
      if (Now() >= until) return true;
      copy_.CheckBetweenPasses();
    }
    return false;
  }

  absl::StatusOr<v1::UploadCommitted> Pass(bool& source_failed) {
    brought_something_ = lost_ = false;
    if (job_.spooled != nullptr) {
      const absl::StatusOr<std::unique_ptr<ChunkFeed>> feed = job_.spooled->open();
      source_failed = !feed.ok();
      if (!feed.ok()) return feed.status();
      Total(**feed);
      return Upload(**feed, "uploading");
    }
    if (spool_ == nullptr) {
      Phase("opening");
      absl::StatusOr<std::unique_ptr<capture::PageSource>> source = job_.open();
      source_failed = !source.ok();
      if (!source.ok()) return source.status();
      const bool wal = (*source)->info().wal;
      const FeedPlan plan = PlanFor(**source);
      const bool detached = (*source)->info().detached;
      SourceFeed feed(*std::move(source), plan);
      const absl::Cleanup noted = [&] { longest_pin_ = std::max(longest_pin_, feed.pinned_for()); };
      Total(feed);
      SpoolOptions spool = options_.spool;
      if (plan.changes_only) spool.compression_level = options_.changes_level;
      // Nothing is held while a copy is read: it waits for the network.
      if (detached) {
        absl::StatusOr<v1::UploadCommitted> committed = Upload(feed, "reading");
        source_failed = feed.failed();
        return committed;
      }
      if (wal) {
        // Beside the compressors of what goes straight to the network one is enough for pages that are few.
        if (plan.changes_only) spool.compressors = 1;
        SpillFeed spill(feed, job_.spool_file, spool, options_.patience);
        absl::StatusOr<v1::UploadCommitted> committed = Upload(spill, "reading");
        source_failed = spill.failed();
        return committed;
      }
      const absl::Status fits = MayFit(feed);
      const absl::Status spooled = fits.ok() ? ReadIntoSpool(feed, spool) : fits;
      // An error of the spool ends the backup as one of the source does.
      source_failed = !spooled.ok();
      LF_RETURN_IF_ERROR(spooled);
    }
    const std::unique_ptr<ChunkFeed> feed = spool_->MakeFeed();
    return Upload(*feed, "uploading");
  }

  // Text: how much it is shows when it has been read, and then nothing is pinned any more.
  absl::StatusOr<v1::UploadCommitted> PassOfText(bool& source_failed) {
    brought_something_ = lost_ = false;
    if (spool_ == nullptr) {
      if (!streams_) {
        bool may_stream = false;
        const absl::Status spooled = SpoolText(may_stream);
        source_failed = !spooled.ok();
        const bool full = ReasonOf(spooled) == "SPOOL_FULL";
        if (full) {
          outgrew_ = true;
          outgrown_database_bytes_ = database_bytes_;
        }
        of_copy_ = !may_stream && (full || ReasonOf(spooled) == "WRITER_STALL") && job_.open_text_of_copy && !no_copy_;
        streams_ = of_copy_ || (full && may_stream);
        if (!streams_) LF_RETURN_IF_ERROR(spooled);
        if (!spooled.ok())
          spdlog::info("{}: {}; {}", job_.database, MessageOf(spooled), of_copy_ ? "a copy is read" : "it is sent while it is read");
        if (!full) stalled_ = spooled;
      }
      if (streams_) return StreamText(source_failed);
    }
    const std::unique_ptr<ChunkFeed> feed = spool_->MakeFeed();
    return Upload(*feed, "uploading");
  }

  absl::StatusOr<std::unique_ptr<TextFeed>> OpenText(bool& may_stream) {
    Phase("opening");
    LF_ASSIGN_OR_RETURN(std::unique_ptr<capture::TextSource> source, of_copy_ ? job_.open_text_of_copy() : job_.open_text());
    const bool files = job_.text == v1::SNAPSHOT_CONTENT_FILES;
    const capture::SourceInfo& info = source->info();
    // In rollback mode nobody may write while it is read: it does not wait for the network.
    may_stream = files || info.wal || info.detached;
    database_bytes_ = files ? 0 : format::DatabaseBytes(info.page_size, info.page_count);
    return std::make_unique<TextFeed>(std::move(source), files ? format::Content::kFiles : format::Content::kSql);
  }

  absl::Status SpoolText(bool& may_stream) {
    LF_ASSIGN_OR_RETURN(const std::unique_ptr<TextFeed> feed, OpenText(may_stream));
    SpoolOptions spool = options_.spool;
    spool.compression_level = options_.changes_level;
    const absl::Status spooled = ReadIntoSpool(*feed, spool);
    if (ReasonOf(spooled) == "SPOOL_FULL") return WithReason(spooled, "SPOOL_FULL", kTextTooLarge);
    LF_RETURN_IF_ERROR(spooled);
    note_ = feed->note();
    Total(*feed);
    return absl::OkStatus();
  }

  // How long that may take is the source's to say: a transaction lasts no longer than its limits.
  absl::StatusOr<v1::UploadCommitted> StreamText(bool& source_failed) {
    bool may_stream = false;
    absl::StatusOr<std::unique_ptr<TextFeed>> feed = OpenText(may_stream);
    source_failed = !feed.ok();
    if (!feed.ok()) return of_copy_ ? WithoutCopy(feed.status()) : feed.status();
    if (!may_stream) {
      // In rollback mode. Before anything is read: it would be read for nothing.
      feed->reset();
      const bool still = outgrown_database_bytes_ > 0 && database_bytes_ / 7 >= outgrown_database_bytes_ / 8;
      of_copy_ = still && job_.open_text_of_copy;
      if (of_copy_) return StreamText(source_failed);
      source_failed = still;
      if (still) return TextTooLarge("where nobody may write while it waits for the network");
      streams_ = outgrew_ = false;
      return PassOfText(source_failed);
    }
    absl::StatusOr<v1::UploadCommitted> committed = Upload(**feed, "reading");
    source_failed = (*feed)->failed();
    if (committed.ok()) note_ = (*feed)->note();
    if (!of_copy_ || ReasonOf(committed.status()) != "COPY_GROWTH") return committed;
    source_failed = true;
    feed->reset();
    copy_.Drop();
    return WithoutCopy(committed.status());
  }

  // It could not be copied, or the copy not be kept. Where the text did not stand the time, and not the spool, that is tried as before.
  absl::Status WithoutCopy(const absl::Status& copied) {
    const std::string reason = ReasonOf(copied);
    const bool fits_nowhere = reason == "SPOOL_FULL" || reason == "UNNAMED_FILES";
    if (!fits_nowhere && reason != "DISK_FULL" && reason != "COPY_GROWTH") return copied;
    if (outgrew_) return fits_nowhere ? TextTooLarge(MessageOf(copied)) : copied;
    spdlog::info("{}: without a copy: {}", job_.database, MessageOf(copied));
    no_copy_ = true;
    of_copy_ = streams_ = false;
    return stalled_;
  }
  absl::Status TextTooLarge(const std::string& why) const {
    return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                 fmt::format("the text of a database of {} MiB does not fit into a spool of {} MiB, {}", outgrown_database_bytes_ >> 20,
                             options_.spool.max_bytes >> 20, why),
                 kTextTooLarge);
  }

  absl::Status ReadIntoSpool(ChunkFeed& feed, const SpoolOptions& options) {
    Phase("reading");
    LF_ASSIGN_OR_RETURN(spool_, SpooledBackup::Read(job_.spool_file, feed, options, cancel_, [&] { ReportRead(feed); }));
    return absl::OkStatus();
  }

  // Where it is clear from the beginning, nobody is held up for nothing.
  absl::Status MayFit(const SourceFeed& feed) const {
    const uint64_t bytes = format::DatabaseBytes(feed.page_size(), feed.page_count());
    if (feed.changes_only() || Spool::MayFit(bytes, options_.spool)) return absl::OkStatus();
    return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                 fmt::format("a database of {} MiB does not fit into a spool of {} MiB", bytes >> 20, options_.spool.max_bytes >> 20),
                 "raise `[limits] spool_bytes` of agent.toml");
  }

  // A round: nothing is pinned while the network is waited for.
  absl::StatusOr<v1::UploadCommitted> Precopy(bool& source_failed) {
    brought_something_ = lost_ = false;
    const SteadyTime began = Now();
    absl::StatusOr<std::unique_ptr<capture::PageSource>> source = job_.open_precopy();
    source_failed = !source.ok();
    if (!source.ok()) return source.status();
    const FeedPlan plan = PlanFor(**source);
    SourceFeed feed(*std::move(source), plan);
    Total(feed);
    absl::StatusOr<v1::UploadCommitted> committed = Upload(feed, "pre-copying");
    source_failed = feed.failed();
    round_took_ += Now() - began;
    return committed;
  }

  // What was uploaded ahead is the base of what follows. The ledger knows it, unless the answer to an earlier commit was lost.
  void AfterPrecopied(const v1::UploadCommitted& committed) {
    // One that had been committed before a restart says nothing about the link.
    if (committed.created()) rounds_.Ended(round_sent_, round_wire_, round_took_);
    round_sent_ = round_wire_ = 0;
    round_took_ = std::chrono::nanoseconds(0);
    session_id_ = SessionAfter(session_id_, committed.snapshot_id());
    const bool known =
        job_.ledger != nullptr && job_.ledger->state().has_value() && job_.ledger->state()->snapshot_id == committed.snapshot_id();
    knowledge_ = known ? Knowledge::kLedger : Knowledge::kController;
    // One that had been committed before this attempt says nothing about the ledger; the next round has it written.
    if (committed.created() && !known) rounds_.WithoutLedger(ledger_note_);
    precopying_ = false;
    LF_CRASH_POINT("upload.precopied");
  }

  FeedPlan PlanFor(const capture::PageSource& source) {
    FeedPlan plan{.ledger = job_.ledger, .index_entries = options_.index_entries, .max_runs = options_.attempt.max_runs};
    plan.changes_only = knowledge_ == Knowledge::kLedger && job_.ledger != nullptr && job_.ledger->state().has_value() &&
                        job_.ledger->state()->page_size == source.info().page_size;
    changes_only_ = plan.changes_only;
    return plan;
  }

  absl::StatusOr<v1::UploadCommitted> Upload(ChunkFeed& feed, const char* phase) {
    v1::UploadBegin begin;
    begin.set_session_id(session_id_);
    begin.set_operation_id(job_.operation_id);
    begin.set_database(job_.database);
    begin.set_timeline(job_.timeline);
    begin.set_method(job_.spooled != nullptr ? job_.spooled->method : job_.method);
    begin.set_content(job_.open_text ? job_.text : v1::SNAPSHOT_CONTENT_DATABASE);
    begin.set_page_size(feed.page_size());
    begin.set_page_count(streams_ ? 0 : feed.page_count());
    begin.set_size_at_commit(streams_);
    begin.set_compare(knowledge_ != Knowledge::kNone);
    if (changes_only_) {
      begin.set_base_snapshot_id(job_.ledger->state()->snapshot_id);
      begin.set_base_root_digest(std::string(job_.ledger->state()->root.AsString()));
    }
    if (job_.spooled != nullptr) {
      begin.set_base_snapshot_id(job_.spooled->base_snapshot_id);
      begin.set_base_root_digest(job_.spooled->base_root_digest);
    }
    format::RootDigest root;
    const auto complete = [&](v1::UploadCommit& commit) {
      if (job_.spooled == nullptr || job_.spooled->knows_age)
        *commit.mutable_age() = TimeUtil::NanosecondsToDuration((clock_.SinceBoot() - feed.pinned_since_boot()).count());
      *commit.mutable_duration() = TimeUtil::NanosecondsToDuration((Now() - began_).count());
      if (longest_pin_.count() > TimeUtil::DurationToNanoseconds(commit.pinned()))
        *commit.mutable_pinned() = TimeUtil::NanosecondsToDuration(longest_pin_.count());
      commit.set_precopied(precopying_);
      commit.set_part(job_.part);
      commit.set_compatible(job_.compatible);
      commit.set_pages_sent(static_cast<uint32_t>(std::min<int64_t>(sent_before_ / feed.page_size(), feed.page_count())));
      root = format::RootDigest::FromBytes(commit.root_digest()).value_or(format::RootDigest());
    };
    progress_.set_phase(phase);
    UploadSession::Counts counts;
    AttemptOptions attempt = options_.attempt;
    attempt.precopy = precopying_;
    if (streams_) attempt.compression_level = options_.changes_level;
    attempt.paused = job_.paused;
    if (job_.still_kept) {
      attempt.still_kept = [this] { return copy_.Check(); };
      attempt.let_go = [this](const absl::Status& why) { copy_.LetGo(why); };
    }
    attempt.clock = &clock_;
    if (changes_only_) attempt.compression_level = options_.changes_level;
    absl::StatusOr<v1::UploadCommitted> committed = Attempt::Run(
        attempt, transport_, begin, feed, complete, rate_, cancel_, [&](const UploadSession::Counts& now) { Report(now, feed, false); },
        counts);
    Report(counts, feed, true);
    if (committed.ok() && committed->created()) Advance(committed->snapshot_id(), root);
    wire_before_ += counts.wire_bytes;
    sent_before_ += counts.sent_raw_bytes;
    round_sent_ += counts.sent_raw_bytes;
    round_wire_ += counts.wire_bytes;
    brought_something_ = counts.durable_bytes > 0 || counts.answered_chunks > 0;
    lost_ = counts.source_failed;
    return committed;
  }

  // The acknowledgement has come: what was read is what the controller has.
  void Advance(const std::string& snapshot, const format::RootDigest& root) {
    if (job_.ledger == nullptr) return;
    const absl::Status advanced = job_.ledger->Commit(snapshot, root);
    if (advanced.ok()) return;
    ledger_note_ = MessageOf(advanced);
    spdlog::warn("{}: the ledger could not be written, the next backup compares with the controller: {}", job_.database,
                 MessageOf(advanced));
    job_.ledger->Remove().IgnoreError();
  }

  void Total(const ChunkFeed& feed) {
    const auto total = static_cast<int64_t>(format::DatabaseBytes(feed.page_size(), feed.page_count()));
    progress_.set_total_bytes(std::max(total, progress_.done_bytes()));
  }

  void Phase(const char* phase) {
    progress_.set_phase(phase);
    report_(progress_);
    reported_at_ = Now();
  }

  // What is read into the spool before any of it is sent is half of the way; all of it where what differs alone is sent.
  void ReportRead(const ChunkFeed& feed) {
    const bool text = job_.open_text != nullptr;
    const auto read = text ? static_cast<int64_t>(format::DatabaseBytes(feed.page_size(), feed.page_count())) : feed.read_bytes();
    const int64_t done = changes_only_ ? read : read / 2;
    progress_.set_done_bytes(std::max(progress_.done_bytes(), text ? done : std::min(done, progress_.total_bytes())));
    if (Now() - reported_at_ < kReportEvery) return;
    report_(progress_);
    reported_at_ = Now();
  }

  void Report(const UploadSession::Counts& counts, const ChunkFeed& feed, bool always) {
    if (streams_) Total(feed);  // as far as it is known
    int64_t dealt = changes_only_ ? feed.read_bytes() : counts.dealt_bytes;
    if (spool_ != nullptr && !changes_only_) dealt = (progress_.total_bytes() + dealt) / 2;
    progress_.set_done_bytes(std::min(std::max(progress_.done_bytes(), dealt), progress_.total_bytes()));
    progress_.set_wire_bytes(wire_before_ + counts.wire_bytes);
    if (!always && Now() - reported_at_ < kReportEvery) return;
    report_(progress_);
    reported_at_ = Now();
  }

  // Of what the controller has: from the least to the most.
  enum class Knowledge { kNone, kController, kLedger };

  const BackupJob& job_;
  const BackupOptions& options_;
  UploadTransport& transport_;
  RateLimit& rate_;
  const Clock& clock_;
  const CancelToken& cancel_;
  const std::function<void(const v1::Progress&)>& report_;
  const SteadyTime began_;
  Backoff backoff_;
  std::string session_id_ = job_.session_id;
  std::unique_ptr<SpooledBackup> spool_;
  bool precopying_ = false;
  // Of text.
  bool streams_ = job_.stream_text;
  bool outgrew_ = job_.stream_text;  // the spool
  uint64_t outgrown_database_bytes_ = job_.outgrown_database_bytes;
  uint64_t database_bytes_ = 0;  // as it was opened last
  bool of_copy_ = false;
  std::string note_;
  bool no_copy_ = false;  // there can be none
  absl::Status stalled_;  // why one was wanted, where the spool was not full
  KeptCopy copy_{job_};
  PrecopyRounds rounds_;
  // Of the round that runs, the pass before it included: what that has sent is in the same upload session.
  int64_t round_sent_ = 0;
  int64_t round_wire_ = 0;
  std::chrono::nanoseconds round_took_{0};
  std::chrono::nanoseconds longest_pin_{0};  // of the passes before this one, also of one that came to nothing
  Knowledge knowledge_ = Knowledge::kLedger;
  bool changes_only_ = false;  // of the last pass
  std::string ledger_note_;
  bool brought_something_ = false;
  bool lost_ = false;        // the last upload ended because what was to be sent could not be read
  bool read_again_ = false;  // because of that
  v1::Progress progress_;
  SteadyTime reported_at_{};
  int64_t wire_before_ = 0;  // of attempts before this one
  int64_t sent_before_ = 0;
};

}  // namespace

BackupOutcome RunBackup(const BackupJob& job, const BackupOptions& options, UploadTransport& transport, RateLimit& rate, const Clock& clock,
                        const CancelToken& cancel, const std::function<void(const v1::Progress&)>& progress) {
  return Backup(job, options, transport, rate, clock, cancel, progress).Run();
}

}  // namespace litefleet::upload
