#include "agent/spool/spool_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/format/extent.h"
#include "common/io/unreadable.h"
#include "fmt/format.h"

namespace litefleet::spool {
namespace {

constexpr char kMagic[] = "LFSPOOLD";
constexpr char kEndMagic[] = "LFSE";
constexpr uint32_t kVersion = 1;
constexpr size_t kPreambleBytes = 24;
constexpr size_t kHeadBytes = 12;
constexpr size_t kTrailerBytes = 16;
constexpr uint32_t kChunkType = 1;
constexpr uint32_t kFooterType = 2;
constexpr uint32_t kMaxEnd = 64 << 10;         // of header and footer
constexpr uint32_t kMaxDescription = 1 << 20;  // of a chunk
constexpr uint64_t kLookEvery = 8 << 20;       // bytes between two looks at the free space

void Store32(uint32_t value, std::string& out) {
  std::array<std::byte, 4> raw;
  StoreLittleEndian<uint32_t>(value, raw.data());
  out.append(AsText(raw));
}

uint32_t Load32(std::string_view raw, size_t at) { return LoadLittleEndian<uint32_t>(AsBytes(raw.substr(at, 4)).data()); }

absl::Status DamagedFile(const std::string& path, std::string_view what) {
  return Error(absl::StatusCode::kDataLoss, "SPOOLED_DAMAGED", fmt::format("{}: {}", path, what),
               "it is moved aside; look at the disk of this device");
}

// Head and body.
std::string Block(uint32_t type, const std::string& body) {
  std::string head;
  Store32(type, head);
  Store32(static_cast<uint32_t>(body.size()), head);
  Store32(format::Crc32c(AsBytes(head + body)), head);
  return head + body;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SpoolFileWriter>> SpoolFileWriter::Create(const std::string& path, const storage::v1::SpooledHeader& header,
                                                                         const Limits& limits) {
  std::unique_ptr<SpoolFileWriter> writer(new SpoolFileWriter(path, limits));
  if (!limits.counts_only) {
    LF_ASSIGN_OR_RETURN(writer->fd_, io::Open(writer->tmp(), O_RDWR | O_CREAT | O_TRUNC));
  }
  const std::string body = header.SerializeAsString();
  std::string preamble(kMagic, 8);
  Store32(kVersion, preamble);
  Store32(0, preamble);
  Store32(static_cast<uint32_t>(body.size()), preamble);
  Store32(format::Crc32c(AsBytes(preamble + body)), preamble);
  LF_RETURN_IF_ERROR(writer->CheckSpace());
  LF_RETURN_IF_ERROR(writer->Append(AsBytes(preamble + body)));
  return writer;
}

SpoolFileWriter::~SpoolFileWriter() {
  if (fd_.valid() && !finished_) unlink(tmp().c_str());
}

absl::Status SpoolFileWriter::CheckSpace() {
  const std::string directory = io::DirectoryOf(path_);
  LF_ASSIGN_OR_RETURN(const uint64_t free, io::FreeBytes(directory));
  LF_ASSIGN_OR_RETURN(const uint64_t reserve, limits_.reserve.At(directory));
  if (free >= reserve + (limits_.counts_only ? end_ : 0)) return absl::OkStatus();
  return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
               fmt::format("{} MiB are free where {} is, and a reserve of {} MiB stays free", free >> 20, path_, reserve >> 20),
               "free space where the state directory is; the reserve is `[limits] disk_reserve` of agent.toml");
}

absl::Status SpoolFileWriter::Append(ByteView data) {
  if (end_ + data.size() > limits_.max_bytes) {
    return Error(absl::StatusCode::kResourceExhausted, "SPOOL_FULL",
                 fmt::format("a snapshot of more than {} KiB does not fit into what is left of the spool", limits_.max_bytes >> 10),
                 "raise `[limits] spool_bytes` of agent.toml");
  }
  if (end_ + data.size() >= checked_at_ + kLookEvery) {
    checked_at_ = end_;
    LF_RETURN_IF_ERROR(CheckSpace());
  }
  if (fd_.valid()) LF_RETURN_IF_ERROR(io::PwriteAll(fd_.get(), data, end_, tmp()));
  end_ += data.size();
  return absl::OkStatus();
}

absl::Status SpoolFileWriter::Add(const StoredChunk& chunk) {
  if (chunk.runs.empty() || chunk.runs.front().first_page <= last_page_)
    return Error(absl::StatusCode::kInternal, "SPOOL_ORDER", "pages of a spooled snapshot do not ascend");
  storage::v1::SpooledChunk description;
  description.set_name(std::string(chunk.name.AsString()));
  for (const upload::PageRun& run : chunk.runs) {
    description.add_runs(run.first_page);
    description.add_runs(run.page_count);
  }
  description.set_raw_bytes(chunk.raw_bytes);
  description.set_stored_bytes(static_cast<uint32_t>(chunk.data.size()));
  description.set_codec(static_cast<uint32_t>(chunk.codec));
  LF_RETURN_IF_ERROR(Append(AsBytes(Block(kChunkType, description.SerializeAsString()))));
  LF_RETURN_IF_ERROR(Append(AsBytes(chunk.data)));
  last_page_ = chunk.last_page();
  footer_.set_chunks(footer_.chunks() + 1);
  footer_.set_payload_bytes(footer_.payload_bytes() + chunk.data.size());
  if (fd_.valid()) LF_CRASH_POINT("spooled.writing");
  return absl::OkStatus();
}

absl::Status SpoolFileWriter::Finish(const v1::UploadCommit& commit, int64_t ended_at_ms) {
  footer_.set_commit(commit.SerializeAsString());
  footer_.set_ended_at_ms(ended_at_ms);
  std::string trailer(8, '\0');
  StoreLittleEndian<uint64_t>(end_, std::as_writable_bytes(std::span(trailer)).data());
  trailer.append(kEndMagic, 4);
  Store32(format::Crc32c(AsBytes(trailer)), trailer);
  LF_RETURN_IF_ERROR(Append(AsBytes(Block(kFooterType, footer_.SerializeAsString()) + trailer)));
  LF_RETURN_IF_ERROR(io::Sync(fd_.get(), tmp()));
  if (rename(tmp().c_str(), path_.c_str()) != 0) return ErrnoError(errno, "rename " + tmp());
  finished_ = true;
  return io::SyncDirectory(io::DirectoryOf(path_));
}

absl::Status SpoolFileReader::Damaged(std::string_view what) const { return DamagedFile(path_, what); }

absl::StatusOr<std::unique_ptr<SpoolFileReader>> SpoolFileReader::Open(const std::string& path) {
  absl::StatusOr<io::UniqueFd> fd = io::Open(path, O_RDONLY);
  if (io::IsUnreadable(fd.status())) return DamagedFile(path, MessageOf(fd.status()));
  if (!fd.ok()) return fd.status();
  std::unique_ptr<SpoolFileReader> reader(new SpoolFileReader(path, *std::move(fd)));
  LF_RETURN_IF_ERROR(reader->ReadEnds());
  reader->Rewind();
  return reader;
}

void SpoolFileReader::Rewind() {
  next_at_ = first_chunk_;
  next_page_ = 1;
  read_ = 0;
}

absl::Status SpoolFileReader::ReadAt(uint64_t at, std::string& out) const {
  const absl::Status read = io::PreadAll(fd_.get(), std::as_writable_bytes(std::span(out)), at, path_);
  return io::IsUnreadable(read) ? Damaged(MessageOf(read)) : read;
}

absl::Status SpoolFileReader::ReadBlock(uint64_t at, uint32_t type, uint32_t most, std::string& body) {
  std::string head(kHeadBytes, '\0');
  if (at + kHeadBytes > bytes_) return Damaged("it ends within a record");
  LF_RETURN_IF_ERROR(ReadAt(at, head));
  const uint32_t size = Load32(head, 4);
  if (Load32(head, 0) != type || size > most || at + kHeadBytes + size > bytes_) return Damaged("a record makes no sense");
  body.resize(size);
  LF_RETURN_IF_ERROR(ReadAt(at + kHeadBytes, body));
  if (Load32(head, 8) != format::Crc32c(AsBytes(head.substr(0, 8) + body))) return Damaged("a record's checksum is wrong");
  return absl::OkStatus();
}

absl::Status SpoolFileReader::ReadEnds() {
  struct stat st {};
  if (fstat(fd_.get(), &st) != 0) return ErrnoError(errno, "stat " + path_);
  bytes_ = static_cast<uint64_t>(st.st_size);
  if (bytes_ < kPreambleBytes + kHeadBytes + kTrailerBytes) return Damaged("it is too short");
  std::string preamble(kPreambleBytes, '\0');
  LF_RETURN_IF_ERROR(ReadAt(0, preamble));
  if (std::memcmp(preamble.data(), kMagic, 8) != 0) return Damaged("it is no spooled snapshot");
  const uint32_t size = Load32(preamble, 16);
  if (size > kMaxEnd || kPreambleBytes + size > bytes_) return Damaged("its header makes no sense");
  std::string body(size, '\0');
  LF_RETURN_IF_ERROR(ReadAt(kPreambleBytes, body));
  if (Load32(preamble, 20) != format::Crc32c(AsBytes(preamble.substr(0, 20) + body))) return Damaged("its header's checksum is wrong");
  if (Load32(preamble, 8) != kVersion || Load32(preamble, 12) != 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "STATE_TOO_NEW",
                 fmt::format("{} has format {}, this program knows {}", path_, Load32(preamble, 8), kVersion),
                 "install the newer litefleet-agent again");
  }
  const auto is_base = [](const std::string& id) { return id.empty() || IsUlid(id); };
  if (!header_.ParseFromString(body) || !IsUlid(header_.session_id()) || !IsUlid(header_.operation_id()) || !IsName(header_.database()) ||
      header_.timeline() == 0 || !is_base(header_.base_spooled_id()) || !is_base(header_.base_snapshot_id()) ||
      !format::IsPageSize(header_.page_size())) {
    return Damaged("its header makes no sense");
  }
  if (!full() && header_.base_root_digest().size() != format::kDigestBytes) return Damaged("it has a base without a root");
  first_chunk_ = kPreambleBytes + size;

  std::string trailer(kTrailerBytes, '\0');
  LF_RETURN_IF_ERROR(ReadAt(bytes_ - kTrailerBytes, trailer));
  if (std::memcmp(&trailer[8], kEndMagic, 4) != 0 || Load32(trailer, 12) != format::Crc32c(AsBytes(trailer.substr(0, 12))))
    return Damaged("it has no end");
  footer_at_ = LoadLittleEndian<uint64_t>(AsBytes(trailer).data());
  if (footer_at_ < first_chunk_ || footer_at_ > bytes_ - kTrailerBytes - kHeadBytes) return Damaged("its end makes no sense");
  std::string footer;
  LF_RETURN_IF_ERROR(ReadBlock(footer_at_, kFooterType, kMaxEnd, footer));
  if (footer_at_ + kHeadBytes + footer.size() + kTrailerBytes != bytes_ || !footer_.ParseFromString(footer) ||
      !commit_.ParseFromString(footer_.commit()) || commit_.page_size() != header_.page_size() ||
      commit_.page_count() != header_.page_count() || commit_.root_digest().size() != format::kDigestBytes) {
    return Damaged("its footer makes no sense");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<StoredChunk>> SpoolFileReader::Next() {
  if (next_at_ == footer_at_) {
    if (read_ != footer_.chunks()) return Damaged("chunks are missing");
    return std::nullopt;
  }
  std::string body;
  LF_RETURN_IF_ERROR(ReadBlock(next_at_, kChunkType, kMaxDescription, body));
  storage::v1::SpooledChunk description;
  const uint64_t payload_at = next_at_ + kHeadBytes + body.size();
  const bool parsed = description.ParseFromString(body);
  const auto name = format::ChunkName::FromBytes(description.name());
  const bool known = description.codec() == static_cast<uint32_t>(format::Codec::kRaw) ||
                     description.codec() == static_cast<uint32_t>(format::Codec::kZstd);
  if (!parsed || !name || !known || description.runs_size() == 0 || description.runs_size() % 2 != 0 || description.stored_bytes() == 0 ||
      description.stored_bytes() > format::kExtentBytes || description.raw_bytes() > format::kExtentBytes ||
      payload_at + description.stored_bytes() > footer_at_) {
    return Damaged("a chunk makes no sense");
  }
  StoredChunk chunk;
  chunk.name = *name;
  chunk.raw_bytes = description.raw_bytes();
  chunk.codec = static_cast<format::Codec>(description.codec());
  uint64_t pages = 0;
  uint64_t least = next_page_;
  for (int i = 0; i < description.runs_size(); i += 2) {
    const uint64_t first = description.runs(i);
    const uint64_t count = description.runs(i + 1);
    if (first < least || count == 0 || first + count - 1 > header_.page_count()) return Damaged("a chunk's pages make no sense");
    least = first + count;
    pages += count;
    chunk.runs.push_back({.first_page = static_cast<uint32_t>(first), .page_count = static_cast<uint32_t>(count)});
  }
  if (pages * header_.page_size() != chunk.raw_bytes ||
      format::StretchOf(header_.page_size(), chunk.runs.front().first_page) != format::StretchOf(header_.page_size(), chunk.last_page())) {
    return Damaged("a chunk's pages make no sense");
  }
  chunk.data.resize(description.stored_bytes());
  LF_RETURN_IF_ERROR(ReadAt(payload_at, chunk.data));
  next_at_ = payload_at + description.stored_bytes();
  next_page_ = static_cast<uint32_t>(least);
  ++read_;
  return chunk;
}

absl::Status SpoolFileReader::Unpack(const StoredChunk& chunk, Bytes& pages, std::vector<format::PageDigest>* digests) {
  const absl::Status opened =
      decompressor_.Open(chunk.codec, AsBytes(chunk.data), chunk.raw_bytes, header_.page_size(), chunk.name, pages, digests);
  return opened.ok() ? opened : Damaged(MessageOf(opened));
}

}  // namespace litefleet::spool
