// What the file system says of a database and of the files that SQLite keeps beside it: whether anything can have been written since.
//
// Found without opening anything (design law 3: a descriptor of our own would drop SQLite's locks when it is closed). Equal facts mean that
// no file was replaced, resized or written through a file descriptor in between, as long as the clock was not set back; a full read at
// intervals proves it. Not for read-write memory maps of others, which SQLite does not write through. Thread safety: pure functions.
#ifndef LITEFLEET_AGENT_CAPTURE_FILE_FACTS_H_
#define LITEFLEET_AGENT_CAPTURE_FILE_FACTS_H_

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "common/base/clock.h"

namespace litefleet::capture {

struct FileFacts {
  // Device, inode, size, times of modification and change of the database, and of its WAL and journal where they are.
  std::string text;
  // Nothing was written in the last moment: a write that comes now will show in the times, however coarse the file system counts.
  bool settled = false;
  // The same within a tenth of a second, where the times themselves show that they are counted finely.
  bool quiet = false;
  // Neither WAL nor journal is there: all that there is is in the database file.
  bool bare = false;
};

// What the times of the files say is proven by a read at least this often.
inline constexpr std::chrono::hours kReadAnyway{24};

// Whether the files, which were read at `read_at` when their facts were `then`, need not be read now.
bool AreAsRead(const FileFacts& facts, std::string_view then, SystemTime read_at, SystemTime now);

// Nothing where the database is no file. Follows symbolic links.
std::optional<FileFacts> FileFactsOf(const std::string& path, SystemTime now);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_FILE_FACTS_H_
