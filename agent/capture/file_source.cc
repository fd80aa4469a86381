#include "agent/capture/file_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/capture/file_copy_taker.h"
#include "common/base/status.h"
#include "common/dump/dump_process.h"
#include "common/format/extent.h"
#include "common/format/file_kind.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

using Code = absl::StatusCode;

// Free space is looked at once in so many extents.
constexpr uint32_t kLookEvery = 32;
constexpr uint32_t kDumpLookEvery = 128;  // pieces of text, of 64 KiB

}  // namespace

class FileSource final : public PageSource {
 public:
  explicit FileSource(std::shared_ptr<const FileCopy> copy)
      : copy_(std::move(copy)), info_(copy_->info_), damage_(copy_->damage_), held_(copy_->held_) {}

  const SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<ExtentPages>> Next() override {
    LF_RETURN_IF_ERROR(failed_);
    absl::StatusOr<std::optional<ExtentPages>> next = Read();
    if (!next.ok()) failed_ = next.status();
    return next;
  }
  absl::Status Close() override {
    if (failed_.ok()) failed_ = Error(Code::kFailedPrecondition, "SOURCE_CLOSED", "the page source was closed");
    copy_.reset();
    return absl::OkStatus();
  }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return held_; }

 private:
  absl::StatusOr<std::optional<ExtentPages>> Read();

  std::shared_ptr<const FileCopy> copy_;  // until it is closed
  const SourceInfo info_;
  const std::string damage_;
  const std::chrono::nanoseconds held_;
  absl::Status failed_;
  uint32_t next_ = 0;
  Bytes pages_;
};

// The helper has the copy itself.
class FileDump final : public TextSource {
 public:
  explicit FileDump(std::shared_ptr<const FileCopy> copy)
      : copy_(std::move(copy)), info_(copy_->info_), damage_(copy_->damage_), held_(copy_->held_) {}

  absl::Status Open(const dump::DumpOptions& what, dump::HelperOptions helper) {
    // A helper that is long at one row does not keep the copy meanwhile, whatever is written beside it.
    helper.cancelled = [this] {
      if (limits_.ok()) limits_ = copy_->CheckCancelled();
      if (limits_.ok() && looks_++ % kDumpLookEvery == 0) limits_ = copy_->CheckReserve();
      return !limits_.ok();
    };
    LF_ASSIGN_OR_RETURN(process_,
                        dump::DumpProcess::Sql(helper, {.fd = copy_->files_->fd(CopiedFiles::kDatabase), .bytes = 0, .read = {}}, what));
    return absl::OkStatus();
  }

  const SourceInfo& info() const override { return info_; }
  absl::StatusOr<ByteView> Next() override {
    LF_RETURN_IF_ERROR(ended_);
    if (process_ == nullptr) return ByteView();
    absl::StatusOr<ByteView> piece = process_->Next();
    if (!piece.ok()) ended_ = Annotate(limits_.ok() ? piece.status() : limits_, copy_->options_.database.path);
    if (piece.ok() && piece->empty()) note_ = NoteOfText(process_->said());
    if (!piece.ok() || piece->empty()) process_.reset();
    if (!ended_.ok()) return ended_;
    if (piece->empty()) read_bytes_ = static_cast<int64_t>(copy_->file_bytes_);
    return piece;
  }
  absl::Status Close() override {
    process_.reset();
    if (ended_.ok()) ended_ = Error(Code::kFailedPrecondition, "SOURCE_CLOSED", "the dump was closed");
    copy_.reset();
    return absl::OkStatus();
  }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return held_; }
  // Which pages the helper reads is not seen.
  int64_t read_bytes() const override { return read_bytes_; }
  std::string note() const override { return note_; }

 private:
  std::shared_ptr<const FileCopy> copy_;  // until it is closed
  const SourceInfo info_;
  const std::string damage_;
  const std::chrono::nanoseconds held_;
  absl::Status ended_;   // what Next says from now on, where it is an error
  absl::Status limits_;  // the first limit that was reached
  uint32_t looks_ = 0;
  int64_t read_bytes_ = 0;
  std::string note_;
  std::unique_ptr<dump::DumpProcess> process_;
};

absl::StatusOr<std::optional<ExtentPages>> FileSource::Read() {
  const SourceInfo& info = copy_->info_;
  LF_RETURN_IF_ERROR(copy_->CheckCancelled());
  if (next_ == format::ExtentCount(info.page_size, info.page_count)) return std::nullopt;
  if (next_ % kLookEvery == 0) LF_RETURN_IF_ERROR(copy_->CheckReserve());
  const uint32_t pages = format::PagesIn(info.page_size, info.page_count, next_);
  const uint64_t offset = uint64_t{next_} * format::kExtentBytes;
  pages_.assign(uint64_t{pages} * info.page_size, std::byte{0});
  // What the file does not have, and the lock-byte page, is zeros.
  const auto there = static_cast<size_t>(std::min<uint64_t>(pages_.size(), copy_->file_bytes_ > offset ? copy_->file_bytes_ - offset : 0));
  LF_RETURN_IF_ERROR(io::PreadAll(copy_->files_->fd(CopiedFiles::kDatabase), std::span(pages_).first(there), offset, "the copy"));
  const uint32_t lock_byte = format::LockBytePage(info.page_size);
  const uint32_t first = format::FirstPageOf(info.page_size, next_);
  if (lock_byte >= first && lock_byte - first < pages)
    std::fill_n(pages_.begin() + static_cast<std::ptrdiff_t>(uint64_t{lock_byte - first} * info.page_size), info.page_size, std::byte{0});
  return ExtentPages{next_++, pages_};
}

absl::Status FileCopy::CheckCancelled() const {
  if (!options_.database.cancelled || !options_.database.cancelled()) return absl::OkStatus();
  return Error(Code::kCancelled, "CANCELLED", fmt::format("the backup of {} was cancelled", options_.database.path));
}

absl::Status FileCopy::CheckReserve() const {
  const OnlineOptions& options = options_.database;
  const std::string where = shared_ ? io::DirectoryOf(options.path) : options_.scratch;
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(where));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, options.reserve.At(where));
  if (free >= reserve || free >= free_at_begin_) return absl::OkStatus();
  return Error(Code::kResourceExhausted, "COPY_GROWTH",
               fmt::format("a copy of {} is kept for the backup, {} MiB are free beside it and a reserve of {} MiB stays free",
                           options.path, free >> 20, reserve >> 20),
               "free space there, or back up when less is written; the reserve is `[limits] disk_reserve`");
}

absl::StatusOr<std::shared_ptr<const FileCopy>> FileCopy::Take(const FileOptions& options) {
  std::shared_ptr<FileCopy> copy(new FileCopy(options));
  LF_RETURN_IF_ERROR(FileCopyTaker(*copy).Take());
  if (absl::Status recovered = copy->files_->Recover(options.database.path); !recovered.ok()) {
    Bytes start(kHeaderBytes);
    const bool magic = io::PreadAll(copy->files_->fd(CopiedFiles::kDatabase), start, 0, "the copy").ok() && HasMagic(start);
    if (ReasonOf(recovered) != "NOT_A_DATABASE" || !magic) return recovered;
    return WithReason(std::move(recovered), "DATABASE_DAMAGED",
                      "its header is damaged, so that SQLite refuses it: restore it from a snapshot");
  }
  LF_RETURN_IF_ERROR(copy->LookAt());
  return std::shared_ptr<const FileCopy>(std::move(copy));
}

// As SQLite counts when a read transaction begins.
absl::Status FileCopy::LookAt() {
  LF_ASSIGN_OR_RETURN(file_bytes_, files_->Bytes(CopiedFiles::kDatabase));
  LF_ASSIGN_OR_RETURN(free_at_begin_, io::FreeBytes(shared_ ? io::DirectoryOf(options_.database.path) : options_.scratch));
  info_.detached = true;
  info_.page_size = 4096;
  if (file_bytes_ == 0) return absl::OkStatus();
  Bytes first(std::min<uint64_t>(file_bytes_, kHeaderBytes));
  LF_RETURN_IF_ERROR(io::PreadAll(files_->fd(CopiedFiles::kDatabase), first, 0, "the copy"));
  const auto header = ParseHeader(first);
  if (!header) {
    return Error(Code::kDataLoss, "NOT_A_DATABASE", fmt::format("{} has no valid header of SQLite's", options_.database.path),
                 "its header says a page size that no database has: check the path, or restore it from a snapshot");
  }
  info_.page_size = header->page_size;
  info_.wal = header->wal;
  const uint64_t in_file = (file_bytes_ + header->page_size - 1) / header->page_size;
  uint64_t pages = in_file;
  if (header->page_count_valid) pages = std::min<uint64_t>(pages, header->page_count);
  info_.page_count = static_cast<uint32_t>(std::min<uint64_t>(pages, format::kMaxPageCount));
  const auto add = [&](const std::string& fact) { damage_ += (damage_.empty() || fact.empty() ? "" : "; ") + fact; };
  if (header->page_count_valid && header->page_count > in_file) add("the file is shorter than its header says");
  const std::optional<uint64_t> torn = file_bytes_ % header->page_size != 0 ? std::optional(file_bytes_) : files_->torn_at();
  if (torn.has_value()) add(fmt::format("the file ends within a page, at byte {}", *torn));
  first.assign(header->page_size, std::byte{0});
  LF_RETURN_IF_ERROR(io::PreadAll(files_->fd(CopiedFiles::kDatabase),
                                  std::span(first).first(static_cast<size_t>(std::min<uint64_t>(file_bytes_, first.size()))), 0,
                                  "the copy"));
  add(InspectFirstPage(first, info_.page_count));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PageSource>> FileCopy::Open() const { return std::make_unique<FileSource>(shared_from_this()); }

absl::StatusOr<std::unique_ptr<TextSource>> FileCopy::OpenDump(const dump::DumpOptions& what, dump::HelperOptions helper) const {
  if (file_bytes_ > 0) {
    Bytes first(info_.page_size, std::byte{0});
    const auto there = static_cast<size_t>(std::min<uint64_t>(file_bytes_, first.size()));
    LF_RETURN_IF_ERROR(io::PreadAll(files_->fd(CopiedFiles::kDatabase), std::span(first).first(there), 0, "the copy"));
    if (format::EncryptedBehindHeader(first)) return EncryptedError(options_.database.path);
  }
  auto dump = std::make_unique<FileDump>(shared_from_this());
  LF_RETURN_IF_ERROR(dump->Open(what, std::move(helper)));
  return dump;
}

std::string FileCopy::Describe() const {
  const double ms = std::chrono::duration<double, std::milli>(held_).count();
  const std::string what = shared_ ? "its blocks were shared with a copy" : fmt::format("{} MiB were copied", file_bytes_ >> 20);
  switch (way_) {
    case Way::kRollback:
      return fmt::format("{}, and no commit was possible for {:.1f} ms", what, ms);
    case Way::kCold:
      return fmt::format("{}; nobody had it open, and it was locked for {:.1f} ms", what, ms);
    case Way::kPinned:
      return fmt::format("{} under a read transaction of {:.1f} ms, for which nobody waits", what, ms);
    case Way::kStill:
      return fmt::format("{} without a lock, since an application lets nobody have one: its WAL was not started over meanwhile", what);
  }
  return what;
}

}  // namespace litefleet::capture
