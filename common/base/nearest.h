// What somebody probably meant who typed a name that does not exist.
//
// Thread safety: a pure function.
#ifndef LITEFLEET_COMMON_BASE_NEAREST_H_
#define LITEFLEET_COMMON_BASE_NEAREST_H_

#include <span>
#include <string>
#include <string_view>

namespace litefleet {

// The name that `typed` begins, or that is a slip away from it: an edit or a swap of neighbours for three letters. Empty where none is:
// a wrong suggestion is worse than none.
std::string Nearest(std::string_view typed, std::span<const std::string> names);

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_NEAREST_H_
