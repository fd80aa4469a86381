// One file, directory or symbolic link of an archive: what is kept of it, what a name may be, and how the helper hands it to its parent.
//
// The helper has read what is foreign: whoever takes frames believes nothing of them. Thread safety: values, pure functions; FrameReader
// has none.
//
// Frame: u8 type, u32 bytes of the payload (little-endian), payload.
//   'E'  an entry: u8 kind, u32 mode, u32 uid, u32 gid, i64 seconds, u32 nanoseconds, u64 size, u32 bytes of the name, name, link
//   'D'  the next bytes of the last entry's content: 1 to 65,536
//   'Z'  the end, without a payload
#ifndef LITEFLEET_COMMON_FILES_ENTRY_H_
#define LITEFLEET_COMMON_FILES_ENTRY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace litefleet::files {

enum class EntryKind : uint8_t { kFile = 1, kDirectory = 2, kLink = 3 };

struct Entry {
  EntryKind kind = EntryKind::kFile;
  std::string name;   // relative to the root
  std::string link;   // what a link says
  uint32_t mode = 0;  // the lowest 12 bits
  uint32_t uid = 0;
  uint32_t gid = 0;
  int64_t seconds = 0;  // of the last modification; of directories 0
  uint32_t nanoseconds = 0;
  uint64_t size = 0;

  friend bool operator==(const Entry&, const Entry&) = default;
};

// Relative, of parts of at most 255 bytes that are neither empty nor "." nor "..", not ours, not too deep. Any other byte but NUL may
// be in a name, also at its beginning: nobody hands one to a shell.
bool IsEntryName(std::string_view name);
// A link at `name` that says `link` leads to somewhere below the root, as do all links on the way for which this holds: ".." stands at the
// beginning alone.
bool StaysInside(std::string_view name, std::string_view link);
// The order of an archive: a directory before what is in it, and that before what follows.
bool ComesBefore(std::string_view a, std::string_view b);
std::string_view ParentOf(std::string_view name);  // empty: the root
std::string_view BaseOf(std::string_view name);

// The first bytes of every SQLite database.
bool IsSqliteHeader(std::string_view start);
inline constexpr size_t kSqliteHeaderBytes = 16;

inline constexpr size_t kMostFrameData = 65536;

std::string EntryFrame(const Entry& entry);
std::string FrameHead(char type, size_t bytes);

class FrameReader {
 public:
  struct Frame {
    char type = 0;
    Entry entry;
    std::string_view data;  // valid until the next Take or Add
  };
  // Bytes as they come.
  void Add(std::string_view bytes);
  // The next whole frame, or nothing. `nonsense` is set, for good, where the bytes are none.
  std::optional<Frame> Take(bool& nonsense);
  bool empty() const { return at_ == buffer_.size(); }

 private:
  std::string buffer_;
  size_t at_ = 0;
  bool nonsense_ = false;
};

}  // namespace litefleet::files

#endif  // LITEFLEET_COMMON_FILES_ENTRY_H_
