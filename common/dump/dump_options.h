// What of a database becomes SQL text, and how.
#ifndef LITEFLEET_COMMON_DUMP_DUMP_OPTIONS_H_
#define LITEFLEET_COMMON_DUMP_DUMP_OPTIONS_H_

#include <string>
#include <vector>

namespace litefleet::dump {

struct DumpOptions {
  bool compatible = false;                // what the CLI writes, also where it loses something
  std::vector<std::string> tables = {};   // with their indexes, triggers and shadow tables; empty: all, and the views
  std::vector<std::string> without = {};  // the same, left out
  bool schema_only = false;
  bool data_only = false;

  friend bool operator==(const DumpOptions&, const DumpOptions&) = default;
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_DUMP_OPTIONS_H_
