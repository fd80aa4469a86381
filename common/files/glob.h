// Names of files below a root, chosen by patterns.
//
//   *  any characters but '/'      ?  one of them      [a-z]  one of these      **  any number of directories, also none
//
//   "*.conf"         in the root itself        "attachments/**"   everything below attachments
//   "**/*.conf"      anywhere                  "certs/?*.pem"
//
// A pattern is compared with the whole name, byte by byte, relative to the root; names that begin with a dot are names as any other. What
// is excluded is excluded with all that is below it. Not for names of somebody else's choice that are not compared: they are checked by
// entry.h. Thread safety: const functions from any thread. Source: fnmatch(3) for each part between slashes.
#ifndef LITEFLEET_COMMON_FILES_GLOB_H_
#define LITEFLEET_COMMON_FILES_GLOB_H_

#include <string>
#include <string_view>
#include <vector>

namespace litefleet::files {

// What is wrong with a pattern, for people; empty: nothing.
std::string ProblemOfGlob(std::string_view pattern);

class GlobSet {
 public:
  // REQUIRES: ProblemOfGlob has nothing to say of any.
  GlobSet(const std::vector<std::string>& include, const std::vector<std::string>& exclude);

  // `name` is relative, without empty parts, "." and "..".
  bool Takes(std::string_view name) const;
  // Something that is taken may be below the directory `name`.
  bool MayHold(std::string_view name) const;
  bool Excludes(std::string_view name) const;

 private:
  using Parts = std::vector<std::string>;

  std::vector<Parts> include_;
  std::vector<Parts> exclude_;
};

}  // namespace litefleet::files

#endif  // LITEFLEET_COMMON_FILES_GLOB_H_
