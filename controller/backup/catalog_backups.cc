#include "controller/backup/catalog_backups.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/catalog_backup.h"
#include "common/format/store_names.h"
#include "common/io/file.h"
#include "controller/catalog/catalog_copy.h"
#include "fmt/format.h"

namespace litefleet::backup {
namespace {

constexpr char kScratchName[] = "/catalog-copy.db";
constexpr std::chrono::minutes kRetryAfter{10};
constexpr int kNice = 10;

std::string DirectoryIn(const std::string& store) { return fmt::format("{}/{}", store, format::kCatalogBackupsDirectory); }

// Ids of those that are whole, ascending.
std::vector<uint64_t> FinishedIds(const std::vector<std::string>& names) {
  std::vector<uint64_t> ids;
  for (const std::string& name : names) {
    const auto parsed = format::ParseCatalogBackupName(name);
    if (parsed.has_value() && parsed->finished) ids.push_back(parsed->id);
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

std::string PathOf(const std::string& directory, uint64_t id, bool finished) {
  return fmt::format("{}/{}", directory, format::MakeCatalogBackupName(id, finished));
}

// A missing directory holds nothing.
absl::StatusOr<std::vector<std::string>> ListIn(store::FileSystem& files, const std::string& directory) {
  absl::StatusOr<std::vector<std::string>> names = files.List(directory);
  if (absl::IsNotFound(names.status())) return std::vector<std::string>();
  return names;
}

absl::StatusOr<format::CatalogBackupHeader> ReadHeader(store::FileSystem& files, const std::string& path) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<store::File> file, files.OpenForReading(path));
  return format::ReadCatalogBackupHeader([&](uint64_t offset, std::span<std::byte> out) { return file->ReadAt(offset, out); });
}

}  // namespace

CatalogBackups::~CatalogBackups() {
  stop_token_.Interrupt();
  {
    MutexLock lock(mu_);
    stop_ = true;
    wake_.SignalAll();
  }
  if (worker_.joinable()) worker_.join();
}

std::string CatalogBackups::directory() const { return DirectoryIn(options_.store); }

void CatalogBackups::Begin() {
  worker_ = std::thread([this] { Work(); });
}

std::chrono::milliseconds CatalogBackups::FirstWait() const {
  const auto names = ListIn(files_, directory());
  const std::vector<uint64_t> ids = names.ok() ? FinishedIds(*names) : std::vector<uint64_t>();
  if (ids.empty()) return std::chrono::milliseconds(0);
  const auto header = ReadHeader(files_, PathOf(directory(), ids.back(), true));
  if (!header.ok()) return std::chrono::milliseconds(0);
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now() - FromUnixMillis(header->made_at_ms));
  if (age.count() < 0 || age >= options_.every) return std::chrono::milliseconds(0);  // also when the clock went back
  return options_.every - age;
}

void CatalogBackups::Work() {
  setpriority(PRIO_PROCESS, 0, kNice);  // of this thread
  auto next = std::chrono::steady_clock::now() + FirstWait();
  for (;;) {
    {
      MutexLock lock(mu_);
      while (!stop_ && wake_.WaitUntil(mu_, next)) {}
      if (stop_) return;
    }
    const absl::Status status = BackUp();
    if (!status.ok() && !stop_token_.cancelled()) spdlog::error("back up the catalog: {}", MessageOf(status));
    next = std::chrono::steady_clock::now() +
           (status.ok() ? options_.every : std::min<std::chrono::milliseconds>(options_.every, kRetryAfter));
  }
}

absl::Status CatalogBackups::BackUp() {
  const Turn::Holder turn(turn_);
  absl::Status status = BackUpInTurn();
  MutexLock lock(mu_);
  last_error_ = status.ok() ? "" : MessageOf(status);
  return status;
}

absl::Status CatalogBackups::BackUpInTurn() {
  LF_RETURN_IF_ERROR(files_.MakeDirectory(directory()));
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(directory()));
  LF_RETURN_IF_ERROR(RemoveLeftovers(names));
  uint64_t size = 0;
  for (const char* suffix : {"", "-wal"}) {
    // Not by a descriptor: closing one would drop the locks that SQLite holds for this process.
    struct stat info {};
    if (stat((options_.catalog + suffix).c_str(), &info) == 0) size += static_cast<uint64_t>(info.st_size);
  }
  LF_ASSIGN_OR_RETURN(const uint64_t free, files_.FreeBytes(directory()));
  if (free < 2 * size + options_.leave_free) {
    return Error(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                 fmt::format("a backup of the catalog may take {} MiB, {} MiB are free in {}", (2 * size + options_.leave_free) >> 20,
                             free >> 20, directory()),
                 "make room on this file system");
  }
  const std::string copy = options_.scratch + kScratchName;
  LF_ASSIGN_OR_RETURN(const catalog::CatalogCopy copied, catalog::CopyCatalog(options_.catalog, copy, stop_token_));
  LF_CRASH_POINT("catalog_backup.after_copy");
  const std::vector<uint64_t> ids = FinishedIds(names);
  const uint64_t id = ids.empty() ? 1 : ids.back() + 1;
  const absl::Status written = WriteFile(copy, copied.version, id);
  LF_RETURN_IF_ERROR(catalog::RemoveCatalogFiles(copy));
  if (!written.ok()) {
    files_.Remove(PathOf(directory(), id, false)).IgnoreError();  // else the next one removes it
    return written;
  }
  LF_RETURN_IF_ERROR(files_.Rename(PathOf(directory(), id, false), PathOf(directory(), id, true)));
  LF_RETURN_IF_ERROR(files_.SyncDirectory(directory()));
  LF_CRASH_POINT("catalog_backup.after_rename");
  if (options_.made) LF_RETURN_IF_ERROR(options_.made());
  return RemoveOld();
}

absl::Status CatalogBackups::WriteFile(const std::string& copy, uint32_t catalog_version, uint64_t id) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<store::File> from, store::PosixFileSystem().OpenForReading(copy));
  const std::string path = PathOf(directory(), id, false);
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<store::File> to, files_.Create(path));
  uint64_t end = 0;
  const auto write = [&](ByteView bytes) -> absl::Status {
    LF_RETURN_IF_ERROR(to->WriteAt(end, bytes, {}));
    end += bytes.size();
    return absl::OkStatus();
  };
  format::CatalogBackupWriter writer;
  LF_RETURN_IF_ERROR(writer.Begin({.id = id, .made_at_ms = ToUnixMillis(clock_.Now()), .catalog_version = catalog_version}, write));
  Bytes block(format::kCatalogBlockBytes);
  uint64_t raw_bytes = 0;
  for (;;) {
    if (stop_token_.cancelled()) return Error(absl::StatusCode::kCancelled, "CANCELLED", "the backup of the catalog was stopped");
    LF_ASSIGN_OR_RETURN(const size_t got, from->ReadAt(raw_bytes, block));
    if (got == 0) break;
    LF_RETURN_IF_ERROR(writer.Add(ByteView(block).first(got), write));
    raw_bytes += got;
  }
  LF_RETURN_IF_ERROR(writer.Finish(write));
  LF_RETURN_IF_ERROR(to->Sync());
  LF_CRASH_POINT("catalog_backup.after_write");
  // What cannot be read back must not push out what can.
  const auto read = [&](uint64_t offset, std::span<std::byte> out) { return to->ReadAt(offset, out); };
  return Annotate(format::ReadCatalogBackup(read, [](ByteView) { return absl::OkStatus(); }).status(), "read back " + path);
}

absl::Status CatalogBackups::RemoveLeftovers(const std::vector<std::string>& names) {
  for (const std::string& name : names) {
    const auto parsed = format::ParseCatalogBackupName(name);
    if (parsed.has_value() && !parsed->finished) LF_RETURN_IF_ERROR(files_.Remove(directory() + "/" + name));
  }
  return catalog::RemoveCatalogFiles(options_.scratch + kScratchName);
}

absl::Status CatalogBackups::RemoveOld() {
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, files_.List(directory()));
  std::vector<uint64_t> ids = FinishedIds(names);
  if (ids.size() <= static_cast<size_t>(options_.keep)) return absl::OkStatus();
  ids.resize(ids.size() - static_cast<size_t>(options_.keep));
  for (const uint64_t id : ids) LF_RETURN_IF_ERROR(files_.Remove(PathOf(directory(), id, true)));
  return files_.SyncDirectory(directory());
}

absl::StatusOr<CatalogBackups::Figures> CatalogBackups::GetFigures() const {
  Figures figures{.count = 0, .bytes = 0, .newest_at = std::nullopt, .last_error = "", .every = options_.every, .keep = options_.keep};
  {
    MutexLock lock(mu_);
    figures.last_error = last_error_;
  }
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListIn(files_, directory()));
  for (const uint64_t id : FinishedIds(names)) {
    const std::string path = PathOf(directory(), id, true);
    const auto file = files_.OpenForReading(path);
    if (absl::IsNotFound(file.status())) continue;  // an older one that went at this moment
    LF_RETURN_IF_ERROR(file.status());
    ++figures.count;
    figures.bytes += static_cast<int64_t>((*file)->Size().value_or(0));
    // The newest whose header can be read: one that cannot proves nothing.
    if (const auto header = ReadHeader(files_, path); header.ok()) figures.newest_at = FromUnixMillis(header->made_at_ms);
  }
  return figures;
}

absl::StatusOr<UnpackedCatalog> UnpackNewestCatalog(const std::string& store, const std::string& target, std::vector<std::string>& notes,
                                                    store::FileSystem& files) {
  const std::string directory = DirectoryIn(store);
  LF_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListIn(files, directory));
  std::vector<uint64_t> ids = FinishedIds(names);
  std::reverse(ids.begin(), ids.end());
  for (const uint64_t id : ids) {
    const std::string path = PathOf(directory, id, true);
    LF_RETURN_IF_ERROR(catalog::RemoveCatalogFiles(target));
    LF_ASSIGN_OR_RETURN(const io::UniqueFd to, io::Open(target, O_RDWR | O_CREAT | O_EXCL, 0600));
    absl::Status written = absl::OkStatus();
    uint64_t end = 0;
    const auto unpack = [&]() -> absl::StatusOr<format::CatalogBackupHeader> {
      LF_ASSIGN_OR_RETURN(const std::unique_ptr<store::File> file, files.OpenForReading(path));
      return format::ReadCatalogBackup([&](uint64_t offset, std::span<std::byte> out) { return file->ReadAt(offset, out); },
                                       [&](ByteView block) {
                                         written = io::PwriteAll(to.get(), block, end, target);
                                         end += block.size();
                                         return written;
                                       });
    };
    const absl::StatusOr<format::CatalogBackupHeader> header = unpack();
    LF_RETURN_IF_ERROR(written);
    if (header.ok() && header->id == id) return UnpackedCatalog{.id = id, .made_at = FromUnixMillis(header->made_at_ms)};
    notes.push_back(fmt::format("{}: {}", path, header.ok() ? "it was written as another one" : MessageOf(header.status())));
  }
  LF_RETURN_IF_ERROR(catalog::RemoveCatalogFiles(target));
  return Error(absl::StatusCode::kNotFound, "CATALOG_BACKUP_NOT_FOUND",
               fmt::format("there is no backup of the catalog in {} that can be read", directory));
}

}  // namespace litefleet::backup
