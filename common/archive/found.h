// What a walk below a root has found, by the rules. For pack.cc. Thread safety: none.
#ifndef LITEFLEET_COMMON_ARCHIVE_FOUND_H_
#define LITEFLEET_COMMON_ARCHIVE_FOUND_H_

#include <sys/stat.h>

#include <cstdint>
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

// The times and the size by which a file is known to be as it was.
bool IsSame(const Found& found, const struct stat& st);
Found FoundOf(std::string name, const struct stat& st);

struct Walked {
  std::string reason;  // empty: all is well
  std::string text;
  std::vector<Found> found;                 // in the order of an archive
  std::map<std::string, NameList> remarks;  // what was left out, by why
};

// `root`: a descriptor of the directory.
Walked Walk(int root, const files::Rules& rules);

}  // namespace litefleet::archive

#endif  // LITEFLEET_COMMON_ARCHIVE_FOUND_H_
