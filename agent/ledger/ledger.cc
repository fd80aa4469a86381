#include "agent/ledger/ledger.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "agent/ledger/ledger_format.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/io/unreadable.h"
#include "fmt/format.h"

namespace litefleet::ledger {
namespace {

constexpr size_t kMaxRecord = 64 << 10;
constexpr uint64_t kSmallLog = 64 << 10;  // not folded
constexpr size_t kMaxParts = 4096;

absl::Status Damaged(const std::string& path, std::string_view what) {
  return Error(absl::StatusCode::kDataLoss, "LEDGER_DAMAGED", fmt::format("{}: {}", path, what),
               "the next backup compares with the controller and writes a new one");
}

// A sector that does not come back is damage as any other: who reads goes on without the ledger, instead of meeting it in every run.
absl::Status ReadAt(int fd, std::span<std::byte> out, uint64_t at, const std::string& path) {
  const absl::Status read = io::PreadAll(fd, out, at, path);
  return io::IsUnreadable(read) ? Damaged(path, MessageOf(read)) : read;
}

absl::StatusOr<io::UniqueFd> OpenFile(const std::string& path, int flags) {
  absl::StatusOr<io::UniqueFd> fd = io::Open(path, flags);
  if (io::IsUnreadable(fd.status())) return Damaged(path, MessageOf(fd.status()));
  return fd;
}

absl::StatusOr<uint64_t> FileBytes(int fd, const std::string& path) {
  struct stat st {};
  if (fstat(fd, &st) != 0) return ErrnoError(errno, "look at " + path);
  return static_cast<uint64_t>(st.st_size);
}

std::span<const std::byte> BytesOf(std::span<const format::PageDigest> digests) { return std::as_bytes(digests); }

}  // namespace

absl::StatusOr<std::unique_ptr<Ledger>> Ledger::Open(const std::string& path, const std::array<std::byte, 32>& identity) {
  std::unique_ptr<Ledger> ledger(new Ledger(path, identity));
  // What was being made when the process ended: as large as the base, and nothing would take it away until the next one is made.
  if (io::Exists(ledger->new_path())) {
    if (const absl::Status removed = io::RemoveFile(ledger->new_path()); !removed.ok()) spdlog::warn("{}", MessageOf(removed));
  }
  absl::Status status = ledger->OpenBase();
  if (status.ok() && ledger->state_.has_value()) status = ledger->OpenLog();
  if (status.ok()) return ledger;
  if (!absl::IsDataLoss(status)) return status;
  ledger->state_.reset();
  ledger->base_.Reset(-1);
  ledger->log_.Reset(-1);
  ledger->base_bytes_ = ledger->log_end_ = 0;
  ledger->log_parts_.clear();
  ledger->problem_ = MessageOf(status);
  return ledger;
}

Ledger::~Ledger() { DropNew(); }

absl::Status Ledger::OpenBase() {
  absl::StatusOr<io::UniqueFd> fd = OpenFile(path_, O_RDONLY);
  if (absl::IsNotFound(fd.status())) return absl::OkStatus();
  if (!fd.ok()) return fd.status();
  std::array<std::byte, kBaseHeaderBytes> raw;
  LF_RETURN_IF_ERROR(ReadAt(fd->get(), raw, 0, path_));
  BaseHeader header;
  if (const std::string why = DecodeBaseHeader(raw, header); !why.empty()) return Damaged(path_, why);
  if (header.identity != identity_) return Damaged(path_, "it is of another database or device");
  LF_ASSIGN_OR_RETURN(base_bytes_, FileBytes(fd->get(), path_));
  if (base_bytes_ != BaseBytes(header.state.page_count)) return Damaged(path_, fmt::format("it has {} bytes", base_bytes_));
  generation_ = header.generation;
  base_pages_ = header.state.page_count;
  state_ = header.state;
  base_ = *std::move(fd);
  return absl::OkStatus();
}

absl::Status Ledger::OpenLog() {
  absl::StatusOr<io::UniqueFd> fd = OpenFile(log_path(), O_RDWR);
  if (absl::IsNotFound(fd.status())) return absl::OkStatus();
  if (!fd.ok()) return fd.status();
  std::array<std::byte, kLogHeaderBytes> raw;
  uint64_t generation = 0;
  if (!io::PreadAll(fd->get(), raw, 0, log_path()).ok()) return absl::OkStatus();  // it was being made
  // A lazy commit is not synced: after a power cut the file may have a length, and no content yet.
  if (std::all_of(raw.begin(), raw.end(), [](std::byte byte) { return byte == std::byte{0}; })) return absl::OkStatus();
  if (const std::string why = DecodeLogHeader(raw, generation); !why.empty()) return Damaged(log_path(), why);
  if (generation != generation_) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const uint64_t bytes, FileBytes(fd->get(), log_path()));
  log_ = *std::move(fd);
  uint64_t at = kLogHeaderBytes;
  log_end_ = at;
  Bytes body;
  for (;;) {
    std::array<std::byte, kRecordHeadBytes> head;
    if (at + head.size() > bytes) break;
    // A record that cannot be read ends the log as one does that does not check: what stands before it is true as well.
    if (const absl::Status read = ReadAt(log_.get(), head, at, log_path()); !read.ok()) {
      if (!absl::IsDataLoss(read)) return read;
      break;
    }
    const uint32_t size = LoadLittleEndian<uint32_t>(&head[4]);
    if (size > kMaxRecord + 8 || at + head.size() + size > bytes) break;
    body.resize(size);
    if (const absl::Status read = ReadAt(log_.get(), body, at + head.size(), log_path()); !read.ok()) {
      if (!absl::IsDataLoss(read)) return read;
      break;
    }
    if (!RecordChecks(head, body)) break;
    const uint64_t begin = std::exchange(at, at + head.size() + size);
    const uint32_t type = LoadLittleEndian<uint32_t>(head.data());
    if (type == kPagesRecord) MapRecord(begin, at, body);
    if (type != kSnapshotRecord) continue;
    LedgerState state;
    if (!DecodeSnapshot(body, state) || state.page_size != state_->page_size) return Damaged(log_path(), "a snapshot makes no sense");
    state_ = std::move(state);
    log_end_ = at;
  }
  CutMap(log_end_);
  return absl::OkStatus();
}

void Ledger::MapRecord(uint64_t begin, uint64_t end, ByteView body) {
  if (log_parts_.size() == kMaxParts) {
    for (size_t i = 0; i < kMaxParts / 2; ++i) {
      const Part& left = log_parts_[2 * i];
      const Part& right = log_parts_[2 * i + 1];
      log_parts_[i] = {.begin = left.begin,
                       .end = right.end,
                       .first_page = std::min(left.first_page, right.first_page),
                       .last_page = std::max(left.last_page, right.last_page)};
    }
    log_parts_.resize(kMaxParts / 2);
  }
  Part part{.begin = begin, .end = end, .first_page = UINT32_MAX, .last_page = 0};
  for (uint64_t i = 0; i + 8 <= body.size();) {
    const uint32_t first = LoadLittleEndian<uint32_t>(&body[i]);
    const uint32_t count = LoadLittleEndian<uint32_t>(&body[i + 4]);
    part.first_page = std::min(part.first_page, first);
    part.last_page = std::max(part.last_page, first + count - 1);
    i += 8 + uint64_t{count} * format::kDigestBytes;  // whatever the record says, it comes to an end
  }
  log_parts_.push_back(part);
}

void Ledger::CutMap(uint64_t end) {
  while (!log_parts_.empty() && log_parts_.back().begin >= end) log_parts_.pop_back();
  if (!log_parts_.empty()) log_parts_.back().end = std::min(log_parts_.back().end, end);
}

template <class Visit>
absl::Status Ledger::ForEachRun(const Part& part, uint64_t end, Visit visit) {
  Bytes body;
  end = std::min(end, part.end);
  for (uint64_t at = part.begin; at < end;) {
    std::array<std::byte, kRecordHeadBytes> head;
    LF_RETURN_IF_ERROR(ReadAt(log_.get(), head, at, log_path()));
    const uint32_t size = LoadLittleEndian<uint32_t>(&head[4]);
    if (size > kMaxRecord + 8 || at + head.size() + size > end) return Damaged(log_path(), "a record is too long");
    body.resize(size);
    LF_RETURN_IF_ERROR(ReadAt(log_.get(), body, at + head.size(), log_path()));
    if (!RecordChecks(head, body)) return Damaged(log_path(), "a record's checksum is wrong");
    at += head.size() + size;
    if (LoadLittleEndian<uint32_t>(head.data()) != kPagesRecord) continue;
    for (size_t i = 0; i < body.size();) {
      if (i + 8 > body.size()) return Damaged(log_path(), "a run is cut");
      const uint32_t first = LoadLittleEndian<uint32_t>(&body[i]);
      const uint32_t count = LoadLittleEndian<uint32_t>(&body[i + 4]);
      i += 8;
      if (first == 0 || uint64_t{count} * format::kDigestBytes > body.size() - i) return Damaged(log_path(), "a run makes no sense");
      visit(first, count, &body[i]);
      i += size_t{count} * format::kDigestBytes;
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::LoadGroup(Group& group, uint32_t number, uint32_t page_count, uint64_t log_end) {
  group.number.reset();
  const uint32_t begin = number * kGroupPages;  // from 0
  const uint32_t end = std::min(begin + kGroupPages, page_count);
  group.digests.assign(end - begin, format::PageDigest{});
  // What a former, longer database had there does not count.
  const uint32_t in_base = std::min({end, base_pages_, state_->page_count});
  if (begin < in_base) {
    // Whole blocks, so that their checksums can be compared, one after the other.
    const uint32_t base_end = std::min(begin + kGroupPages, base_pages_);
    std::vector<format::PageDigest> digests(std::min(kBlockPages, base_end - begin));
    Bytes checksums(size_t{BlockCount(base_end - begin)} * 4);
    LF_RETURN_IF_ERROR(ReadAt(base_.get(), checksums, ChecksumsAt(base_pages_) + uint64_t{begin / kBlockPages} * 4, path_));
    for (uint32_t from = begin; from < base_end; from += kBlockPages) {
      digests.resize(std::min(kBlockPages, base_end - from));
      const auto content = std::as_writable_bytes(std::span(digests));
      LF_RETURN_IF_ERROR(ReadAt(base_.get(), content, kBaseHeaderBytes + uint64_t{from} * format::kDigestBytes, path_));
      if (format::Crc32c(content) != LoadLittleEndian<uint32_t>(&checksums[size_t{(from - begin) / kBlockPages} * 4]))
        return Damaged(path_, fmt::format("the checksum of the digests from page {} on is wrong", from + 1));
      if (from < in_base)
        std::copy_n(digests.begin(), std::min<size_t>(digests.size(), in_base - from), group.digests.begin() + (from - begin));
    }
  }
  for (const Part& part : log_parts_) {
    if (part.begin >= log_end) break;
    if (part.first_page > end || part.last_page <= begin) continue;
    LF_RETURN_IF_ERROR(ForEachRun(part, log_end, [&](uint32_t first, uint32_t count, const std::byte* digests) {
      const uint64_t from = std::max<uint64_t>(first - 1, begin);
      const uint64_t to = std::min<uint64_t>(uint64_t{first} - 1 + count, end);
      if (from >= to) return;
      std::memcpy(&group.digests[from - begin], digests + (from - (first - 1)) * format::kDigestBytes, (to - from) * format::kDigestBytes);
    }));
  }
  group.number = number;
  return absl::OkStatus();
}

void Ledger::Forget() {
  group_.number.reset();
  aside_ = Group();
}

absl::Status Ledger::Read(uint32_t first_page, std::span<format::PageDigest> out) {
  const uint32_t group = (first_page - 1) / kGroupPages;
  if (group_.number != group || group_is_next_) {
    LF_RETURN_IF_ERROR(LoadGroup(group_, group, state_->page_count, log_end_));
    group_is_next_ = false;
  }
  std::copy_n(group_.digests.begin() + (first_page - 1) % kGroupPages, out.size(), out.begin());
  return absl::OkStatus();
}

absl::StatusOr<format::PageDigest> Ledger::ReadAside(uint32_t page) {
  if (!IsAside(page)) LF_RETURN_IF_ERROR(LoadGroup(aside_, (page - 1) / kGroupPages, state_->page_count, log_end_));
  return aside_.digests[(page - 1) % kGroupPages];
}

absl::Status Ledger::ReadNext(uint32_t first_page, std::span<format::PageDigest> out) {
  const uint32_t group = (first_page - 1) / kGroupPages;
  if (!runs_.empty()) LF_RETURN_IF_ERROR(FlushRuns());
  if (group_.number != group || !group_is_next_) {
    LF_RETURN_IF_ERROR(LoadGroup(group_, group, next_.page_count, write_end_));
    group_is_next_ = true;
  }
  std::copy_n(group_.digests.begin() + (first_page - 1) % kGroupPages, out.size(), out.begin());
  return absl::OkStatus();
}

absl::Status Ledger::Begin(uint32_t page_size, uint32_t page_count, Kind kind) {
  next_ = {.snapshot_id = {}, .root = {}, .page_size = page_size, .page_count = page_count};
  writing_ = kind;
  if (group_is_next_) group_.number.reset();
  runs_.clear();
  if (kind == kChanges) {
    write_end_ = log_end_;
    // Nothing of an earlier attempt may come to stand behind what is written now.
    CutMap(log_end_);
    if (log_.valid() && ftruncate(log_.get(), static_cast<off_t>(log_end_)) != 0) return ErrnoError(errno, "truncate " + log_path());
    return absl::OkStatus();
  }
  LF_ASSIGN_OR_RETURN(new_, io::Open(new_path(), O_RDWR | O_CREAT | O_TRUNC));
  new_pages_ = 0;
  block_.clear();
  checksums_.clear();
  return absl::OkStatus();
}

absl::Status Ledger::StartLog() {
  LF_ASSIGN_OR_RETURN(log_, io::Open(log_path(), O_RDWR | O_CREAT | O_TRUNC));
  std::array<std::byte, kLogHeaderBytes> header;
  EncodeLogHeader(generation_, header);
  LF_RETURN_IF_ERROR(io::PwriteAll(log_.get(), header, 0, log_path()));
  LF_RETURN_IF_ERROR(io::SyncDirectory(io::DirectoryOf(log_path())));
  log_end_ = write_end_ = kLogHeaderBytes;
  log_parts_.clear();
  return absl::OkStatus();
}

absl::Status Ledger::AppendRecord(uint32_t type, ByteView body) {
  if (!log_.valid()) LF_RETURN_IF_ERROR(StartLog());
  const Bytes record = EncodeRecord(type, body);
  LF_RETURN_IF_ERROR(io::PwriteAll(log_.get(), record, write_end_, log_path()));
  if (type == kPagesRecord) MapRecord(write_end_, write_end_ + record.size(), body);
  write_end_ += record.size();
  return absl::OkStatus();
}

absl::Status Ledger::FlushRuns() {
  if (runs_.empty()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(AppendRecord(kPagesRecord, runs_));
  runs_.clear();
  return absl::OkStatus();
}

absl::Status Ledger::Put(uint32_t first_page, std::span<const format::PageDigest> digests) {
  if (group_is_next_) group_.number.reset();
  if (writing_ == kAll) return WriteNew(digests);
  while (!digests.empty()) {
    if (runs_.size() + 8 + format::kDigestBytes > kMaxRecord) LF_RETURN_IF_ERROR(FlushRuns());
    const size_t count = std::min(digests.size(), (kMaxRecord - runs_.size() - 8) / format::kDigestBytes);
    std::array<std::byte, 8> head;
    StoreLittleEndian<uint32_t>(first_page, &head[0]);
    StoreLittleEndian<uint32_t>(static_cast<uint32_t>(count), &head[4]);
    runs_.insert(runs_.end(), head.begin(), head.end());
    const auto raw = BytesOf(digests.first(count));
    runs_.insert(runs_.end(), raw.begin(), raw.end());
    first_page += static_cast<uint32_t>(count);
    digests = digests.subspan(count);
  }
  return absl::OkStatus();
}

absl::Status Ledger::WriteNew(std::span<const format::PageDigest> digests) {
  constexpr size_t kBlockBytes = size_t{kBlockPages} * format::kDigestBytes;
  while (!digests.empty()) {
    const size_t count = std::min(digests.size(), (kBlockBytes - block_.size()) / format::kDigestBytes);
    const auto raw = BytesOf(digests.first(count));
    block_.insert(block_.end(), raw.begin(), raw.end());
    digests = digests.subspan(count);
    new_pages_ += static_cast<uint32_t>(count);
    if (block_.size() < kBlockBytes && new_pages_ < next_.page_count) continue;
    const uint64_t at = kBaseHeaderBytes + checksums_.size() * kBlockBytes;
    LF_RETURN_IF_ERROR(io::PwriteAll(new_.get(), block_, at, new_path()));
    checksums_.push_back(format::Crc32c(block_));
    block_.clear();
  }
  return absl::OkStatus();
}

absl::Status Ledger::InstallNew(const LedgerState& state) {
  if (new_pages_ != state.page_count) {
    return Error(absl::StatusCode::kInternal, "LEDGER_INCOMPLETE",
                 fmt::format("{} of {} pages are in the ledger", new_pages_, state.page_count));
  }
  Bytes checksums(checksums_.size() * 4);
  for (size_t i = 0; i < checksums_.size(); ++i) StoreLittleEndian<uint32_t>(checksums_[i], &checksums[i * 4]);
  LF_RETURN_IF_ERROR(io::PwriteAll(new_.get(), checksums, ChecksumsAt(state.page_count), new_path()));
  std::array<std::byte, kBaseHeaderBytes> header;
  EncodeBaseHeader({.generation = generation_ + 1, .identity = identity_, .state = state}, header);
  LF_RETURN_IF_ERROR(io::PwriteAll(new_.get(), header, 0, new_path()));
  LF_RETURN_IF_ERROR(io::Sync(new_.get(), new_path()));
  LF_CRASH_POINT("ledger.before_rename");
  // Which generation it belongs to nobody knows where the base before this one is lost: it could be this one's.
  if (generation_ == 0) LF_RETURN_IF_ERROR(io::RemoveFile(log_path()));
  LF_RETURN_IF_ERROR(io::RenameFile(new_path(), path_));
  // From here on it is this one, also where the rest fails.
  base_ = std::exchange(new_, io::UniqueFd());
  ++generation_;
  base_pages_ = state.page_count;
  base_bytes_ = BaseBytes(base_pages_);
  log_.Reset(-1);
  log_end_ = 0;
  log_parts_.clear();
  Forget();
  fold_from_ = 0;
  state_ = state;
  problem_.clear();
  LF_RETURN_IF_ERROR(io::SyncDirectory(io::DirectoryOf(path_)));
  LF_CRASH_POINT("ledger.renamed");
  return io::RemoveFile(log_path());  // what stays of it is of the former generation
}

absl::Status Ledger::Commit(const std::string& snapshot_id, const format::RootDigest& root, bool lazily) {
  if (!writing_.has_value()) return Error(absl::StatusCode::kInternal, "LEDGER_NOT_BEGUN", "a ledger is committed that was not begun");
  next_.snapshot_id = snapshot_id;
  next_.root = root;
  const Kind kind = *std::exchange(writing_, std::nullopt);
  LF_CRASH_POINT("ledger.before_commit");
  if (kind == kAll) return InstallNew(next_);
  LF_RETURN_IF_ERROR(FlushRuns());
  Bytes body;
  EncodeSnapshot(next_, body);
  LF_RETURN_IF_ERROR(AppendRecord(kSnapshotRecord, body));
  lazy_ = true;
  if (!lazily) LF_RETURN_IF_ERROR(Sync());
  LF_CRASH_POINT("ledger.committed");
  log_end_ = write_end_;
  state_ = next_;
  Forget();
  // The second: of a base that was made when the database was longer.
  if (log_end_ <= std::max(kSmallLog, base_bytes_ / 4) && bytes() <= uint64_t{44} * next_.page_count + kSmallLog) return absl::OkStatus();
  if (log_end_ < fold_from_) return absl::OkStatus();
  // It is committed: what a base is folded for is space and reading, and base and log say the same.
  if (const absl::Status folded = Fold(); !folded.ok()) {
    spdlog::warn("{} is not folded, and goes on as it is: {}", path_, MessageOf(folded));
    DropNew();
    writing_.reset();
    fold_from_ = log_end_ + log_end_ / 2;
  }
  return absl::OkStatus();
}

absl::Status Ledger::Sync() {
  if (!lazy_ || !log_.valid()) return absl::OkStatus();
  LF_RETURN_IF_ERROR(io::Sync(log_.get(), log_path()));
  lazy_ = false;
  return absl::OkStatus();
}

void Ledger::DropNew() {
  if (!new_.valid()) return;
  new_.Reset(-1);
  io::RemoveFile(new_path()).IgnoreError();  // the next Open does
}

absl::Status Ledger::Fold() {
  const LedgerState state = *state_;
  LF_RETURN_IF_ERROR(Begin(state.page_size, state.page_count, kAll));
  writing_.reset();
  for (uint32_t group = 0; uint64_t{group} * kGroupPages < state.page_count; ++group) {
    LF_RETURN_IF_ERROR(LoadGroup(group_, group, state.page_count, log_end_));
    LF_RETURN_IF_ERROR(WriteNew(group_.digests));
  }
  return InstallNew(state);
}

absl::Status Ledger::Remove() {
  state_.reset();
  Forget();
  writing_.reset();
  base_.Reset(-1);
  log_.Reset(-1);
  base_bytes_ = log_end_ = fold_from_ = 0;
  log_parts_.clear();
  for (const std::string& path : {new_path(), log_path(), path_}) LF_RETURN_IF_ERROR(io::RemoveFile(path));
  return absl::OkStatus();
}

}  // namespace litefleet::ledger
