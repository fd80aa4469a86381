#include "common/dump/csv_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <set>

#include "common/base/status.h"
#include "common/check/helper_process.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::dump {
namespace {

using std::chrono::steady_clock;

constexpr size_t kLongestName = 200;
constexpr std::chrono::seconds kTableTime{1};  // for each, beside the time of all
constexpr int64_t kMostTableTimes = 10'000;

// `most` bytes at most, `too_large` is said of more.
struct Room {
  uint64_t most = UINT64_MAX;
  std::string too_large;
};

// The bytes that it has.
absl::StatusOr<uint64_t> WriteOne(const HelperOptions& helper, int fd, const std::string& table, const std::string& path, const Room& room,
                                  const CsvOptions& options) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<DumpProcess> csv, DumpProcess::Csv(helper, {.fd = fd, .bytes = 0, .read = {}}, table));
  LF_ASSIGN_OR_RETURN(const io::UniqueFd file, io::Open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600));
  uint64_t bytes = 0;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, csv->Next());
    if (piece.empty()) break;
    bytes += piece.size();
    if (bytes > room.most) return Error(absl::StatusCode::kResourceExhausted, "DUMP_TOO_LARGE", room.too_large);
    LF_RETURN_IF_ERROR(io::WriteAll(file.get(), piece, path));
    if (options.wrote) LF_RETURN_IF_ERROR(options.wrote(piece.size()));
  }
  LF_RETURN_IF_ERROR(io::Sync(file.get(), path));
  return bytes;
}

struct Named {
  std::string name;
  bool is_table = true;  // and nothing that a statement or a module makes up
};

absl::StatusOr<std::vector<Named>> TablesOf(const HelperOptions& helper, int fd) {
  LF_ASSIGN_OR_RETURN(const std::unique_ptr<DumpProcess> tables, DumpProcess::Tables(helper, {.fd = fd, .bytes = 0, .read = {}}));
  std::string text;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const ByteView piece, tables->Next());
    if (piece.empty()) break;
    text += AsText(piece);
    // It comes from a process that has read hostile input.
    if (text.size() > (64 << 20))
      return Error(absl::StatusCode::kResourceExhausted, "TOO_MANY_TABLES", "the names of tables have more than 64 MiB");
  }
  std::vector<Named> names;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\0', at), text.size());
    if (end == at) return check::HelperFailed("the helper named nonsense as tables");
    names.push_back({.name = text.substr(at + 1, end - at - 1), .is_table = text[at] == 't'});
    at = end + 1;
  }
  return names;
}

// Of what was read, and not of the database or of the disk.
bool IsOfItsOwn(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return reason == "DUMP_REFUSED" || reason == "DUMP_FAILED" || reason == "DUMP_TIMEOUT" || reason == "DUMP_TOO_LARGE" ||
         reason == "CHECK_HELPER_FAILED";
}

absl::StatusOr<CsvFiles> WriteTables(const HelperOptions& helper, int fd, const std::string& directory, const CsvOptions& options) {
  // The seconds of the tables are for tables alone: a view that has no end would use them all.
  const auto deadline = steady_clock::now() + options.time;
  std::chrono::seconds for_tables{0};
  const auto timed = [&](bool is_table) -> absl::StatusOr<HelperOptions> {
    HelperOptions left = helper;
    if (options.time.count() == 0) return left;
    left.time = std::chrono::ceil<std::chrono::seconds>(deadline + (is_table ? for_tables : for_tables.zero()) - steady_clock::now());
    if (left.time.count() > 0) return left;
    return Error(absl::StatusCode::kDeadlineExceeded, "DUMP_TIMEOUT", "what came before it took the time that all of them have");
  };
  std::vector<Named> tables;
  for (const std::string& table : options.only) tables.push_back({.name = table});
  if (tables.empty()) {
    LF_ASSIGN_OR_RETURN(const HelperOptions first, timed(true));
    LF_ASSIGN_OR_RETURN(tables, TablesOf(first, fd));
    std::stable_partition(tables.begin(), tables.end(), [](const Named& each) { return each.is_table; });
  }
  const auto count = std::count_if(tables.begin(), tables.end(), [](const Named& each) { return each.is_table; });
  for_tables = kTableTime * std::min<int64_t>(count, kMostTableTimes);
  uint64_t of_views = 0;
  const auto write = [&](const Named& what, const std::string& path) -> absl::StatusOr<uint64_t> {
    LF_ASSIGN_OR_RETURN(const HelperOptions left, timed(what.is_table));
    Room room;
    if (!what.is_table) {
      room = {.most = options.view_bytes, .too_large = fmt::format("it has more than {} bytes of text", options.view_bytes)};
      if (const uint64_t of_all = options.views_bytes - of_views; of_all < room.most) {
        room = {.most = of_all,
                .too_large = fmt::format("all views and virtual tables together have more than {} bytes of text", options.views_bytes)};
      }
    }
    return WriteOne(left, fd, what.name, path, room, options);
  };
  CsvFiles files;
  std::set<std::string> taken;
  for (const Named& each : tables) {
    const std::string stem = CsvFileName(each.name);
    std::string name = stem + ".csv";
    for (int i = 2; !taken.insert(name).second; ++i) name = fmt::format("{}~{}.csv", stem, i);
    const absl::StatusOr<uint64_t> written = write(each, directory + "/" + name);
    if (!written.ok() && !each.is_table && IsOfItsOwn(written.status())) {
      LF_RETURN_IF_ERROR(io::RemoveFile(directory + "/" + name));
      taken.erase(name);
      files.left_out.push_back({.name = each.name, .why = MessageOf(written.status())});
      continue;
    }
    LF_RETURN_IF_ERROR(written.status());
    if (!each.is_table) of_views += *written;
    files.names.push_back(name);
  }
  return files;
}

}  // namespace

std::string CsvFileName(std::string_view table) {
  std::string name;
  for (const char c : table) {
    const auto byte = static_cast<unsigned char>(c);
    const bool odd = byte < 0x20 || byte == 0x7f || c == '/' || c == '\\' || c == '%' || (c == '.' && name.empty());
    name += odd ? fmt::format("%{:02X}", byte) : std::string(1, c);
  }
  if (name.empty()) name = "%";
  if (name.size() <= kLongestName) return name;
  size_t end = kLongestName;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xc0) == 0x80) --end;  // not within a character
  return name.substr(0, end);
}

absl::StatusOr<CsvFiles> WriteCsvFiles(const HelperOptions& helper, int fd, const std::string& directory, const CsvOptions& options) {
  if (mkdir(directory.c_str(), 0700) != 0) {
    if (errno != EEXIST) return ErrnoError(errno, "make the directory " + directory);
    return Error(absl::StatusCode::kAlreadyExists, "FILE_EXISTS", fmt::format("{} exists already", directory), "name another directory");
  }
  auto files = WriteTables(helper, fd, directory, options);
  if (!files.ok()) {
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  }
  return files;
}

}  // namespace litefleet::dump
