#include "agent/capture/dump_source.h"

#include <algorithm>
#include <utility>

#include "agent/capture/database_header.h"
#include "agent/capture/page_reader.h"
#include "agent/capture/pin_limits.h"
#include "agent/capture/user_database.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/format/file_kind.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

class DumpSource final : public TextSource {
 public:
  explicit DumpSource(const OnlineOptions& options) : options_(options) {}
  ~DumpSource() override { Detach(); }

  absl::Status Open(const dump::DumpOptions& what, dump::HelperOptions helper);

  const SourceInfo& info() const override { return info_; }
  absl::StatusOr<ByteView> Next() override;
  absl::Status Close() override {
    Detach();
    if (ended_.ok()) ended_ = Error(absl::StatusCode::kFailedPrecondition, "SOURCE_CLOSED", "the dump was closed");
    return close_status_;
  }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override {
    return reader_ != nullptr ? options_.clock->Steady() - pinned_since_ : pinned_for_;
  }
  int64_t read_bytes() const override { return read_bytes_; }
  std::string note() const override { return note_; }

 private:
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> out);
  absl::Status CheckLimits() const;
  void Detach();

  const OnlineOptions options_;
  SourceInfo info_;
  std::string damage_;
  absl::Status ended_;   // what Next says from now on, where it is an error
  absl::Status limits_;  // the first limit that was reached
  absl::Status close_status_;
  SteadyTime pinned_since_{};
  std::chrono::nanoseconds pinned_for_{0};
  int64_t read_bytes_ = 0;
  std::string note_;
  uint64_t furthest_ = 0;  // of what was read
  Bytes pages_;
  // In the order in which they depend on each other.
  std::unique_ptr<UserDatabase> database_;
  std::unique_ptr<PageReader> reader_;
  std::unique_ptr<dump::DumpProcess> process_;
};

absl::Status DumpSource::Open(const dump::DumpOptions& what, dump::HelperOptions helper) {
  LF_ASSIGN_OR_RETURN(database_, UserDatabase::Open({options_.path, options_.busy_timeout, options_.allow_network_fs, options_.cancelled}));
  LF_RETURN_IF_ERROR(database_->CheckWalIsThere());
  LF_ASSIGN_OR_RETURN(reader_, PageReader::Begin(*database_));
  pinned_since_ = options_.clock->Steady();
  info_.page_size = reader_->page_size();
  info_.page_count = reader_->page_count();
  info_.wal = reader_->wal();
  info_.pinned_at = options_.clock->Now();
  info_.pinned_since_boot = options_.clock->SinceBoot();
  damage_ = reader_->damage();
  LF_CRASH_POINT("capture.pinned");
  if (!reader_->pinned().empty() && format::EncryptedBehindHeader(reader_->pinned().first_page())) return EncryptedError(options_.path);
  // The helper may be long at a row without asking for a page, and the lock is held all the while.
  helper.cancelled = [this] {
    if (limits_.ok()) limits_ = CheckLimits();
    return !limits_.ok();
  };
  dump::DumpSource source;
  source.bytes = format::DatabaseBytes(info_.page_size, info_.page_count);
  source.read = [this](uint64_t offset, std::span<std::byte> out) { return ReadAt(offset, out); };
  LF_ASSIGN_OR_RETURN(process_, dump::DumpProcess::Sql(helper, std::move(source), what));
  return absl::OkStatus();
}

absl::Status DumpSource::CheckLimits() const {
  const auto bytes = static_cast<double>(format::DatabaseBytes(info_.page_size, info_.page_count));
  return CheckPinLimits(options_, reader_->pinned(), pinned_for(), static_cast<double>(furthest_) / bytes);
}

// Whole pages around what is wanted.
absl::Status DumpSource::ReadAt(uint64_t offset, std::span<std::byte> out) {
  furthest_ = std::max<uint64_t>(furthest_, offset + out.size());
  const uint64_t first = offset / info_.page_size;
  const uint64_t last = (offset + out.size() - 1) / info_.page_size;
  pages_.resize((last - first + 1) * info_.page_size);
  LF_RETURN_IF_ERROR(reader_->Read(static_cast<uint32_t>(first + 1), pages_));
  std::copy_n(pages_.begin() + static_cast<std::ptrdiff_t>(offset - first * info_.page_size), out.size(), out.begin());
  read_bytes_ += static_cast<int64_t>(out.size());
  return absl::OkStatus();
}

absl::StatusOr<ByteView> DumpSource::Next() {
  LF_RETURN_IF_ERROR(ended_);
  if (reader_ == nullptr) return ByteView();
  absl::StatusOr<ByteView> piece = process_->Next();
  if (!piece.ok() && !limits_.ok()) piece = limits_;
  if (piece.ok() && piece->empty()) {
    note_ = NoteOfText(process_->said());
    absl::Status status = database_->CheckLocking();
    if (status.ok()) status = database_->CheckAtRest();
    if (!status.ok()) piece = std::move(status);
  }
  if (!piece.ok()) ended_ = Annotate(piece.status(), options_.path);
  if (!piece.ok() || piece->empty()) Detach();
  if (!piece.ok()) return ended_;
  return piece;
}

void DumpSource::Detach() {
  process_.reset();
  if (reader_ != nullptr) pinned_for_ = options_.clock->Steady() - pinned_since_;
  reader_.reset();
  if (database_ == nullptr) return;
  LF_CRASH_POINT("capture.unpinned");
  close_status_ = database_->Close();
  database_.reset();
}

}  // namespace

std::string NoteOfText(const std::string& said) {
  if (said.empty()) return {};
  return fmt::format("nobody but its application's own SQLite can load this text, and a restore of it is refused: {}", said);
}

absl::Status EncryptedError(const std::string& path) {
  return Error(absl::StatusCode::kDataLoss, "ENCRYPTED", fmt::format("{}: {}", path, kLooksEncrypted),
               "use the methods online or file, which copy its pages as they are, or let its application write a copy without encryption");
}

absl::StatusOr<std::unique_ptr<TextSource>> OpenDumpSource(const OnlineOptions& options, const dump::DumpOptions& what,
                                                           dump::HelperOptions helper) {
  auto source = std::make_unique<DumpSource>(options);
  LF_RETURN_IF_ERROR(source->Open(what, std::move(helper)));
  return source;
}

}  // namespace litefleet::capture
