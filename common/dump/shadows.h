// Shadow tables: those in which a virtual table keeps its content. For the helper process: plain C++.
#ifndef LITEFLEET_COMMON_DUMP_SHADOWS_H_
#define LITEFLEET_COMMON_DUMP_SHADOWS_H_

#include <sqlite3.h>

#include <map>
#include <string>

#include "common/dump/dump_writer.h"
#include "common/dump/names.h"

namespace litefleet::dump {

// In the text of some tables: the statement of a virtual table whose content they are.
inline constexpr char kOwnerPragma[] = "litefleet_virtual_table";

using Shadows = std::map<std::string, std::string, NoCase>;  // and whose they are

Ended FindShadows(sqlite3* db, Shadows& shadows);

// By themselves they say nothing: an index of one state would stand beside the text of another. kNoPart where some tables of a virtual one
// are among `names`, and others are not.
Ended CheckWhole(const Shadows& shadows, const Names& names);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_SHADOWS_H_
