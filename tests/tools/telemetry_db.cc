// Makes databases as a device collecting telemetry has them: rows with JSON, an index, WAL mode, and about 0.42 of their size left
// after zstd -1. The same arguments give the same rows.
//
//   telemetry_db create PATH --size 1GiB [--page-size 4096] [--journal wal|delete] [--seed N]
//   telemetry_db mutate PATH [--append 0.005] [--update 0.0005] [--seed N]     shares of the rows that are there
//
// `create` refuses a path that exists. Both leave the database checkpointed and closed, without files beside it.
#include <sqlite3.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>

#include "common/base/status.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr int64_t kFirstTime = 1'760'000'000'000;  // ms; fixed, so that databases are the same everywhere
constexpr int kDevices = 400;
constexpr int kTraceWords = 14;
constexpr int kRowsPerTransaction = 20'000;

// Samples as base64: what compression cannot take away.
std::string Trace(std::mt19937_64& random) {
  constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string trace;
  for (int word = 0; word < kTraceWords; ++word) {
    uint64_t bits = random();
    for (int i = 0; i < 10; ++i, bits >>= 6) trace += kAlphabet[bits & 63];
  }
  return trace;
}

// One reading as a small device writes it: most of it repeats, the measured digits do not.
std::string Reading(std::mt19937_64& random, int64_t sequence, int device) {
  const auto digits = [&random](uint64_t below) { return random() % below; };
  return fmt::format(
      R"({{"device":"sensor-{:04}","seq":{},"firmware":"2.{}.{}","status":"{}","temperature":{}.{:03},"humidity":{}.{:02},"pressure":{}.{:02},)"
      R"("battery":{{"volt":3.{:03},"charge":{}}},"position":{{"lat":{}.{:07},"lon":{}.{:07}}},"vibration":[{},{},{},{}],"trace":"{}"}})",
      device, sequence, digits(4), digits(10), digits(50) == 0 ? "degraded" : "nominal", 15 + digits(20), digits(1000), 30 + digits(50),
      digits(100), 980 + digits(50), digits(100), 300 + digits(700), digits(101), 47, digits(10'000'000), 8, digits(10'000'000),
      digits(1000), digits(1000), digits(1000), digits(1000), Trace(random));
}

absl::Status Insert(sqlite3* db, std::mt19937_64& random, int64_t first, int64_t count) {
  LF_ASSIGN_OR_RETURN(sqlite::Statement insert,
                      sqlite::Statement::Prepare(db, "insert into reading(device, at_ms, kind, payload) values(?, ?, ?, ?)", true));
  LF_RETURN_IF_ERROR(sqlite::Execute(db, "begin"));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t sequence = first + i;
    const int device = static_cast<int>(random() % kDevices);
    insert.Bind(1, device).Bind(2, kFirstTime + sequence * 250).Bind(3, static_cast<int64_t>(random() % 12));
    insert.Bind(4, Reading(random, sequence, device));
    LF_RETURN_IF_ERROR(insert.Run());
  }
  return sqlite::Execute(db, "commit");
}

absl::Status Create(const std::string& path, int64_t bytes, int page_size, const std::string& journal, uint64_t seed) {
  if (std::filesystem::exists(path)) return Error(absl::StatusCode::kAlreadyExists, "PATH_EXISTS", path + " exists");
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle db, sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE));
  LF_RETURN_IF_ERROR(sqlite::Execute(
      db.get(),
      fmt::format("pragma page_size={}; pragma journal_mode=off; pragma synchronous=off; pragma cache_size=-200000;"
                  "create table device(id integer primary key, name text not null);"
                  "create table reading(id integer primary key, device integer not null references device, at_ms integer not null,"
                  "  kind integer not null, payload text not null);"
                  "create index reading_by_device on reading(device, at_ms);",
                  page_size)));
  for (int i = 0; i < kDevices; ++i) {
    LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), fmt::format("insert into device values({}, 'sensor-{:04}')", i, i)));
  }
  std::mt19937_64 random(seed);
  int64_t rows = 0;
  int64_t batch = 2'000;
  for (;;) {
    LF_ASSIGN_OR_RETURN(const int64_t pages, sqlite::QueryInt(db.get(), "pragma page_count"));
    const int64_t left = bytes - pages * page_size;
    if (left <= 0) break;
    if (rows > 0) batch = std::clamp<int64_t>(left * rows / (pages * page_size), 50, kRowsPerTransaction);
    LF_RETURN_IF_ERROR(Insert(db.get(), random, rows, batch));
    rows += batch;
  }
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "pragma synchronous=full; pragma journal_mode=" + journal));
  fmt::print("{{\"rows\":{},\"bytes\":{}}}\n", rows, std::filesystem::file_size(path));
  return absl::OkStatus();
}

absl::Status Mutate(const std::string& path, double append, double update, uint64_t seed) {
  LF_ASSIGN_OR_RETURN(const sqlite::DatabaseHandle db, sqlite::Open(path, SQLITE_OPEN_READWRITE));
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "pragma busy_timeout=60000; pragma cache_size=-200000"));
  LF_ASSIGN_OR_RETURN(const int64_t rows, sqlite::QueryInt(db.get(), "select max(id) from reading"));
  std::mt19937_64 random(seed);
  LF_ASSIGN_OR_RETURN(sqlite::Statement change, sqlite::Statement::Prepare(db.get(), "update reading set payload = ? where id = ?", true));
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "begin"));
  const auto updated = static_cast<int64_t>(static_cast<double>(rows) * update);
  for (int64_t i = 0; i < updated; ++i) {
    const auto id = static_cast<int64_t>(random() % static_cast<uint64_t>(rows)) + 1;
    change.Bind(1, Reading(random, id, static_cast<int>(random() % kDevices))).Bind(2, id);
    LF_RETURN_IF_ERROR(change.Run());
  }
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "commit"));
  const auto appended = static_cast<int64_t>(static_cast<double>(rows) * append);
  LF_RETURN_IF_ERROR(Insert(db.get(), random, rows, appended));
  LF_RETURN_IF_ERROR(sqlite::Execute(db.get(), "pragma wal_checkpoint(truncate)"));
  fmt::print("{{\"rows\":{},\"appended\":{},\"updated\":{}}}\n", rows + appended, appended, updated);
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app("Databases as a device that collects telemetry has them");
  app.require_subcommand(1);
  std::string path;
  uint64_t size = 64 << 20;
  int page_size = 4096;
  std::string journal = "wal";
  uint64_t seed = 1;
  double append = 0.005;
  double update = 0.0005;
  CLI::App* create = app.add_subcommand("create");
  create->add_option("path", path)->required();
  create->add_option("--size", size, "bytes; 1GiB and the like are understood")->transform(CLI::AsSizeValue(false));
  create->add_option("--page-size", page_size);
  create->add_option("--journal", journal)->check(CLI::IsMember({"wal", "delete"}));
  create->add_option("--seed", seed);
  CLI::App* mutate = app.add_subcommand("mutate");
  mutate->add_option("path", path)->required();
  mutate->add_option("--append", append);
  mutate->add_option("--update", update);
  mutate->add_option("--seed", seed);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status =
      *create ? Create(path, static_cast<int64_t>(size), page_size, journal, seed) : Mutate(path, append, update, seed);
  if (status.ok()) return 0;
  fmt::print(stderr, "telemetry_db: {}\n", MessageOf(status));
  return 1;
}

}  // namespace
}  // namespace litefleet

int main(int argc, char** argv) { return litefleet::Main(argc, argv); }
