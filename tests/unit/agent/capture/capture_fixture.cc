#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "common/base/status.h"
#include "common/format/digest.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {

CaptureTest::CaptureTest() {
  const char* base = std::getenv("TMPDIR");
  std::string pattern = std::string(base == nullptr ? "/tmp" : base) + "/lf-capture-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  directory_ = pattern;
}

CaptureTest::~CaptureTest() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

OnlineOptions CaptureTest::Options(const std::string& path) const {
  OnlineOptions options;
  options.path = path;
  options.clock = &clock_;
  options.allow_network_fs = true;
  return options;
}

CaptureTest::Copy CaptureTest::ReadAll(const OnlineOptions& options) {
  Copy copy;
  auto source = OpenOnlineSource(options);
  if (!source.ok()) {
    copy.status = source.status();
    return copy;
  }
  copy.info = (*source)->info();
  uint32_t expected = 0;
  for (;;) {
    auto next = (*source)->Next();
    if (!next.ok()) {
      copy.status = next.status();
      return copy;
    }
    if (!next->has_value()) break;
    EXPECT_EQ((*next)->extent, expected++);
    copy.bytes.insert(copy.bytes.end(), (*next)->data.begin(), (*next)->data.end());
  }
  copy.damage = (*source)->damage();
  copy.status = (*source)->Close();
  EXPECT_EQ(copy.bytes.size(), uint64_t{copy.info.page_size} * copy.info.page_count);
  return copy;
}

void CaptureTest::Sql(const std::string& path, const std::string& sql) { Connection(path).Run(sql); }

std::string CaptureTest::Query(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  EXPECT_EQ(sqlite3_open(path.c_str(), &db), SQLITE_OK);
  std::string value;
  sqlite3_stmt* statement = nullptr;
  EXPECT_EQ(sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  if (sqlite3_step(statement) == SQLITE_ROW) value = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return value;
}

std::string CaptureTest::Store(const Bytes& bytes, const std::string& name) const {
  const std::string path = Path(name);
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  return path;
}

int Shell(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

namespace {

// A word of the shell.
std::string Quoted(const std::string& path) {
  std::string word = "'";
  for (const char c : path) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

std::optional<Bytes> BytesIfThere(const std::string& path) {
  char name[] = "/tmp/lf-bytes-XXXXXX";
  close(mkstemp(name));
  const bool copied = Shell(fmt::format("cp {} {} 2>/dev/null", Quoted(path), name)) == 0;
  std::ifstream file(name, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  unlink(name);
  if (!copied) return std::nullopt;
  const ByteView view = AsBytes(content);
  return Bytes(view.begin(), view.end());
}

}  // namespace

Bytes FileBytes(const std::string& path) {
  std::optional<Bytes> bytes = BytesIfThere(path);
  EXPECT_TRUE(bytes.has_value()) << path;
  return std::move(bytes).value_or(Bytes());
}

Bytes CheckpointedBytes(const std::string& path) {
  char name[] = "/tmp/lf-checkpoint-XXXXXX";
  if (mkdtemp(name) == nullptr) std::abort();
  const std::string copy = std::string(name) + "/copy.db";
  EXPECT_EQ(Shell(fmt::format("cp {0} {1} && if [ -e {0}-wal ]; then cp {0}-wal {1}-wal; fi", Quoted(path), copy)), 0);
  Connection(copy).Run("select count(*) from sqlite_schema");
  const Bytes bytes = FileBytes(copy);
  std::filesystem::remove_all(name);
  return bytes;
}

std::string Listing(const std::string& directory) {
  std::string listing;
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    struct stat st {};
    if (lstat(path.c_str(), &st) != 0) continue;
    std::string digest = "-";
    if (S_ISREG(st.st_mode)) {
      const std::optional<Bytes> bytes = BytesIfThere(path);
      if (!bytes.has_value() && !std::filesystem::exists(path)) continue;  // a journal whose transaction has ended meanwhile
      digest = bytes.has_value() ? ToHex(format::Sha256(*bytes)) : "unreadable";
    }
    listing += fmt::format("{} {} {:o} {}:{} {}\n", path.filename().string(), st.st_size, st.st_mode, st.st_uid, st.st_gid, digest);
  }
  return listing;
}

Child::Child(const Body& body) {
  int ready[2], stop[2];
  if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(stop, O_CLOEXEC) != 0) std::abort();
  pid_ = fork();
  if (pid_ == 0) {
    close(ready[0]);
    close(stop[1]);
    fcntl(stop[0], F_SETFL, O_NONBLOCK);
    const int code = body([&] { static_cast<void>(!write(ready[1], "r", 1)); },
                          [&] {
                            char byte;
                            return read(stop[0], &byte, 1) == 0;
                          });
    _exit(code);
  }
  close(ready[1]);
  close(stop[0]);
  stop_ = stop[1];
  char byte;
  static_cast<void>(!read(ready[0], &byte, 1));
  close(ready[0]);
}

Child::~Child() { Kill(); }

int Child::Stop() {
  if (pid_ < 0) return -1;
  close(stop_);
  stop_ = -1;
  int status = 0;
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

bool Child::AwaitStopped() {
  int status = 0;
  if (waitpid(pid_, &status, WUNTRACED) != pid_) return false;
  if (WIFSTOPPED(status)) return true;
  pid_ = -1;
  return false;
}

void Child::Continue() { kill(pid_, SIGCONT); }

void Child::Kill() {
  if (stop_ >= 0) close(stop_);
  stop_ = -1;
  if (pid_ < 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

Connection::Connection(const std::string& path, int busy_timeout_ms) {
  if (sqlite3_open(path.c_str(), &db_) != SQLITE_OK) {
    fmt::print(stderr, "open {}: {}\n", path, sqlite3_errmsg(db_));
    _exit(99);
  }
  sqlite3_busy_timeout(db_, busy_timeout_ms);
}

int Connection::Try(const std::string& sql) { return sqlite3_exec(db_, sql.c_str(), nullptr, nullptr, nullptr); }

void Connection::Run(const std::string& sql) {
  if (Try(sql) == SQLITE_OK) return;
  fmt::print(stderr, "{}: {}\n", sql, sqlite3_errmsg(db_));
  _exit(99);
}

int64_t Connection::Int(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db_, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK || sqlite3_step(statement) != SQLITE_ROW) {
    fmt::print(stderr, "{}: {}\n", sql, sqlite3_errmsg(db_));
    _exit(99);
  }
  const int64_t value = sqlite3_column_int64(statement, 0);
  sqlite3_finalize(statement);
  return value;
}

}  // namespace litefleet::capture
