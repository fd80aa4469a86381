// SQL text becomes a database. Runs in the helper process alone: the text is hostile input, and what it does to the database is unlimited.
//
// What it cannot do: attach other files, load extensions, set what belongs to the connection. Foreign keys are not enforced and CHECK
// constraints not looked at, so that what a database held comes back as it was. Thread safety: none. Memory: a statement, its values, and
// SQLite's cache.
#ifndef LITEFLEET_COMMON_DUMP_LOADER_H_
#define LITEFLEET_COMMON_DUMP_LOADER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "common/dump/dump_writer.h"
#include "common/dump/merge_options.h"

struct sqlite3;

namespace litefleet::dump {

struct LoadLimits {
  size_t statement_bytes = 0;
};

// The next piece of text; empty at the end; nothing where it cannot be read.
using ReadText = std::function<bool(std::string_view& piece)>;

// `db` is open and empty. kRefused: a statement needs what is not here, or is none; kDamaged: it breaks a constraint.
Ended LoadText(sqlite3* db, const LoadLimits& limits, const ReadText& read);

// Whether the text that WriteDump makes of `db` can be loaded where nothing of its application is, as far as its schema tells: made once in
// `empty`, a database in memory. kRefused: it cannot; any other end but kOk: nobody knows.
Ended TrySchema(sqlite3* db, const DumpOptions& options, const LoadLimits& limits, sqlite3* empty);

// Tables of a database are replaced by those of a text that WritePart made: dropped with their indexes and triggers, then
// loaded. The text may touch nothing but these tables, whatever it says. No row of another table may lose the parent of
// its foreign key, and those of these tables that have none may not be more than before. A part of `db` may have been changed when it does
// not end well. kRefused: something else has a name that they need; kNoPart: another table of the same virtual one stays as it is;
// kBrokenKeys. kOk with a message: definitions that have changed with it, as a sentence for people.
Ended MergeText(sqlite3* db, const MergeOptions& options, const LoadLimits& limits, const ReadText& read);

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_LOADER_H_
