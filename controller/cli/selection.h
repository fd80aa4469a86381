// Which databases a selector matched, as a word of a command line: a command that goes on says it, so that what the selector takes in since
// is not restored unasked, and those that came can be named.
//
// "6-1f0c9a27be44.Zk3xQm8T0w": their number, the first 6 bytes of the SHA-256 of their names, and a Bloom filter of these. The number and
// the hash tell whether it is the same set; the filter, which words of an older program lack, only serves to name who came. It has 12 bits
// a name (one of 300 that came is taken for one that was there), and 4096 at most: the word stays below 720 characters, and of thousands of
// databases some of those that came are named and not all. Pure functions.
#ifndef LITEFLEET_CONTROLLER_CLI_SELECTION_H_
#define LITEFLEET_CONTROLLER_CLI_SELECTION_H_

#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace litefleet::cli {

// Names are of the form DEVICE/DATABASE.
std::string SelectionWord(const std::set<std::string>& names);

// SELECTION_CHANGED (kFailedPrecondition) where `now` is not the set of which `then` is the word; `selector` is for the message.
absl::Status CheckSelection(std::string_view then, const std::set<std::string>& now, std::string_view selector);

}  // namespace litefleet::cli

#endif  // LITEFLEET_CONTROLLER_CLI_SELECTION_H_
