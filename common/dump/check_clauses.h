// CHECK constraints of a table, out of its CREATE TABLE statement.
//
// Pure; for the helper process: plain C++. Memory: a copy of the constraints.
#ifndef LITEFLEET_COMMON_DUMP_CHECK_CLAUSES_H_
#define LITEFLEET_COMMON_DUMP_CHECK_CLAUSES_H_

#include <string>
#include <string_view>

namespace litefleet::dump {

// An expression that is true of the rows that break one, as SQLite has it: a constraint that is NULL is kept. Empty without constraints.
// `sql`: as sqlite_schema has it, which SQLite has parsed; of anything else the expression may be none.
std::string BrokenChecks(std::string_view sql);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_CHECK_CLAUSES_H_
