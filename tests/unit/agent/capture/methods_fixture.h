// One database, and a snapshot of it by the method of a cell: method x journal mode x state of the application or kind of database.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_METHODS_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_METHODS_FIXTURE_H_

#include <sys/mount.h>

#include <chrono>
#include <filesystem>
#include <ostream>
#include <string>

#include "agent/capture/dump_source.h"
#include "agent/capture/file_source.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "gtest/gtest.h"
#include "tests/unit/agent/capture/capture_fixture.h"
#include "tests/unit/agent/capture/kinds.h"

namespace litefleet::capture {

struct Cell {
  std::string method;
  std::string mode;
  std::string state;  // or kind
  std::string reason = {};
  std::string application = "stopped";  // of a kind
  friend std::ostream& operator<<(std::ostream& out, const Cell& cell) { return out << cell.method << cell.mode << cell.state; }
};

inline std::string NameOf(const testing::TestParamInfo<Cell>& info) {
  const std::string beside = info.param.application == "stopped" ? "" : "_" + info.param.application;
  return fmt::format("{}_{}_{}{}", info.param.method, info.param.mode, info.param.state, beside);
}

class MethodsTest : public CaptureTest, public testing::WithParamInterface<Cell> {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(Path("place"));
    std::filesystem::create_directories(Path("scratch"));
    path_ = Path("place/app.db");
  }
  void TearDown() override {
    if (mounted_) {
      EXPECT_EQ(umount2(Path("place").c_str(), MNT_DETACH), 0);
    }
  }

  // The program that reads for it is beside this one, and has to be started by a user without rights.
  static bool AnybodyMayComeToThePrograms() {
    using std::filesystem::perms;
    std::filesystem::path at = std::filesystem::read_symlink("/proc/self/exe");
    while (at.has_relative_path()) {
      at = at.parent_path();
      if ((std::filesystem::status(at).permissions() & perms::others_exec) == perms::none) return false;
    }
    return true;
  }
  // What was backed up, as a database file; a reason where there is none.
  std::string Take(const std::string& stored) {
    OnlineOptions options = Options(path_);
    options.busy_timeout = std::chrono::milliseconds(wait_ms_);
    options.rollback_stall = std::chrono::seconds(30);
    if (GetParam().method == "dump") return Dump(options, stored);
    Copy copy;
    if (GetParam().method == "online") {
      copy = ReadAll(options);
    } else {
      FileOptions file;
      file.database = options;
      file.scratch = Path("scratch");
      file.may_share = false;
      const auto taken = FileCopy::Take(file);
      if (!taken.ok()) return Reason(taken.status());
      const auto source = (*taken)->Open();
      for (;;) {
        const auto next = (*source)->Next();
        if (!next.ok()) return Reason(next.status());
        if (!next->has_value()) break;
        copy.bytes.insert(copy.bytes.end(), (*next)->data.begin(), (*next)->data.end());
      }
      copy.info = (*source)->info();
      copy.damage = (*source)->damage();
    }
    if (!copy.status.ok()) return Reason(copy.status);
    wal_ = copy.info.wal;
    damage_ = copy.damage;
    Store(copy.bytes, stored);
    return "";
  }
  std::string Reason(const absl::Status& status) {
    said_ = status.ToString() + " " + HintOf(status);
    return ReasonOf(status);
  }
  std::string Dump(const OnlineOptions& options, const std::string& stored) {
    auto source = OpenDumpSource(options, {});
    if (!source.ok()) return Reason(source.status());
    std::string text;
    for (;;) {
      const auto piece = (*source)->Next();
      if (!piece.ok()) return Reason(piece.status());
      if (piece->empty()) break;
      text += AsText(*piece);
    }
    wal_ = (*source)->info().wal;
    Connection db(Path(stored));
    db.Run("pragma trusted_schema=on");
    if (text.empty()) return "";
    const int loaded = db.Try(text);
    EXPECT_EQ(loaded, SQLITE_OK) << text.substr(0, 2000);
    return "";
  }
  // One state, and which.
  std::string StateOf(const std::string& stored) const {
    EXPECT_EQ(Query(Path(stored), "pragma integrity_check"), "ok");
    return Query(
        Path(stored),
        "select case when count(distinct i) = 1 and count(*) = 600 then max(i) else 'mixed ' || group_concat(distinct i) end from t");
  }
  std::string Mode() const { return fmt::format("pragma journal_mode={};", GetParam().mode); }
  bool Wal() const { return GetParam().mode == "wal"; }
  static std::string Set(int i) { return fmt::format("update t set i = {0}, x = randomblob(150 + {0} % 100);", i); }

  std::string path_;
  std::string said_;
  std::string damage_;
  bool wal_ = false;
  bool mounted_ = false;
  int wait_ms_ = 10'000;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_TESTS_UNIT_AGENT_CAPTURE_METHODS_FIXTURE_H_
