// litefleet-check: SQLite reads what a device has made here, without any rights (design law 12). Started by common/check, common/dump,
// common/copy and common/files.
//
//   check HEAP LENGTH SECONDS MESSAGES [part] SQLite's checks on the database behind descriptor 3; answers on standard output
//   dump|csv|tables HEAP LENGTH SECONDS SOURCE [compatible] [schema-only] [data-only] [part] [table=NAME]... [without=NAME]...
//                                             text on standard output, answers on standard error; SOURCE is "file", a database behind
//                                             descriptor 3, or its BYTES, and descriptor 3 is a channel (common/dump/page_channel.h)
//   load HEAP LENGTH SECONDS BYTES FILES      SQL text on standard input becomes a database of at most BYTES behind descriptor 3, with
//                                             FILES temporary files behind 4, 5 ...; answers on standard output
//   copy PATH FILES                           copies database files to descriptors 3, 4 ... (common/copy/copy_server.h): with the rights of
//                                             who started it, without SQLite, and without a look at their content
//   pack ROOT FILE_BYTES BYTES FILES [list] [tolerant] [include=GLOB]... [exclude=GLOB]... [database=PATH]...
//                                             an archive of these files, or a list of them, on standard output, answers on standard error:
//                                             with the rights of who started it, and without a look at their content
//                                             (common/archive/pack.h)
//   unpack HEAP LENGTH SECONDS archive        an archive on standard input becomes frames on standard output (common/files/entry.h),
//   answers
//                                             on standard error
//   merge HEAP LENGTH SECONDS BYTES FILES [may-break-keys] table=NAME...
//                                             as load, into the database behind descriptor 3, whose tables of these names are replaced
//
// Answers are lines of at most 1 KiB: "progress BYTES", "message TEXT", and last "verdict WORD": ok, damaged, cannot_tell, refused,
// broken_keys, changed or failed. Messages of pack begin with "reason ", "text ", "newest " or "note ". An answer without a verdict is a
// failure. Exit code 0 when a verdict was given.
#include <signal.h>
#include <sqlite3.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "common/archive/pack.h"
#include "common/archive/unpack.h"
#include "common/base/utf8.h"
#include "common/check/read_only_vfs.h"
#include "common/check/sandbox.h"
#include "common/check/sqlite_checks.h"
#include "common/copy/copy_server.h"
#include "common/dump/dump_writer.h"
#include "common/dump/load_vfs.h"
#include "common/dump/loader.h"
#include "common/dump/page_channel.h"
#include "common/dump/query.h"

namespace {

using litefleet::check::Limits;
using litefleet::check::State;
using litefleet::dump::End;
using litefleet::dump::Ended;
using Clock = std::chrono::steady_clock;

constexpr int kDatabaseFd = 3;
constexpr char kName[] = "database";
constexpr size_t kMaxMessage = 900;
constexpr size_t kMaxStatement = 16 << 20;  // of a schema
constexpr int64_t kOwnMemory = 256 << 20;   // of the address space, for code, stacks and libraries

int answers = STDOUT_FILENO;

// Arguments are our own: one that is no number counts as 0.
int64_t Number(std::string_view word) {
  int64_t number = 0;
  std::from_chars(word.data(), word.data() + word.size(), number);
  return number;
}

bool WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return true;
}

void PrintLine(std::string line) {
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  if (!WriteAll(answers, litefleet::CleanUtf8(line, kMaxMessage) + "\n")) _exit(1);
}

const char* WordOf(State state) {
  switch (state) {
    case State::kOk:
      return "ok";
    case State::kDamaged:
      return "damaged";
    case State::kCannotTell:
      return "cannot_tell";
    case State::kFailed:
      return "failed";
  }
  return "failed";
}

const char* WordOf(End end) {
  switch (end) {
    case End::kOk:
      return "ok";
    case End::kDamaged:
      return "damaged";
    case End::kRefused:
      return "refused";
    case End::kNoTable:
      return "no_table";
    case End::kNoPart:
      return "no_part";
    case End::kBrokenKeys:
      return "broken_keys";
    case End::kFailed:
      return "failed";
  }
  return "failed";
}

int Give(const Ended& ended) {
  if (!ended.message.empty()) PrintLine("message " + ended.message);
  PrintLine(std::string("verdict ") + WordOf(ended.end));
  return 0;
}

// What all modes begin with.
struct Arguments {
  Limits limits;
  std::vector<std::string> rest;
};

bool Enter(const Limits& limits, int64_t more_memory, int64_t file_bytes, int last_fd) {
  litefleet::check::SandboxLimits sandbox;
  sandbox.address_space_bytes = limits.heap_bytes + more_memory + kOwnMemory;
  sandbox.cpu_seconds = limits.time.count() + 10;
  sandbox.file_bytes = file_bytes;
  const std::string problem = litefleet::check::EnterSandbox(sandbox, last_fd);
  if (problem.empty()) return true;
  PrintLine("message the sandbox could not be closed: " + problem);
  PrintLine("verdict failed");
  return false;
}

int OutOfTime(void* deadline) { return Clock::now() >= *static_cast<Clock::time_point*>(deadline) ? 1 : 0; }

// A connection with what every foreign database gets.
sqlite3* Open(const char* name, const char* vfs, const Limits& limits, Clock::time_point& deadline, Ended& ended) {
  sqlite3_hard_heap_limit64(limits.heap_bytes);
  sqlite3* db = nullptr;
  const int code = sqlite3_open_v2(name, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs);
  if (code != SQLITE_OK) {
    ended = litefleet::dump::EndOf(db, code, "open the database");
    return db;
  }
  sqlite3_extended_result_codes(db, 1);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
  sqlite3_limit(db, SQLITE_LIMIT_LENGTH, static_cast<int>(std::min<int64_t>(limits.length_bytes, 1 << 30)));
  sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_limit(db, SQLITE_LIMIT_WORKER_THREADS, 0);
  sqlite3_progress_handler(db, 1000, &OutOfTime, &deadline);
  return db;
}

bool Prepare(sqlite3* db, std::initializer_list<const char*> pragmas, Ended& ended) {
  for (const char* pragma : pragmas) {
    const int code = sqlite3_exec(db, pragma, nullptr, nullptr, nullptr);
    if (code != SQLITE_OK) ended = litefleet::dump::EndOf(db, code, "open the database");
    if (code != SQLITE_OK) return false;
  }
  return true;
}

Ended InTime(Ended ended, Clock::time_point deadline) {
  if (ended.end != End::kOk && Clock::now() >= deadline) ended = {End::kFailed, "it took longer than its time limit"};
  return ended;
}

int Check(const Arguments& arguments) {
  Limits limits = arguments.limits;
  limits.max_messages = static_cast<int>(Number(arguments.rest[0]));
  limits.part = arguments.rest.size() > 1 && arguments.rest[1] == "part";
  if (!Enter(limits, 0, 0, kDatabaseFd)) return 0;
  const litefleet::check::Verdict verdict =
      litefleet::check::RunChecks(kDatabaseFd, limits, [](int64_t bytes) { PrintLine("progress " + std::to_string(bytes)); });
  for (const std::string& message : verdict.messages) PrintLine("message " + message);
  PrintLine(std::string("verdict ") + WordOf(verdict.state));
  return 0;
}

int Dump(const std::string& mode, const Arguments& arguments) {
  answers = STDERR_FILENO;
  litefleet::dump::DumpOptions options;
  bool part = false;
  for (size_t i = 1; i < arguments.rest.size(); ++i) {
    const std::string& word = arguments.rest[i];
    if (word == "compatible") options.compatible = true;
    if (word == "schema-only") options.schema_only = true;
    if (word == "data-only") options.data_only = true;
    if (word == "part") part = true;
    if (word.starts_with("table=")) options.tables.push_back(word.substr(6));
    if (word.starts_with("without=")) options.without.push_back(word.substr(8));
  }
  if (!Enter(arguments.limits, 0, 0, kDatabaseFd)) return 0;
  Clock::time_point deadline = Clock::now() + arguments.limits.time;
  const std::string& source = arguments.rest[0];
  litefleet::dump::ChannelReader channel(kDatabaseFd, static_cast<uint64_t>(Number(source)));
  const int served = source == "file" ? litefleet::check::RegisterReadOnlyVfs(kDatabaseFd)
                                      : litefleet::check::RegisterReadOnlyVfs(
                                            Number(source), [&](int64_t at, void* out, int bytes) { return channel.Read(at, out, bytes); });
  if (served != SQLITE_OK) return Give({End::kFailed, "SQLite could not be initialised"});
  Ended ended;
  sqlite3* const db = Open(kName, litefleet::check::kReadOnlyVfsName, arguments.limits, deadline, ended);
  if (ended.end == End::kOk) {
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
    Prepare(
        db,
        {"pragma temp_store=memory", "pragma mmap_size=0", "pragma cell_size_check=on", "pragma cache_size=-4000", "pragma query_only=on"},
        ended);
  }
  litefleet::dump::TextOutput out([](std::string_view text) { return WriteAll(STDOUT_FILENO, text); });
  if (ended.end == End::kOk && mode == "dump") ended = part ? WritePart(db, options.tables, out) : WriteDump(db, options, out);
  if (ended.end == End::kOk && mode == "tables") ended = WriteTableNames(db, out);
  if (ended.end == End::kOk && mode == "csv")
    ended = options.tables.size() == 1 ? WriteCsv(db, options.tables[0], out) : Ended{End::kRefused, "no table"};
  // Who takes the text may want to know.
  if (ended.end == End::kOk && mode == "dump" && !part && !options.data_only) {
    Ended made;
    sqlite3* const empty = Open(":memory:", litefleet::check::kReadOnlyVfsName, arguments.limits, deadline, made);
    if (made.end == End::kOk) made = TrySchema(db, options, {.statement_bytes = kMaxStatement}, empty);
    sqlite3_close(empty);
    if (made.end == End::kRefused) ended.message = made.message;
  }
  sqlite3_close(db);
  return Give(InTime(std::move(ended), deadline));
}

int Load(const Arguments& arguments, bool merge) {
  litefleet::dump::MergeOptions options;
  for (size_t i = 2; i < arguments.rest.size(); ++i) {
    if (arguments.rest[i] == "may-break-keys") options.may_break_keys = true;
    if (arguments.rest[i].starts_with("table=")) options.tables.push_back(arguments.rest[i].substr(6));
  }
  std::vector<int> temporary;
  for (int i = 0; i < std::clamp(static_cast<int>(Number(arguments.rest[1])), 0, 32); ++i) temporary.push_back(kDatabaseFd + 1 + i);
  // A literal has twice the digits of its bytes, and a string grows by doubling.
  const litefleet::dump::LoadLimits limits{.statement_bytes = static_cast<size_t>(arguments.limits.length_bytes) * 2 + (1 << 20)};
  if (!Enter(arguments.limits, static_cast<int64_t>(limits.statement_bytes) * 3, std::max<int64_t>(Number(arguments.rest[0]), 1),
             kDatabaseFd + static_cast<int>(temporary.size())))
    return 0;
  Clock::time_point deadline = Clock::now() + arguments.limits.time;
  if (litefleet::dump::RegisterLoadVfs(kDatabaseFd, temporary) != SQLITE_OK) return Give({End::kFailed, "SQLite could not be initialised"});
  Ended ended;
  sqlite3* const db = Open(kName, litefleet::dump::kLoadVfsName, arguments.limits, deadline, ended);
  if (ended.end == End::kOk) {
    sqlite3_limit(db, SQLITE_LIMIT_SQL_LENGTH,
                  static_cast<int>(std::min<int64_t>(static_cast<int64_t>(limits.statement_bytes), 1'000'000'000)));
    Prepare(db,
            {"pragma journal_mode=off", "pragma synchronous=off", "pragma locking_mode=exclusive", "pragma temp_store=file",
             "pragma cache_size=-32000", "pragma mmap_size=0"},
            ended);
  }
  std::array<char, 65536> piece{};
  int64_t bytes = 0;
  Clock::time_point said = Clock::now();
  const auto read_text = [&](std::string_view& text) {
    ssize_t n = -1;
    do {
      n = read(STDIN_FILENO, piece.data(), piece.size());
    } while (n < 0 && errno == EINTR);
    if (n < 0) return false;
    text = std::string_view(piece.data(), static_cast<size_t>(n));
    bytes += n;
    if (const Clock::time_point now = Clock::now(); now - said > std::chrono::milliseconds(200)) {
      said = now;
      PrintLine("progress " + std::to_string(bytes));
    }
    return true;
  };
  if (ended.end == End::kOk) ended = merge ? MergeText(db, options, limits, read_text) : LoadText(db, limits, read_text);
  const int closed = sqlite3_close(db);
  if (ended.end == End::kOk && closed != SQLITE_OK) ended = {End::kFailed, "the database could not be closed"};
  return Give(InTime(std::move(ended), deadline));
}

int PackFiles(const std::vector<std::string>& words) {
  answers = STDERR_FILENO;
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  litefleet::archive::PackOptions options;
  options.root = words[1];
  options.rules.max_file_bytes = Number(words[2]);
  options.rules.max_bytes = Number(words[3]);
  options.rules.max_files = Number(words[4]);
  for (size_t i = 5; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "list") options.list_only = true;
    if (word == "tolerant") options.tolerant = true;
    if (word.starts_with("include=")) options.rules.include.push_back(word.substr(8));
    if (word.starts_with("exclude=")) options.rules.exclude.push_back(word.substr(8));
    if (word.starts_with("database=")) options.rules.databases.push_back(word.substr(9));
  }
  const litefleet::archive::Packed packed =
      litefleet::archive::Pack(options, [](std::string_view piece) { return WriteAll(STDOUT_FILENO, piece); });
  if (!packed.reason.empty()) PrintLine("message reason " + packed.reason);
  if (!packed.text.empty()) PrintLine("message text " + packed.text);
  PrintLine("message newest " + std::to_string(packed.newest_ms));
  for (const std::string& note : packed.notes) PrintLine("message note " + note);
  using litefleet::archive::PackEnd;
  const char* const word = packed.end == PackEnd::kOk        ? "ok"
                           : packed.end == PackEnd::kRefused ? "refused"
                           : packed.end == PackEnd::kChanged ? "changed"
                                                             : "failed";
  PrintLine(std::string("verdict ") + word);
  return 0;
}

int UnpackFiles(const Arguments& arguments) {
  answers = STDERR_FILENO;
  if (!Enter(arguments.limits, 0, 0, STDERR_FILENO)) return 0;
  std::array<char, 65536> piece{};
  const auto read_archive = [&](std::string_view& text) {
    ssize_t n = -1;
    do {
      n = read(STDIN_FILENO, piece.data(), piece.size());
    } while (n < 0 && errno == EINTR);
    if (n >= 0) text = std::string_view(piece.data(), static_cast<size_t>(n));
    return n >= 0;
  };
  const std::string problem =
      litefleet::archive::Unpack(read_archive, [](std::string_view frame) { return WriteAll(STDOUT_FILENO, frame); });
  return Give({problem.empty() ? End::kOk : End::kDamaged, problem});
}

}  // namespace

int main(int argc, char** argv) {
  // A file that may not grow any more is an error that SQLite tells, and not the end.
  signal(SIGXFSZ, SIG_IGN);
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string mode = words.empty() ? std::string() : words[0];
  Arguments arguments;
  if (words.size() >= 5) {
    arguments.limits.heap_bytes = Number(words[1]);
    arguments.limits.length_bytes = Number(words[2]);
    arguments.limits.time = std::chrono::seconds(Number(words[3]));
    arguments.rest.assign(words.begin() + 4, words.end());
    // No handler of an exit runs in the sandbox, where it could do nothing but spoil the answer.
    if (mode == "check") _exit(Check(arguments));
    if (mode == "dump" || mode == "csv" || mode == "tables") _exit(Dump(mode, arguments));
    if (mode == "load" && arguments.rest.size() == 2) _exit(Load(arguments, false));
    if (mode == "unpack") _exit(UnpackFiles(arguments));
    if (mode == "merge" && arguments.rest.size() > 2) _exit(Load(arguments, true));
  }
  if (mode == "copy" && words.size() == 3) {
    std::vector<int> files;
    for (int i = 0; i < std::clamp(static_cast<int>(Number(words[2])), 0, 8); ++i) files.push_back(kDatabaseFd + i);
    _exit(litefleet::copy::ServeCopies(words[1], STDIN_FILENO, STDOUT_FILENO, files));
  }
  if (mode == "pack" && words.size() >= 5) _exit(PackFiles(words));
  // Not for people: the arguments come in a fixed order.
  WriteAll(STDERR_FILENO, "litefleet-check is started by litefleet; see common/helper/main.cc for its arguments\n");
  return 2;
}
