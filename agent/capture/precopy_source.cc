#include "agent/capture/precopy_source.h"

#include <algorithm>
#include <utility>

#include "agent/capture/page_reader.h"
#include "agent/capture/user_database.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

class PrecopySource final : public PageSource {
 public:
  explicit PrecopySource(const OnlineOptions& options) : options_(options) {}

  absl::Status Open();
  const SourceInfo& info() const override { return info_; }
  absl::StatusOr<std::optional<ExtentPages>> Next() override;
  absl::Status Close() override {
    closed_ = true;
    return absl::OkStatus();
  }
  const std::string& damage() const override { return damage_; }
  std::chrono::nanoseconds pinned_for() const override { return longest_; }

 private:
  // Reads the next extents under a transaction of their own.
  absl::Status Refill();
  absl::Status ReadFrom(UserDatabase& database);

  const OnlineOptions options_;
  SourceInfo info_;
  std::string damage_;
  std::chrono::nanoseconds longest_{0};
  bool looked_ = false;
  bool closed_ = false;
  uint32_t next_ = 0;      // extent
  uint32_t buffered_ = 0;  // extents from the first one that is in the buffer
  uint32_t first_ = 0;
  Bytes buffer_;
};

absl::Status PrecopySource::Open() {
  const absl::Status status = Refill();
  looked_ = true;
  return status;
}

absl::Status PrecopySource::Refill() {
  if (options_.cancelled && options_.cancelled())
    return Error(absl::StatusCode::kCancelled, "CANCELLED", fmt::format("the backup of {} was cancelled", options_.path));
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<UserDatabase> database, UserDatabase::Open({.path = options_.path,
                                                                                        .busy_timeout = options_.busy_timeout,
                                                                                        .allow_network_fs = options_.allow_network_fs,
                                                                                        .cancelled = options_.cancelled,
                                                                                        .at_rest = options_.at_rest}));
  const absl::Status status = ReadFrom(*database);
  database->Close().IgnoreError();  // what was read stands
  return status;
}

absl::Status PrecopySource::ReadFrom(UserDatabase& database) {
  LF_RETURN_IF_ERROR(database.CheckWalIsThere());
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<PageReader> reader, PageReader::Begin(database));
  const SteadyTime since = options_.clock->Steady();
  LF_CRASH_POINT("capture.precopy_pinned");
  if (!looked_) {
    info_.page_size = reader->page_size();
    info_.page_count = reader->page_count();
    info_.wal = reader->wal();
    info_.pinned_at = options_.clock->Now();
    info_.pinned_since_boot = options_.clock->SinceBoot();
  } else if (reader->page_count() > 0 && reader->page_size() != info_.page_size) {
    return Error(absl::StatusCode::kAborted, "SOURCE_CHANGED",
                 fmt::format("{} has pages of {} bytes now, and had pages of {}", options_.path, reader->page_size(), info_.page_size),
                 "try again");
  }
  if (damage_.empty()) damage_ = reader->damage();
  const uint32_t extents = format::ExtentCount(info_.page_size, info_.page_count);
  first_ = next_;
  buffered_ = std::min(kPrecopyExtents, extents - next_);
  if (buffered_ == 0) return absl::OkStatus();
  const uint32_t first_page = format::FirstPageOf(info_.page_size, first_);
  const uint32_t end_page = format::FirstPageOf(info_.page_size, first_ + buffered_ - 1) +
                            format::PagesIn(info_.page_size, info_.page_count, first_ + buffered_ - 1);
  buffer_.resize(size_t{end_page - first_page} * info_.page_size);
  // What is left of pages that went is not looked at: a file may be longer than its database.
  const uint32_t there = reader->page_count() + 1 > first_page ? std::min(end_page, reader->page_count() + 1) - first_page : 0;
  const auto known = std::span(buffer_).first(size_t{there} * info_.page_size);
  std::fill(buffer_.begin() + static_cast<std::ptrdiff_t>(known.size()), buffer_.end(), std::byte{0});
  LF_RETURN_IF_ERROR(reader->Read(first_page, known));
  longest_ = std::max<std::chrono::nanoseconds>(longest_, options_.clock->Steady() - since);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<ExtentPages>> PrecopySource::Next() {
  if (closed_) return Error(absl::StatusCode::kFailedPrecondition, "SOURCE_CLOSED", "the page source was closed");
  if (next_ == format::ExtentCount(info_.page_size, info_.page_count)) return std::nullopt;
  if (next_ == first_ + buffered_) LF_RETURN_IF_ERROR(Refill());
  const size_t at = size_t{next_ - first_} * format::kExtentBytes;
  const size_t size = size_t{format::PagesIn(info_.page_size, info_.page_count, next_)} * info_.page_size;
  return ExtentPages{next_++, ByteView(buffer_).subspan(at, size)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<PageSource>> OpenPrecopySource(const OnlineOptions& options) {
  auto source = std::make_unique<PrecopySource>(options);
  LF_RETURN_IF_ERROR(source->Open());
  return source;
}

}  // namespace litefleet::capture
