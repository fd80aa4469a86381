#include "common/base/nearest.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace litefleet {
namespace {

// Levenshtein's distance, with a swap of neighbours as one step.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    next[0] = i + 1;
    for (size_t k = 0; k < b.size(); ++k) {
      next[k + 1] = std::min({row[k + 1] + 1, next[k] + 1, row[k] + (a[i] == b[k] ? 0 : 1)});
      if (i > 0 && k > 0 && a[i] == b[k - 1] && a[i - 1] == b[k]) next[k + 1] = std::min(next[k + 1], before[k - 1] + 1);
    }
    before = row;
    std::swap(row, next);
  }
  return row.back();
}

}  // namespace

std::string Nearest(std::string_view typed, std::span<const std::string> names) {
  std::string best;
  size_t best_distance = typed.size();
  for (const std::string& name : names) {
    if (typed.size() >= 2 && name.starts_with(typed)) return name;
    const size_t distance = Distance(typed, name);
    if (distance > std::min(typed.size(), name.size()) / 3 || distance >= best_distance) continue;
    best_distance = distance;
    best = name;
  }
  return best;
}

}  // namespace litefleet
