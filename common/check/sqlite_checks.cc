#include "common/check/sqlite_checks.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "common/check/read_only_vfs.h"

namespace litefleet::check {
namespace {

constexpr size_t kMaxMessageBytes = 240;

using Clock = std::chrono::steady_clock;

class Checks {
 public:
  Checks(const Limits& limits, const std::function<void(int64_t)>& progress)
      : limits_(limits), progress_(progress), deadline_(Clock::now() + limits.time) {}
  ~Checks() {
    if (db_ != nullptr) sqlite3_close(db_);
  }
  Checks(const Checks&) = delete;
  Checks& operator=(const Checks&) = delete;

  Verdict Run();

 private:
  // What a statement ended with.
  enum class End { kDone, kDamaged, kNeedsApplication, kTooLarge, kFailed };

  static int OnProgress(void* self) { return static_cast<Checks*>(self)->Tick(); }
  int Tick();
  bool Open();
  void ReadTableNames();
  bool CheckTables(bool everything);
  void CheckForeignKeys();
  // Calls `row` for each row; keeps SQLite's words of an error in last_error_.
  End Query(const std::string& sql, const std::function<void(sqlite3_stmt*)>& row);
  End EndOf(int code);
  End IntegrityCheck(const std::string& pragma, const std::string& table);
  void Say(std::string_view message);
  static std::string Quote(std::string_view name);
  static std::string ColumnText(sqlite3_stmt* statement, int column);

  const Limits& limits_;
  const std::function<void(int64_t)>& progress_;
  const Clock::time_point deadline_;
  Clock::time_point next_report_{};
  sqlite3* db_ = nullptr;
  bool out_of_time_ = false;
  std::string last_error_;
  std::vector<std::string> tables_;
  bool damaged_ = false;
  bool cannot_tell_ = false;
  bool failed_ = false;
  Verdict verdict_;
};

int Checks::Tick() {
  const auto now = Clock::now();
  if (now >= next_report_) {
    next_report_ = now + std::chrono::milliseconds(200);
    progress_(ReadOnlyVfsBytes());
  }
  if (now < deadline_) return 0;
  out_of_time_ = true;
  return 1;
}

void Checks::Say(std::string_view message) {
  if (verdict_.messages.size() >= static_cast<size_t>(limits_.max_messages)) return;
  const std::string text(message.substr(0, kMaxMessageBytes));
  if (std::find(verdict_.messages.begin(), verdict_.messages.end(), text) == verdict_.messages.end()) verdict_.messages.push_back(text);
}

std::string Checks::Quote(std::string_view name) {
  std::string quoted = "\"";
  for (const char c : name) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + '"';
}

std::string Checks::ColumnText(sqlite3_stmt* statement, int column) {
  const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, column));
  return text == nullptr ? std::string() : std::string(text, static_cast<size_t>(sqlite3_column_bytes(statement, column)));
}

Checks::End Checks::EndOf(int code) {
  last_error_ = db_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(db_);
  if (last_error_.size() > kMaxMessageBytes) last_error_.resize(kMaxMessageBytes);
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_DONE:
    case SQLITE_ROW:
      return End::kDone;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      return End::kDamaged;
    case SQLITE_ERROR:
      return End::kNeedsApplication;
    case SQLITE_TOOBIG:
      last_error_ = "a row, a text or a blob has more than " + std::to_string(limits_.length_bytes) + " bytes, the limit of the check";
      return End::kTooLarge;
    case SQLITE_INTERRUPT:
      if (out_of_time_) last_error_ = "the check took longer than its time limit";
      return End::kFailed;
    default:
      return End::kFailed;
  }
}

Checks::End Checks::Query(const std::string& sql, const std::function<void(sqlite3_stmt*)>& row) {
  sqlite3_stmt* raw = nullptr;
  int code = sqlite3_prepare_v2(db_, sql.c_str(), static_cast<int>(sql.size()), &raw, nullptr);
  const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(raw, sqlite3_finalize);
  if (code != SQLITE_OK) return EndOf(code);
  while ((code = sqlite3_step(raw)) == SQLITE_ROW) row(raw);
  return EndOf(code);
}

bool Checks::Open() {
  sqlite3_hard_heap_limit64(limits_.heap_bytes);
  const int code = sqlite3_open_v2("database", &db_, SQLITE_OPEN_READWRITE, kReadOnlyVfsName);
  if (code != SQLITE_OK) {
    EndOf(code);
    return false;
  }
  sqlite3_extended_result_codes(db_, 1);
  int ignored = 0;
  sqlite3_db_config(db_, SQLITE_DBCONFIG_DEFENSIVE, 1, &ignored);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, &ignored);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, &ignored);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, &ignored);
  sqlite3_db_config(db_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, &ignored);
  sqlite3_limit(db_, SQLITE_LIMIT_LENGTH, static_cast<int>(std::min<int64_t>(limits_.length_bytes, 1 << 30)));
  sqlite3_limit(db_, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_limit(db_, SQLITE_LIMIT_WORKER_THREADS, 0);
  sqlite3_progress_handler(db_, 1000, &Checks::OnProgress, this);
  for (const char* pragma : {"pragma temp_store=memory", "pragma cell_size_check=on", "pragma mmap_size=0", "pragma cache_size=-16000",
                             "pragma query_only=on"}) {
    if (Query(pragma, [](sqlite3_stmt*) {}) != End::kDone) return false;
  }
  return true;
}

// `pragma` is integrity_check or quick_check; `table` empty: everything.
Checks::End Checks::IntegrityCheck(const std::string& pragma, const std::string& table) {
  const std::string argument = table.empty() ? std::to_string(limits_.max_messages) : Quote(table);
  return Query("pragma " + pragma + "(" + argument + ")", [&](sqlite3_stmt* row) {
    const std::string message = ColumnText(row, 0);
    if (message == "ok") return;
    damaged_ = true;
    Say(message);
  });
}

void Checks::ReadTableNames() {
  const End end = Query("select name, type, sql from sqlite_schema where type = 'table' limit 100000", [&](sqlite3_stmt* row) {
    const std::string sql = ColumnText(row, 2);
    if (sqlite3_strnicmp(sql.c_str(), "create virtual", 14) != 0) {
      tables_.push_back(ColumnText(row, 0));
      return;
    }
  });
  if (end == End::kDamaged) {
    damaged_ = true;
    Say(last_error_);
  }
  // A virtual table whose module is not here: its shadow tables are checked as tables, what they mean cannot be.
  std::vector<std::string> modules;
  if (Query("select lower(name) from pragma_module_list", [&](sqlite3_stmt* row) { modules.push_back(ColumnText(row, 0)); }) != End::kDone)
    return;
  Query("select name, sql from sqlite_schema where type = 'table' and sql like 'create virtual%' limit 1000", [&](sqlite3_stmt* row) {
    const std::string sql = ColumnText(row, 1);
    for (size_t at = 0; at + 7 < sql.size(); ++at) {
      // CREATE VIRTUAL TABLE name USING module(...), as somebody wrote it.
      if (sqlite3_strnicmp(sql.c_str() + at, "using", 5) != 0 || at == 0 || std::strchr(" \t\n\r\"]'`", sql[at - 1]) == nullptr) continue;
      size_t begin = sql.find_first_not_of(" \t\n\r\"[`'", at + 5);
      if (begin == std::string::npos || begin == at + 5) continue;
      const size_t end_of_name = sql.find_first_of(" \t\n\r(\"]`';", begin);
      std::string module = sql.substr(begin, end_of_name == std::string::npos ? std::string::npos : end_of_name - begin);
      for (char& c : module) {
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      }
      if (std::find(modules.begin(), modules.end(), module) == modules.end()) {
        cannot_tell_ = true;
        Say("table " + ColumnText(row, 0) + " needs the module " + module);
      }
      return;
    }
  });
}

// Table by table; with the application's own functions or collations missing, or with values above the limit, the structure alone.
bool Checks::CheckTables(bool everything) {
  for (const std::string& table : tables_) {
    End end = IntegrityCheck(everything ? "integrity_check" : "quick_check", table);
    if ((end == End::kNeedsApplication || end == End::kTooLarge) && everything) {
      cannot_tell_ = true;
      Say("table " + table + ": " + last_error_);
      Query("pragma ignore_check_constraints=on", [](sqlite3_stmt*) {});
      end = IntegrityCheck("quick_check", table);
      Query("pragma ignore_check_constraints=off", [](sqlite3_stmt*) {});
    }
    if (end == End::kDamaged) {
      damaged_ = true;
      Say(last_error_);
    }
    if (end == End::kFailed) {
      failed_ = true;
      Say(last_error_);
      return false;
    }
  }
  return true;
}

void Checks::CheckForeignKeys() {
  std::string child, parent;  // of the last row, of which there may be many alike
  bool missing = false;
  const auto is_missing = [&](const std::string& table) {
    return std::none_of(tables_.begin(), tables_.end(),
                        [&](const std::string& each) { return sqlite3_stricmp(each.c_str(), table.c_str()) == 0; });
  };
  const End end = Query("pragma foreign_key_check", [&](sqlite3_stmt* row) {
    if (limits_.part) {
      if (std::string from = ColumnText(row, 0), to = ColumnText(row, 2); from != child || to != parent) {
        missing = is_missing(to);
        if (missing) Say("rows of table " + from + " refer to table " + to + ", which is not among them");
        child = std::move(from);
        parent = std::move(to);
      }
      if (missing) return;
    }
    damaged_ = true;
    const std::string where = sqlite3_column_type(row, 1) == SQLITE_NULL ? "a row" : "row " + ColumnText(row, 1);
    Say("foreign key: " + where + " of " + ColumnText(row, 0) + " has no parent in " + ColumnText(row, 2));
    if (verdict_.messages.size() >= static_cast<size_t>(limits_.max_messages)) sqlite3_interrupt(db_);
  });
  if (end == End::kDone || (end == End::kFailed && damaged_)) return;
  if (end == End::kDamaged) damaged_ = true;
  if (end == End::kNeedsApplication || end == End::kTooLarge) cannot_tell_ = true;
  if (end == End::kFailed) failed_ = true;
  Say("foreign_key_check: " + last_error_);
}

Verdict Checks::Run() {
  if (Open()) {
    const End end = IntegrityCheck("integrity_check", "");
    const std::string why = last_error_;
    if (end == End::kFailed) failed_ = true;
    if (end == End::kDamaged) damaged_ = true;
    if (end == End::kFailed || end == End::kDamaged) {
      Say(why);
    } else {
      ReadTableNames();
      if (end != End::kDone) cannot_tell_ = true;
      if (end == End::kDone || CheckTables(true)) CheckForeignKeys();
      if (cannot_tell_ && verdict_.messages.empty()) Say(why);
    }
  } else {
    (EndOf(sqlite3_errcode(db_)) == End::kDamaged ? damaged_ : failed_) = true;
    Say(last_error_);
  }
  verdict_.state = damaged_ ? State::kDamaged : failed_ ? State::kFailed : cannot_tell_ ? State::kCannotTell : State::kOk;
  progress_(ReadOnlyVfsBytes());
  return std::move(verdict_);
}

}  // namespace

Verdict RunChecks(int fd, const Limits& limits, const std::function<void(int64_t)>& progress) {
  struct stat st {};
  if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return {State::kFailed, {"not a regular file"}};
  if (RegisterReadOnlyVfs(fd) != SQLITE_OK) return {State::kFailed, {"SQLite could not be initialised"}};
  return Checks(limits, progress).Run();
}

}  // namespace litefleet::check
