#include "common/files/glob.h"

#include <fnmatch.h>

#include <algorithm>
#include <span>

namespace litefleet::files {
namespace {

constexpr size_t kMostPattern = 1024;
constexpr std::string_view kAnyDirectories = "**";

std::vector<std::string> SplitName(std::string_view name) {
  std::vector<std::string> parts;
  for (size_t at = 0; at <= name.size();) {
    const size_t end = std::min(name.find('/', at), name.size());
    parts.emplace_back(name.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool IsPart(const std::string& pattern, const std::string& name) { return fnmatch(pattern.c_str(), name.c_str(), 0) == 0; }

// Back to the last "**" alone: an earlier one that takes more cannot help.
bool Matches(std::span<const std::string> pattern, std::span<const std::string> name) {
  size_t p = 0, n = 0;
  size_t again_p = pattern.size() + 1, again_n = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == kAnyDirectories) {
      again_p = ++p;
      again_n = n;
    } else if (p < pattern.size() && IsPart(pattern[p], name[n])) {
      ++p, ++n;
    } else if (again_p <= pattern.size()) {
      p = again_p;
      n = ++again_n;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == kAnyDirectories) ++p;
  return p == pattern.size();
}

bool MayHoldOne(std::span<const std::string> pattern, std::span<const std::string> directory) {
  for (size_t i = 0; i < directory.size(); ++i) {
    if (i < pattern.size() && pattern[i] == kAnyDirectories) return true;
    if (i + 1 >= pattern.size() || !IsPart(pattern[i], directory[i])) return false;
  }
  return true;
}

}  // namespace

std::string ProblemOfGlob(std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kMostPattern) return "a pattern has 1 to 1024 bytes";
  if (pattern.find('\0') != std::string_view::npos) return "a pattern has no NUL";
  if (pattern.front() == '/') return "a pattern is relative to the root";
  for (const std::string& part : SplitName(pattern)) {
    if (part.empty()) return "a pattern has no empty part between slashes, and none at its end";
    if (part == "." || part == "..") return "a pattern has no . and no ..";
    if (part.find(kAnyDirectories) != std::string::npos && part != kAnyDirectories) return "** stands for whole directories";
  }
  return {};
}

GlobSet::GlobSet(const std::vector<std::string>& include, const std::vector<std::string>& exclude) {
  for (const std::string& pattern : include) include_.push_back(SplitName(pattern));
  for (const std::string& pattern : exclude) exclude_.push_back(SplitName(pattern));
}

bool GlobSet::Takes(std::string_view name) const {
  const Parts parts = SplitName(name);
  return std::any_of(include_.begin(), include_.end(), [&](const Parts& pattern) { return Matches(pattern, parts); }) && !Excludes(name);
}

bool GlobSet::MayHold(std::string_view name) const {
  const Parts parts = SplitName(name);
  return std::any_of(include_.begin(), include_.end(), [&](const Parts& pattern) { return MayHoldOne(pattern, parts); }) && !Excludes(name);
}

bool GlobSet::Excludes(std::string_view name) const {
  const Parts parts = SplitName(name);
  for (size_t count = 1; count <= parts.size(); ++count) {
    const std::span<const std::string> above(parts.data(), count);
    if (std::any_of(exclude_.begin(), exclude_.end(), [&](const Parts& pattern) { return Matches(pattern, above); })) return true;
  }
  return false;
}

}  // namespace litefleet::files
