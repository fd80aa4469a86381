// Names of tables as SQLite compares them.
#ifndef LITEFLEET_COMMON_DUMP_NAMES_H_
#define LITEFLEET_COMMON_DUMP_NAMES_H_

#include <sqlite3.h>

#include <set>
#include <string>

namespace litefleet::dump {

struct NoCase {
  bool operator()(const std::string& a, const std::string& b) const { return sqlite3_stricmp(a.c_str(), b.c_str()) < 0; }
};
using Names = std::set<std::string, NoCase>;

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_NAMES_H_
