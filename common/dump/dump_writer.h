// A database as SQL text: that of the sqlite3 CLI's .dump, byte for byte, for every database of which that loses nothing; else a text that
// the CLI loads too, and that loses nothing.
//
// What is added where the CLI loses something: page size, encoding, auto_vacuum, application_id, user_version, default_cache_size; rowids
// that are not a column and not 1, 2, 3 ...; text with NULs or that is no text; numbers that do not read back as they were; the
// AUTOINCREMENT table of a database that has lost its last AUTOINCREMENT; tables of statistics that not every SQLite makes; leave for rows
// that break a CHECK. What is lost all the same: README.md.
//
// Not for a process with rights: the database is hostile input (design law 12). Thread safety: none. Memory: SQLite's, and 64 KiB.
#ifndef LITEFLEET_COMMON_DUMP_DUMP_WRITER_H_
#define LITEFLEET_COMMON_DUMP_DUMP_WRITER_H_

#include <string>
#include <vector>

#include "common/dump/dump_options.h"
#include "common/dump/text_output.h"

struct sqlite3;

namespace litefleet::dump {

enum class End {
  kOk,
  kDamaged,     // SQLite found damage
  kRefused,     // a table cannot be read without its application
  kNoTable,     // a table is not there
  kNoPart,      // a view, a virtual table or a piece of one, which is nothing by itself
  kFailed,      // limits, input/output error
  kBrokenKeys,  // of a merge: rows would lose their parents
};

struct Ended {
  End end = End::kOk;
  std::string message;
};

// What is written is worthless unless it ends well. `db` is only read.
Ended WriteDump(sqlite3* db, const DumpOptions& options, TextOutput& out);

// Tables with their indexes, triggers and AUTOINCREMENT counters, to be loaded into another database (loader.h, MergeText): without what is
// the database's own.
Ended WritePart(sqlite3* db, const std::vector<std::string>& tables, TextOutput& out);

// Names of tables (shadow ones left out) and views, in order, each with what it is before it (t, v for a view, x for a virtual table) and a
// NUL behind it.
Ended WriteTableNames(sqlite3* db, TextOutput& out);
// Rows of a table or view as RFC 4180 has them, with a header; NULL is empty, a blob hexadecimal digits.
Ended WriteCsv(sqlite3* db, const std::string& table, TextOutput& out);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_DUMP_WRITER_H_
