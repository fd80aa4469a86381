// An application that keeps writing, with invariants that any torn, mixed or lost state breaks, and a check of them.
//
//   ledger_writer run PATH [--journal wal|delete] [--synchronous full] [--autocheckpoint PAGES] [--rate 200] [--seconds 0]
//                          [--accounts 1000] [--fill 0] [--busy-timeout-ms 60000] [--log FILE] [--latencies FILE] [--ready-file FILE]
//   ledger_writer check PATH [--at-least SEQ]
//
// `run` makes the tables where they are missing and commits one transfer between two accounts at a time, until SIGTERM or for so many
// seconds; it reads all its state from the database, so that a database that was restored under it is simply continued. Ticks that a
// stall has missed are skipped, not caught up. At its end it prints one JSON document with the commit latencies.
// --log gets a line "SEQ UNIX_MS" after every commit has returned; --latencies a line of microseconds for each commit.
// `check` opens read-only and prints a JSON document; exit 1: an invariant does not hold.
//
// Invariants: the balances keep their sum; transfers are numbered 1..n without holes and n is the ledger's counter; every balance is
// what its transfers make it; `pragma integrity_check` says ok.
#include <sqlite3.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

using std::chrono::microseconds;
using std::chrono::steady_clock;

constexpr int64_t kOpening = 1'000'000;
constexpr int kFillRow = 2000;

volatile std::sig_atomic_t stopped = 0;

struct Options {
  std::string path;
  std::string journal = "wal";
  std::string synchronous = "full";
  int autocheckpoint = 1000;
  double rate = 200;
  double seconds = 0;
  int accounts = 1000;
  uint64_t fill = 0;
  int busy_timeout_ms = 60'000;
  std::string log;
  std::string latencies;
  std::string ready_file;
  int64_t at_least = 0;
};

absl::Status MakeTables(sqlite3* db, const Options& options) {
  LF_RETURN_IF_ERROR(sqlite::Execute(
      db,
      "begin immediate;"
      "create table if not exists account(id integer primary key, balance integer not null);"
      "create table if not exists transfer(seq integer primary key, source integer, target integer, amount integer, at_ms integer);"
      "create table if not exists ledger(id integer primary key check(id = 1), accounts integer, seq integer);"
      "create table if not exists filler(id integer primary key, data blob);"));
  LF_ASSIGN_OR_RETURN(const int64_t known, sqlite::QueryInt(db, "select count(*) from ledger"));
  if (known == 0) {
    LF_RETURN_IF_ERROR(sqlite::Execute(
        db, fmt::format(
                "with recursive n(i) as (select 1 union all select i + 1 from n where i < {0}) insert into account select i, {1} from n;"
                "insert into ledger values(1, {0}, 0);",
                options.accounts, kOpening)));
    if (options.fill > 0) {
      LF_RETURN_IF_ERROR(
          sqlite::Execute(db, fmt::format("with recursive n(i) as (select 1 union all select i + 1 from n where i < {}) insert into filler "
                                          "select i, randomblob({}) from n;",
                                          std::max<uint64_t>(1, options.fill / kFillRow), kFillRow)));
    }
  }
  return sqlite::Execute(db, "commit");
}

// The writer's statements, prepared once.
struct Writer {
  sqlite::Statement begin, accounts, debit, credit, next, insert, commit, rollback;

  static absl::StatusOr<Writer> Prepare(sqlite3* db) {
    const auto prepare = [db](std::string_view sql) { return sqlite::Statement::Prepare(db, sql, true); };
    LF_ASSIGN_OR_RETURN(auto begin, prepare("begin immediate"));
    LF_ASSIGN_OR_RETURN(auto accounts, prepare("select accounts, seq from ledger where id = 1"));
    LF_ASSIGN_OR_RETURN(auto debit, prepare("update account set balance = balance - ? where id = ?"));
    LF_ASSIGN_OR_RETURN(auto credit, prepare("update account set balance = balance + ? where id = ?"));
    LF_ASSIGN_OR_RETURN(auto next, prepare("update ledger set seq = seq + 1 where id = 1"));
    LF_ASSIGN_OR_RETURN(auto insert, prepare("insert into transfer values(?, ?, ?, ?, ?)"));
    LF_ASSIGN_OR_RETURN(auto commit, prepare("commit"));
    LF_ASSIGN_OR_RETURN(auto rollback, prepare("rollback"));
    return Writer{std::move(begin), std::move(accounts), std::move(debit),  std::move(credit),
                  std::move(next),  std::move(insert),   std::move(commit), std::move(rollback)};
  }

  // The number of the transfer that was committed.
  absl::StatusOr<int64_t> Transfer(std::mt19937_64& random) {
    LF_RETURN_IF_ERROR(begin.Run());
    absl::StatusOr<int64_t> seq = InTransaction(random);
    if (!seq.ok()) {
      (void)rollback.Run();
      return seq;
    }
    if (absl::Status status = commit.Run(); !status.ok()) {
      (void)rollback.Run();
      return status;
    }
    return seq;
  }

 private:
  absl::StatusOr<int64_t> InTransaction(std::mt19937_64& random) {
    LF_ASSIGN_OR_RETURN(const bool row, accounts.Step());
    if (!row) return Error(absl::StatusCode::kDataLoss, "LEDGER_GONE", "the ledger's row is gone");
    const auto count = static_cast<uint64_t>(accounts.Int(0));
    const int64_t seq = accounts.Int(1) + 1;
    accounts.Reset();
    const auto source = static_cast<int64_t>(random() % count) + 1;
    const auto target = static_cast<int64_t>(random() % count) + 1;
    const auto amount = static_cast<int64_t>(random() % 1000);
    const auto now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
    debit.Bind(1, amount).Bind(2, source);
    LF_RETURN_IF_ERROR(debit.Run());
    credit.Bind(1, amount).Bind(2, target);
    LF_RETURN_IF_ERROR(credit.Run());
    LF_RETURN_IF_ERROR(next.Run());
    insert.Bind(1, seq).Bind(2, source).Bind(3, target).Bind(4, amount).Bind(5, int64_t{now});
    LF_RETURN_IF_ERROR(insert.Run());
    return seq;
  }
};

double Percentile(const std::vector<int64_t>& sorted_us, double share) {
  if (sorted_us.empty()) return 0;
  const auto at = static_cast<size_t>(share * static_cast<double>(sorted_us.size()));
  return static_cast<double>(sorted_us[std::min(at, sorted_us.size() - 1)]) / 1000.0;
}

absl::Status Run(const Options& options) {
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle db, sqlite::Open(options.path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  LF_RETURN_IF_ERROR(sqlite::Execute(
      db.get(), fmt::format("pragma busy_timeout={}; pragma journal_mode={}; pragma synchronous={}; pragma wal_autocheckpoint={}",
                            options.busy_timeout_ms, options.journal, options.synchronous, options.autocheckpoint)));
  LF_RETURN_IF_ERROR(MakeTables(db.get(), options));
  std::FILE* log = options.log.empty() ? nullptr : std::fopen(options.log.c_str(), "ae");
  if (!options.ready_file.empty()) {
    if (std::FILE* ready = std::fopen(options.ready_file.c_str(), "we")) std::fclose(ready);
  }
  LF_ASSIGN_OR_RETURN(Writer writer, Writer::Prepare(db.get()));
  std::mt19937_64 random(std::random_device{}());
  std::vector<int64_t> latencies;
  int64_t busy = 0;
  int64_t last = 0;
  const auto start = steady_clock::now();
  const auto period =
      std::chrono::duration_cast<steady_clock::duration>(std::chrono::duration<double>(options.rate > 0 ? 1.0 / options.rate : 0));
  const auto end = options.seconds > 0
                       ? start + std::chrono::duration_cast<steady_clock::duration>(std::chrono::duration<double>(options.seconds))
                       : steady_clock::time_point::max();
  auto tick = start;
  while (stopped == 0 && steady_clock::now() < end) {
    std::this_thread::sleep_until(tick);
    const auto before = steady_clock::now();
    const absl::StatusOr<int64_t> seq = writer.Transfer(random);
    const auto after = steady_clock::now();
    if (seq.ok()) {
      last = *seq;
      latencies.push_back(std::chrono::duration_cast<microseconds>(after - before).count());
      if (log != nullptr) {
        const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
        fmt::print(log, "{} {}\n", last, ms);
        std::fflush(log);
      }
    } else if (ReasonOf(seq.status()) == "DATABASE_BUSY") {
      ++busy;
    } else {
      return seq.status();
    }
    tick = std::max(tick + period, after);
  }
  if (log != nullptr) std::fclose(log);
  if (!options.latencies.empty()) {
    if (std::FILE* file = std::fopen(options.latencies.c_str(), "we")) {
      for (const int64_t us : latencies) fmt::print(file, "{}\n", us);
      std::fclose(file);
    }
  }
  const double seconds = std::chrono::duration<double>(steady_clock::now() - start).count();
  std::sort(latencies.begin(), latencies.end());
  fmt::print(
      "{{\"commits\":{},\"last_seq\":{},\"busy\":{},\"seconds\":{:.3f},\"rate\":{:.1f},\"p50_ms\":{:.3f},\"p99_ms\":{:.3f},"
      "\"p999_ms\":{:.3f},\"max_ms\":{:.3f}}}\n",
      latencies.size(), last, busy, seconds, static_cast<double>(latencies.size()) / seconds, Percentile(latencies, 0.5),
      Percentile(latencies, 0.99), Percentile(latencies, 0.999), latencies.empty() ? 0.0 : static_cast<double>(latencies.back()) / 1000.0);
  return absl::OkStatus();
}

absl::Status Check(const Options& options) {
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle db, sqlite::Open(options.path, SQLITE_OPEN_READONLY));
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "pragma busy_timeout=60000; begin"));
  std::string wrong;
  const auto expect = [&](std::string_view what, std::string_view sql, int64_t wanted) -> absl::Status {
    LF_ASSIGN_OR_RETURN(const int64_t is, sqlite::QueryInt(db.get(), sql));
    if (is != wanted) wrong += fmt::format("{}{}: {} instead of {}", wrong.empty() ? "" : "; ", what, is, wanted);
    return absl::OkStatus();
  };
  LF_ASSIGN_OR_RETURN(const int64_t seq, sqlite::QueryInt(db.get(), "select seq from ledger"));
  LF_ASSIGN_OR_RETURN(const int64_t accounts, sqlite::QueryInt(db.get(), "select accounts from ledger"));
  LF_RETURN_IF_ERROR(expect("accounts", "select count(*) from account", accounts));
  LF_RETURN_IF_ERROR(expect("sum of balances", "select coalesce(sum(balance), 0) from account", accounts * kOpening));
  LF_RETURN_IF_ERROR(expect("transfers", "select count(*) from transfer", seq));
  LF_RETURN_IF_ERROR(expect("last transfer", "select coalesce(max(seq), 0) from transfer", seq));
  LF_RETURN_IF_ERROR(expect("accounts that differ from their transfers",
                            fmt::format("select count(*) from account a where balance != {} "
                                        "+ coalesce((select sum(amount) from i where i.id = a.id), 0) "
                                        "- coalesce((select sum(amount) from o where o.id = a.id), 0)",
                                        kOpening)
                                .insert(0,
                                        "with i(id, amount) as materialized (select target, sum(amount) from transfer group by 1), "
                                        "o(id, amount) as materialized (select source, sum(amount) from transfer group by 1) "),
                            0));
  if (seq < options.at_least) wrong += fmt::format("{}last transfer {} is before {}", wrong.empty() ? "" : "; ", seq, options.at_least);
  LF_ASSIGN_OR_RETURN(sqlite::Statement integrity, sqlite::Statement::Prepare(db.get(), "pragma integrity_check(5)"));
  for (;;) {
    LF_ASSIGN_OR_RETURN(const bool row, integrity.Step());
    if (!row) break;
    if (integrity.Text(0) != "ok") wrong += fmt::format("{}integrity_check: {}", wrong.empty() ? "" : "; ", integrity.Text(0));
  }
  fmt::print("{{\"ok\":{},\"seq\":{},\"accounts\":{}}}\n", wrong.empty(), seq, accounts);
  if (!wrong.empty()) return Error(absl::StatusCode::kDataLoss, "INVARIANT_BROKEN", options.path + ": " + wrong);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("A writer with invariants, and their check");
  app.require_subcommand(1);
  Options options;
  CLI::App* run = app.add_subcommand("run");
  run->add_option("path", options.path)->required();
  run->add_option("--journal", options.journal)->check(CLI::IsMember({"wal", "delete", "truncate", "persist"}));
  run->add_option("--synchronous", options.synchronous);
  run->add_option("--autocheckpoint", options.autocheckpoint, "pages of WAL; 0: it never checkpoints");
  run->add_option("--rate", options.rate, "commits a second; 0: as fast as it goes");
  run->add_option("--seconds", options.seconds, "0: until SIGTERM");
  run->add_option("--accounts", options.accounts);
  run->add_option("--fill", options.fill, "bytes of other data in the database")->transform(CLI::AsSizeValue(false));
  run->add_option("--busy-timeout-ms", options.busy_timeout_ms);
  run->add_option("--log", options.log);
  run->add_option("--latencies", options.latencies);
  run->add_option("--ready-file", options.ready_file);
  CLI::App* check = app.add_subcommand("check");
  check->add_option("path", options.path)->required();
  check->add_option("--at-least", options.at_least);
  CLI11_PARSE(app, argc, argv);
  std::signal(SIGTERM, [](int) { stopped = 1; });
  std::signal(SIGINT, [](int) { stopped = 1; });
  const absl::Status status = *run ? Run(options) : Check(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "ledger_writer: {}\n", MessageOf(status));
  return 1;
}

}  // namespace
}  // namespace litefleet

int main(int argc, char** argv) { return litefleet::Main(argc, argv); }
