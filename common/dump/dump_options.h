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

// What such a text holds of its database, for people: "schema only", "tables a, b, data only", "without tables c"; empty: all of it.
std::string PartOf(const DumpOptions& options);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_DUMP_OPTIONS_H_
