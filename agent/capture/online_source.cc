#include "agent/capture/online_source.h"

#include <algorithm>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/capture/page_sink.h"
#include "agent/capture/pin_limits.h"
#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

using Code = absl::StatusCode;

class OnlineSource final : public PageSource {
 public:
  explicit OnlineSource(const OnlineOptions& options) : options_(options) {}
  ~OnlineSource() override { static_cast<void>(Close()); }

  absl::Status Open();

  const SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<ExtentPages>> Next() override;
  absl::Status Close() override;
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override {
    return attached_ && pinned_ ? options_.clock->Steady() - pinned_since_ : pinned_for_;
  }

 private:
  absl::Status Pin();
  absl::Status StartBackup();
  // Whether the locks may be held on.
  absl::Status CheckLimits() const;
  absl::Status Fill();
  // Of what is to be at rest: no lock would be taken.
  absl::Status CheckNobodyCame() const;
  absl::Status CheckFirstPage() const;
  absl::Status CheckFiles() const;
  // Lets go of locks and connection; what the sink holds stays.
  void Detach();

  const OnlineOptions options_;
  SourceInfo info_;
  std::string damage_;
  absl::Status failed_;  // what Next() says from now on
  absl::Status close_status_;
  bool attached_ = false;
  bool pinned_ = false;
  bool handed_out_ = false;  // the front extent
  uint32_t extent_count_ = 0;
  SteadyTime pinned_since_{};
  std::chrono::nanoseconds pinned_for_{0};

  // In the order in which they depend on each other.
  std::unique_ptr<UserDatabase> database_;
  std::unique_ptr<PinnedRead> read_;
  std::unique_ptr<PageSink> sink_;
  sqlite::BackupHandle backup_;
};

absl::Status OnlineSource::Open() {
  LF_ASSIGN_OR_RETURN(database_, UserDatabase::Open({.path = options_.path,
                                                     .busy_timeout = options_.busy_timeout,
                                                     .allow_network_fs = options_.allow_network_fs,
                                                     .cancelled = options_.cancelled,
                                                     .at_rest = options_.at_rest}));
  attached_ = true;
  absl::Status status = options_.wal_only ? database_->CheckWalMode() : absl::OkStatus();
  if (status.ok() && options_.at_rest) status = CheckNobodyCame();
  if (status.ok()) status = database_->CheckWalIsThere();
  if (status.ok()) status = Pin();
  if (status.ok() && !read_->empty()) status = StartBackup();
  if (!status.ok() || read_->empty()) Detach();
  return status;
}

absl::Status OnlineSource::CheckNobodyCame() const {
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, database_->FileBytes());
  if (database_->immutable() || bytes == 0) return absl::OkStatus();
  return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("somebody has just opened {}, which nobody had open", options_.path),
               "try again");
}

absl::Status OnlineSource::Pin() {
  // From the lock on; waiting for it stalls nobody.
  LF_ASSIGN_OR_RETURN(read_, PinnedRead::Begin(*database_));
  pinned_since_ = options_.clock->Steady();
  pinned_ = true;
  info_.pinned_at = options_.clock->Now();
  info_.pinned_since_boot = options_.clock->SinceBoot();
  info_.page_size = read_->page_size();
  info_.wal = read_->wal();
  if (read_->wal_index() != nullptr) info_.wal_state = read_->wal_state();
  damage_ = read_->damage();
  LF_CRASH_POINT("capture.pinned");
  return absl::OkStatus();
}

absl::Status OnlineSource::StartBackup() {
  LF_ASSIGN_OR_RETURN(sink_, PageSink::Open());
  backup_.reset(sqlite3_backup_init(sink_->db(), "main", database_->db(), "main"));
  if (backup_ == nullptr) return sqlite::ToStatus(sqlite3_errcode(sink_->db()), sink_->db(), "begin the backup of " + options_.path);
  // A step of no pages: SQLite counts the pages of the pinned state.
  if (const int rc = sqlite3_backup_step(backup_.get(), 0); rc != SQLITE_OK) return database_->ErrorFor(rc, "begin the backup of");
  info_.page_count = static_cast<uint32_t>(sqlite3_backup_pagecount(backup_.get()));
  extent_count_ = format::ExtentCount(info_.page_size, info_.page_count);
  sink_->Start(info_.page_size, info_.page_count, read_->first_page());
  if (const std::string facts = InspectFirstPage(read_->first_page(), info_.page_count); !facts.empty()) {
    damage_ += (damage_.empty() ? "" : "; ") + facts;
  }
  return absl::OkStatus();
}

absl::Status OnlineSource::CheckLimits() const {
  return CheckPinLimits(options_, *read_, pinned_for(), extent_count_ == 0 ? 1.0 : static_cast<double>(sink_->front()) / extent_count_);
}

absl::StatusOr<std::optional<ExtentPages>> OnlineSource::Next() {
  LF_RETURN_IF_ERROR(failed_);
  if (handed_out_) sink_->Pop();
  handed_out_ = false;
  if (extent_count_ == 0 || sink_->front() == extent_count_) {
    Detach();
    return std::nullopt;
  }
  if (absl::Status status = Fill(); !status.ok()) {
    failed_ = std::move(status);
    Detach();
    return failed_;
  }
  handed_out_ = true;
  return ExtentPages{sink_->front(), sink_->Front()};
}

absl::Status OnlineSource::Fill() {
  if (attached_) {
    LF_RETURN_IF_ERROR(CheckLimits());
  } else if (options_.cancelled && options_.cancelled()) {
    return Error(Code::kCancelled, "CANCELLED", fmt::format("the backup of {} was cancelled", options_.path));
  }
  while (!sink_->FrontComplete()) {
    if (backup_ == nullptr) {
      return Error(Code::kInternal, "SOURCE_INCOMPLETE",
                   fmt::format("SQLite did not hand out all pages of extent {} of {}", sink_->front(), options_.path));
    }
    const int rc = sqlite3_backup_step(backup_.get(), sink_->PagesAStep());
    // Each page is read once: those that SQLite would keep (2 MB) serve nobody. A pragma that says so would read the schema.
    sqlite3_db_release_memory(database_->db());
    if (rc == SQLITE_DONE) {
      LF_RETURN_IF_ERROR(CheckFirstPage());
      LF_RETURN_IF_ERROR(CheckFiles());
      Detach();
    } else if (!sink_->failure().empty()) {
      return Error(Code::kInternal, "SOURCE_INCOMPLETE", fmt::format("{}: {}", options_.path, sink_->failure()));
    } else if (rc != SQLITE_OK) {
      return database_->ErrorFor(rc, "read");
    }
  }
  return absl::OkStatus();
}

absl::Status OnlineSource::CheckFirstPage() const {
  if (SameFirstPage(read_->first_page(), sink_->written_first_page())) return absl::OkStatus();
  return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("page 1 of {} and the pages after it are not of one state", options_.path),
               "try again");
}

absl::Status OnlineSource::CheckFiles() const {
  LF_RETURN_IF_ERROR(database_->CheckLocking());
  LF_RETURN_IF_ERROR(database_->CheckAtRest());
  if (database_->wal_file() == nullptr && !read_->empty()) {
    // The change counter: under our lock only who heeds none can have written.
    LF_ASSIGN_OR_RETURN(const Bytes now, database_->ReadStart(kHeaderBytes));
    const ByteView then = read_->first_page();
    if (now.size() < kHeaderBytes || !std::equal(now.begin() + 24, now.begin() + 28, then.begin() + 24)) {
      return Error(Code::kAborted, "SOURCE_CHANGED", fmt::format("{} was written while the agent had it locked", options_.path),
                   "its application does not heed SQLite's locks (VFS unix-dotfile or unix-none): stop it for the backup");
    }
  }
  if (database_->HasFilesOfPath()) return absl::OkStatus();
  return Error(Code::kAborted, "SOURCE_CHANGED",
               fmt::format("{}, its -wal or its -shm was removed or replaced while it was read", options_.path), "try again");
}

void OnlineSource::Detach() {
  if (!attached_) return;
  backup_.reset();
  if (read_ != nullptr) read_->End();
  pinned_for_ = pinned_ ? options_.clock->Steady() - pinned_since_ : std::chrono::nanoseconds(0);
  attached_ = false;
  LF_CRASH_POINT("capture.unpinned");
  close_status_ = database_->Close();
}

absl::Status OnlineSource::Close() {
  Detach();
  if (failed_.ok()) failed_ = Error(Code::kFailedPrecondition, "SOURCE_CLOSED", "the page source was closed");
  return close_status_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PageSource>> OpenOnlineSource(const OnlineOptions& options) {
  auto source = std::make_unique<OnlineSource>(options);
  LF_RETURN_IF_ERROR(source->Open());
  return source;
}

}  // namespace litefleet::capture
