// What a walk below a root has found, by the rules. For pack.cc. Thread safety: none.
#ifndef LITEFLEET_COMMON_ARCHIVE_FOUND_H_
#define LITEFLEET_COMMON_ARCHIVE_FOUND_H_

#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/files/entry.h"
#include "common/files/glob.h"
#include "common/files/rules.h"

namespace litefleet::archive {

// Names under a heading: the first ones, and how many more.
class NameList {
 public:
  void Add(std::string name) {
    if (++count_ <= kShown) names_.push_back(std::move(name));
  }
  bool empty() const { return count_ == 0; }
  std::string Text() const;

 private:
  static constexpr size_t kShown = 5;
  size_t count_ = 0;
  std::vector<std::string> names_;
};

struct Found {
  files::Entry entry;
  uint64_t device = 0;
  uint64_t inode = 0;
  timespec changed{};  // its status
};

// Times of files go on in ticks (10 ms at most): who writes twice within one shows once. Behind an older one every write shows.
bool IsSettled(const struct stat& st);
inline constexpr int kPauseMillis = 25;  // until it is so

// The times and the size by which a file is known to be as it was.
bool IsSame(const Found& found, const struct stat& st);
Found FoundOf(std::string name, const struct stat& st);

struct Walked {
  std::string reason;  // empty: all is well
  std::string text;
  std::vector<Found> found;                 // in the order of an archive
  std::map<std::string, NameList> remarks;  // what was left out, by why
};

// For tests: what a reading of a directory has brought, which moves with those who write there.
using ListHook = std::function<void(const std::string& directory, std::vector<std::string>& names)>;

// `root`: a descriptor of the directory.
Walked Walk(int root, const files::Rules& rules, const ListHook& hook = {});

}  // namespace litefleet::archive

#endif  // LITEFLEET_COMMON_ARCHIVE_FOUND_H_
