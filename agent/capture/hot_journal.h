// The rollback journal beside a database, as far as can be told without SQLite: what it would do with it when nobody has a lock.
//
// Reads by descriptors of its own: on a journal SQLite has no lock that closing one would drop. Nothing is rolled back here. Thread safety:
// pure functions of the files. Source: https://www.sqlite.org/fileformat.html, the rollback journal; https://www.sqlite.org/lockingv3.html
#ifndef LITEFLEET_AGENT_CAPTURE_HOT_JOURNAL_H_
#define LITEFLEET_AGENT_CAPTURE_HOT_JOURNAL_H_

#include <array>
#include <cstddef>
#include <optional>
#include <string>

#include "agent/capture/lock_table.h"

namespace litefleet::capture {

inline constexpr std::array<std::byte, 8> kJournalMagic = {std::byte{0xd9}, std::byte{0xd5}, std::byte{0x05}, std::byte{0xf9},
                                                           std::byte{0x20}, std::byte{0xa1}, std::byte{0x63}, std::byte{0xd7}};

// Which journal it is: each transaction's has a random number, also where one file serves them all. The count of records grows within one.
struct JournalId {
  FileId file;
  std::array<std::byte, 16> header{};  // nonce and sizes
  friend bool operator==(const JournalId&, const JournalId&) = default;
};

// SQLite would roll it back if nobody had a lock. One that is empty, or whose header was not written yet or is cleared, it leaves alone:
// nothing.
std::optional<JournalId> FindHotJournal(const std::string& path);

// It is of the first transaction of a database: rolled back, nothing is left of the file, whatever is in it. Its pages go into the file as
// they find no room in memory, and page 1, with all by which a database is known, is the last of them.
bool IsOfFirstTransaction(const std::string& path);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_HOT_JOURNAL_H_
