#include "common/files/entry.h"

#include <algorithm>
#include <vector>

#include "common/base/bytes.h"
#include "common/files/rules.h"

namespace litefleet::files {
namespace {

constexpr size_t kHeadBytes = 5;
constexpr size_t kEntryBytes = 1 + 4 + 4 + 4 + 8 + 4 + 8 + 4;
constexpr size_t kMostPart = 255;
constexpr size_t kMostEntryFrame = kEntryBytes + 2 * kMostName;

template <class T>
void Put(T value, std::string& out) {
  std::byte raw[sizeof(T)];
  StoreLittleEndian(value, raw);
  out.append(reinterpret_cast<const char*>(raw), sizeof(T));
}

template <class T>
T Get(std::string_view& in) {
  const T value = LoadLittleEndian<T>(AsBytes(in).data());
  in.remove_prefix(sizeof(T));
  return value;
}

std::optional<Entry> ParseEntry(std::string_view in) {
  if (in.size() < kEntryBytes) return std::nullopt;
  Entry entry;
  const auto kind = Get<uint8_t>(in);
  if (kind < 1 || kind > 3) return std::nullopt;
  entry.kind = static_cast<EntryKind>(kind);
  entry.mode = Get<uint32_t>(in);
  entry.uid = Get<uint32_t>(in);
  entry.gid = Get<uint32_t>(in);
  entry.seconds = static_cast<int64_t>(Get<uint64_t>(in));
  entry.nanoseconds = Get<uint32_t>(in);
  entry.size = Get<uint64_t>(in);
  const auto name_bytes = Get<uint32_t>(in);
  if (name_bytes > in.size()) return std::nullopt;
  entry.name = in.substr(0, name_bytes);
  entry.link = in.substr(name_bytes);
  return entry;
}

}  // namespace

bool IsEntryName(std::string_view name) {
  if (name.empty() || name.size() > kMostName || name.find('\0') != std::string_view::npos) return false;
  int depth = 0;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    const std::string_view part = name.substr(at, end - at);
    if (part.empty() || part == "." || part == ".." || part.size() > kMostPart || part.starts_with(kOwnPrefix)) return false;
    if (++depth > kMostDepth) return false;
    at = end + 1;
  }
  return true;
}

bool StaysInside(std::string_view name, std::string_view link) {
  if (link.empty() || link.front() == '/' || link.size() > kMostName || link.find('\0') != std::string_view::npos) return false;
  auto depth = std::count(name.begin(), name.end(), '/');
  bool named = false;
  for (size_t at = 0; at <= link.size();) {
    const size_t end = std::min(link.find('/', at), link.size());
    const std::string_view part = link.substr(at, end - at);
    if (part == "..") {
      // What has a name may be a link itself: the way up from it is unknown.
      if (named || --depth < 0) return false;
    } else if (!part.empty() && part != ".") {
      named = true;
    }
    at = end + 1;
  }
  return true;
}

bool ComesBefore(std::string_view a, std::string_view b) {
  return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end(), [](char left, char right) {
    const int l = left == '/' ? -1 : static_cast<unsigned char>(left);
    const int r = right == '/' ? -1 : static_cast<unsigned char>(right);
    return l < r;
  });
}

std::string_view ParentOf(std::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == std::string_view::npos ? std::string_view() : name.substr(0, slash);
}

std::string_view BaseOf(std::string_view name) { return name.substr(name.rfind('/') + 1); }

bool IsSqliteHeader(std::string_view start) { return start.starts_with(std::string_view("SQLite format 3\0", kSqliteHeaderBytes)); }

std::string FrameHead(char type, size_t bytes) {
  std::string head(1, type);
  Put(static_cast<uint32_t>(bytes), head);
  return head;
}

std::string EntryFrame(const Entry& entry) {
  std::string payload;
  Put(static_cast<uint8_t>(entry.kind), payload);
  Put(entry.mode, payload);
  Put(entry.uid, payload);
  Put(entry.gid, payload);
  Put(static_cast<uint64_t>(entry.seconds), payload);
  Put(entry.nanoseconds, payload);
  Put(entry.size, payload);
  Put(static_cast<uint32_t>(entry.name.size()), payload);
  return FrameHead('E', payload.size() + entry.name.size() + entry.link.size()) + payload + entry.name + entry.link;
}

void FrameReader::Add(std::string_view bytes) {
  buffer_.erase(0, at_);
  at_ = 0;
  buffer_.append(bytes);
}

std::optional<FrameReader::Frame> FrameReader::Take(bool& nonsense) {
  const auto refuse = [&]() -> std::optional<Frame> {
    nonsense = nonsense_ = true;
    return std::nullopt;
  };
  if (nonsense_) return refuse();
  std::string_view in = std::string_view(buffer_).substr(at_);
  if (in.size() < kHeadBytes) return std::nullopt;
  Frame frame;
  frame.type = in.front();
  in.remove_prefix(1);
  const auto bytes = Get<uint32_t>(in);
  const bool possible = (frame.type == 'E' && bytes <= kMostEntryFrame) || (frame.type == 'D' && bytes > 0 && bytes <= kMostFrameData) ||
                        (frame.type == 'Z' && bytes == 0);
  if (!possible) return refuse();
  if (in.size() < bytes) return std::nullopt;
  frame.data = in.substr(0, bytes);
  if (frame.type == 'E') {
    std::optional<Entry> entry = ParseEntry(frame.data);
    if (!entry.has_value()) return refuse();
    frame.entry = *std::move(entry);
  }
  at_ += kHeadBytes + bytes;
  return frame;
}

}  // namespace litefleet::files
