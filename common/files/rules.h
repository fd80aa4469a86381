// Which files are meant: what a [[files]] of agent.toml says, beside its [[database]]s. Thread safety: values.
#ifndef LITEFLEET_COMMON_FILES_RULES_H_
#define LITEFLEET_COMMON_FILES_RULES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace litefleet::files {

// A name of ours in somebody's directory; never backed up, never restored.
inline constexpr char kOwnPrefix[] = ".litefleet-";

// How notes begin that tell of files which did not stay as they were.
inline constexpr char kChangedNote[] = "changed while they were read, and may be of no single moment";
inline constexpr char kGoneNote[] = "left out, since they were removed meanwhile";
inline constexpr char kMovedNote[] = "changed while their names were listed, so that a file that was moved may be missing";
// A root on which nothing is mounted looks so.
inline constexpr char kNothingNote[] = "no file is what include means";
inline bool TellsOfChange(std::string_view note) {
  return note.starts_with(kChangedNote) || note.starts_with(kGoneNote) || note.starts_with(kMovedNote);
}

// What is looked at to find `max_files`.
inline constexpr int64_t kMostSeen = 1'000'000;
inline constexpr int64_t kMostFiles = 100'000;
inline constexpr size_t kMostNameBytes = 64 << 20;  // of all names and links together
inline constexpr size_t kMostName = 4095;
inline constexpr int kMostDepth = 64;

struct Rules {
  std::vector<std::string> include;  // globs (glob.h)
  std::vector<std::string> exclude;
  int64_t max_file_bytes = 64 << 20;
  int64_t max_bytes = 256 << 20;  // of all of them
  int64_t max_files = 10'000;     // directories and links included
  // Paths of configured databases. A restore replaces neither them nor links to them, so they are not taken either, whatever they hold.
  std::vector<std::string> databases = {};

  friend bool operator==(const Rules&, const Rules&) = default;
};

}  // namespace litefleet::files

#endif  // LITEFLEET_COMMON_FILES_RULES_H_
