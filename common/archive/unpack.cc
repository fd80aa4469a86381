#include "common/archive/unpack.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>
#include <memory>
#include <optional>

#include "common/archive/entry_time.h"
#include "common/files/entry.h"
#include "common/files/rules.h"

namespace litefleet::archive {
namespace {

using files::Entry;
using files::EntryKind;

struct FreeRead {
  void operator()(struct archive* a) const { archive_read_free(a); }
};

la_ssize_t Give(struct archive* a, void* context, const void** data) {
  const ReadArchive& read = *static_cast<const ReadArchive*>(context);
  std::string_view piece;
  if (!read(piece)) {
    archive_set_error(a, EIO, "the archive cannot be read");
    return -1;
  }
  *data = piece.data();
  return static_cast<la_ssize_t>(piece.size());
}

std::string ProblemOf(struct archive* a) {
  const char* const why = archive_error_string(a);
  return why == nullptr ? "it is no archive" : why;
}

bool IsId(la_int64_t id) { return id >= 0 && id < std::numeric_limits<uint32_t>::max(); }

std::optional<Entry> Convert(archive_entry* from, std::string& problem) {
  Entry entry;
  const char* const name = archive_entry_pathname(from);
  if (name == nullptr || *name == '\0') {
    problem = "an entry has no name";
    return std::nullopt;
  }
  entry.name = name;
  problem = entry.name.substr(0, 200);
  const auto type = archive_entry_filetype(from);
  if (archive_entry_hardlink(from) != nullptr || (type != AE_IFREG && type != AE_IFDIR && type != AE_IFLNK)) {
    problem += " is neither a file nor a directory nor a symbolic link";
    return std::nullopt;
  }
  entry.kind = type == AE_IFREG ? EntryKind::kFile : type == AE_IFDIR ? EntryKind::kDirectory : EntryKind::kLink;
  // tar writes a directory with a slash at its end.
  if (entry.kind == EntryKind::kDirectory && entry.name.size() > 1 && entry.name.back() == '/') entry.name.pop_back();
  const char* const link = archive_entry_symlink(from);
  if (link != nullptr) entry.link = link;
  const la_int64_t size = archive_entry_size(from);
  const bool possible = entry.name.size() <= files::kMostName && entry.link.size() <= files::kMostName &&
                        (entry.kind == EntryKind::kLink) == (link != nullptr) && IsId(archive_entry_uid(from)) &&
                        IsId(archive_entry_gid(from)) && size >= 0 && (entry.kind == EntryKind::kFile || size == 0) &&
                        archive_entry_sparse_count(from) == 0;
  if (!possible) {
    problem += " has a name, an owner, a size or a kind that makes no sense";
    return std::nullopt;
  }
  entry.mode = archive_entry_perm(from) & 07777;
  entry.uid = static_cast<uint32_t>(archive_entry_uid(from));
  entry.gid = static_cast<uint32_t>(archive_entry_gid(from));
  entry.seconds = Modified(from);
  entry.nanoseconds = static_cast<uint32_t>(archive_entry_mtime_nsec(from));
  entry.size = static_cast<uint64_t>(size);
  return entry;
}

}  // namespace

std::string Unpack(const ReadArchive& read, const std::function<bool(std::string_view frame)>& take) {
  const std::unique_ptr<struct archive, FreeRead> in(archive_read_new());
  struct archive* const a = in.get();
  ReadArchive source = read;
  if (a == nullptr || archive_read_support_format_tar(a) != ARCHIVE_OK ||
      archive_read_open(a, &source, nullptr, &Give, nullptr) != ARCHIVE_OK)
    return a == nullptr ? "there is no memory" : ProblemOf(a);
  const std::string nobody = "nobody takes what is read";
  std::array<char, files::kMostFrameData> piece{};
  for (;;) {
    archive_entry* next = nullptr;
    const int code = archive_read_next_header(a, &next);
    if (code == ARCHIVE_EOF) break;
    if (code != ARCHIVE_OK) return ProblemOf(a);
    std::string problem;
    const std::optional<Entry> entry = Convert(next, problem);
    if (!entry.has_value()) return problem;
    if (!take(files::EntryFrame(*entry))) return nobody;
    for (uint64_t left = entry->size; left > 0;) {
      const la_ssize_t n = archive_read_data(a, piece.data(), std::min<uint64_t>(piece.size(), left));
      if (n <= 0) return n < 0 ? ProblemOf(a) : entry->name.substr(0, 200) + " ends before its end";
      const auto bytes = static_cast<size_t>(n);
      if (!take(files::FrameHead('D', bytes) + std::string(piece.data(), bytes))) return nobody;
      left -= bytes;
    }
  }
  return take(files::FrameHead('Z', 0)) ? std::string() : nobody;
}

}  // namespace litefleet::archive
