// Tables of one database that replace those of another.
#ifndef LITEFLEET_COMMON_DUMP_MERGE_OPTIONS_H_
#define LITEFLEET_COMMON_DUMP_MERGE_OPTIONS_H_

#include <string>
#include <vector>

namespace litefleet::dump {

// Of the database into which a text of WritePart is loaded.
struct MergeOptions {
  std::vector<std::string> tables;
  bool may_break_keys = false;  // rows may lose the parents that their foreign keys name
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_MERGE_OPTIONS_H_
