// What a crash leaves beside a database, damaged: a WAL or a rollback journal whose header, frames, records or end are not what they were.
//
// "Sealed" shapes have their checksums made anew, as if whoever wrote them had meant it. Source: https://www.sqlite.org/fileformat2.html,
// sections 3 and 4
#ifndef LITEFLEET_TESTS_UNIT_AGENT_HOSTILE_DAMAGED_SIDES_H_
#define LITEFLEET_TESTS_UNIT_AGENT_HOSTILE_DAMAGED_SIDES_H_

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/base/bytes.h"

namespace litefleet::hostile {

// A database and what lies beside it.
struct Sides {
  Bytes database;
  std::optional<Bytes> wal = std::nullopt;
  std::optional<Bytes> journal = std::nullopt;
};

struct DamagedSides {
  std::string name;
  Sides files;
};

// `left` has a WAL with several commits of which the database has nothing; `other` is another database with one, `coarse` one with larger
// pages.
std::vector<DamagedSides> DamagedWals(const Sides& left, const Sides& other, const Sides& coarse);

// `left` has a hot journal of several segments; the others as above. `super`: the path of a file that exists.
std::vector<DamagedSides> DamagedJournals(const Sides& left, const Sides& other, const Sides& coarse, const std::string& super);

// Some bytes anywhere in the WAL or journal, most of them where it says what it is.
Sides DamagedAnywhere(const Sides& left, std::mt19937& random);

}  // namespace litefleet::hostile

#endif  // LITEFLEET_TESTS_UNIT_AGENT_HOSTILE_DAMAGED_SIDES_H_
