// Places of files that a disk cannot read any more, by 4 KiB. Thread safety: any thread.
#ifndef LITEFLEET_TESTS_FAKES_SPOILT_PLACES_H_
#define LITEFLEET_TESTS_FAKES_SPOILT_PLACES_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "common/base/mutex.h"

namespace litefleet::fakes {

class SpoiltPlaces {
 public:
  // Whatever the ending of the file's name becomes.
  void Add(const std::string& path, uint64_t offset) {
    MutexLock lock(mu_);
    blocks_[Stem(path)].insert(offset / kBlock);
  }
  bool Has(const std::string& path, uint64_t offset, uint64_t size) {
    MutexLock lock(mu_);
    const auto of_file = blocks_.find(Stem(path));
    if (of_file == blocks_.end() || size == 0) return false;
    const auto at = of_file->second.lower_bound(offset / kBlock);
    return at != of_file->second.end() && *at <= (offset + size - 1) / kBlock;
  }

 private:
  static constexpr uint64_t kBlock = 4096;
  static std::string Stem(const std::string& path) { return path.substr(0, path.rfind('.')); }

  Mutex mu_;
  std::map<std::string, std::set<uint64_t>> blocks_ ABSL_GUARDED_BY(mu_);
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_SPOILT_PLACES_H_
