#include "controller/verify/snapshot_verifier.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <set>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/format/segment.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "fmt/format.h"
#include "tests/unit/controller/fleet/own_operations.h"

namespace litefleet::verify {
namespace {

// Snapshots whose content is a file, held back until the gate opens.
class FileReaders final : public restore::SnapshotReaderFactory {
 public:
  class Reader final : public restore::SnapshotReader {
   public:
    Reader(const FileReaders& readers, std::string content) : readers_(readers), content_(std::move(content)) {
      geometry_.page_size = 4096;
      geometry_.page_count = static_cast<uint32_t>(content_.size() / 4096);
    }
    const restore::SnapshotGeometry& geometry() const override { return geometry_; }
    absl::StatusOr<std::optional<restore::StoredChunk>> Next() override {
      const size_t at = static_cast<size_t>(next_) * format::kExtentBytes;
      if (at >= content_.size()) return std::nullopt;
      // One chunk every 20 ms while the gate is closed: a slow store, which a cancel must not wait for.
      if (!readers_.open) {
        usleep(20'000);
        if (next_ > 0) --next_;
      }
      restore::StoredChunk chunk;
      const ByteView raw = AsBytes(content_).subspan(at, std::min<size_t>(format::kExtentBytes, content_.size() - at));
      chunk.raw.assign(raw.begin(), raw.end());
      if (!readers_.misnamed) chunk.name = format::NameChunkOf(4096, raw);
      chunk.first_page = format::FirstPageOf(4096, next_);
      chunk.page_count = static_cast<uint32_t>(raw.size() / 4096);
      chunk.raw_bytes = static_cast<uint32_t>(raw.size());
      if (readers_.open) ++next_;
      return chunk;
    }

   private:
    const FileReaders& readers_;
    const std::string content_;
    restore::SnapshotGeometry geometry_;
    uint32_t next_ = 0;
  };
  absl::StatusOr<std::unique_ptr<restore::SnapshotReader>> Open(const SnapshotId&, std::span<const restore::WantedRun>) override {
    ++opened;
    return std::make_unique<Reader>(*this, content);
  }
  absl::StatusOr<std::unique_ptr<restore::SnapshotReader>> OpenDifferent(const SnapshotId&, std::span<const restore::WantedRun>,
                                                                         std::string) override {
    return absl::UnimplementedError("no check asks for differences");
  }
  absl::StatusOr<std::unique_ptr<restore::NameReader>> OpenNames(const SnapshotId&) override {
    return absl::UnimplementedError("no check asks for names");
  }

  std::string content;
  std::atomic<bool> open{true};
  bool misnamed = false;
  std::atomic<int> opened{0};
};

class SnapshotVerifierTest : public fleet::OwnOperationsTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    Open();
    readers_.content = MakeDatabase(2000);
    StartAll();
  }
  void TearDown() override {
    StopAll();
    IngestTest::TearDown();
  }
  void StartAll() {
    StartFleet();
    VerifierOptions options;
    options.scratch = directory_ + "/scratch";
    options.reserve_bytes = reserve_;
    options.settle = std::chrono::milliseconds(50);
    options.drill_every = drill_every_;
    options.drill_look = drill_look_;
    verifier_ = std::make_unique<SnapshotVerifier>(*fleet_, *path_->snapshots, readers_, real_, options);
    ASSERT_TRUE(verifier_->Begin().ok());
  }
  void StopAll() {
    verifier_.reset();
    StopFleet();
  }
  std::string MakeDatabase(int rows) {
    const std::string path = directory_ + "/made.db";
    std::filesystem::remove(path);
    {
      auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
      EXPECT_TRUE(
          sqlite::Execute(db->get(),
                          fmt::format("create table t(a); with recursive c(n) as (select 1 union all select n+1 from c where n < {}) "
                                      "insert into t select hex(zeroblob(200)) || n from c",
                                      rows))
              .ok());
    }
    return *io::ReadFile(path, 1 << 28);
  }
  SnapshotId Commit(unsigned seed) {
    const auto outcome = Upload(fakes::FakeDatabase::Make(4096, 70, seed), device_);
    EXPECT_EQ(path_->committed.empty(), false);
    return path_->committed.back().snapshot;
  }
  v1::Operation WaitForEnd(const std::string& id) {
    for (int i = 0; i < 1000; ++i) {
      const auto operation = operations_->Resolve(id);
      if (operation.ok() && operation->has_ended_at()) return *operation;
      usleep(10'000);
    }
    ADD_FAILURE() << "the operation did not end";
    return {};
  }
  v1::CheckState CheckOf(const SnapshotId& id) {
    // After what was posted before.
    EXPECT_TRUE(path_->db->Write([](sqlite::Connection) { return absl::OkStatus(); }, catalog::Durability::kRelaxed).ok());
    return path_->snapshots->Resolve(id.value())->check();
  }
  v1::CheckState WaitForCheck(const SnapshotId& id, v1::CheckState wanted) {
    for (int i = 0; i < 1000 && CheckOf(id) != wanted; ++i) usleep(10'000);
    return CheckOf(id);
  }
  std::chrono::milliseconds drill_every_ = std::chrono::hours(24 * 7);
  std::chrono::milliseconds drill_look_{60'000};
  bool ScratchIsEmpty() { return std::filesystem::is_empty(directory_ + "/scratch"); }

  FileReaders readers_;
  uint64_t reserve_ = 0;
  std::unique_ptr<SnapshotVerifier> verifier_;
};

TEST_F(SnapshotVerifierTest, OrderedCheckRecordsItsVerdict) {
  const SnapshotId snapshot = Commit(1);
  const auto started = verifier_->Start(snapshot, "request-1", "operator:admin");
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(verifier_->Start(snapshot, "request-1", "operator:admin")->id(), started->id());
  const v1::Operation ended = WaitForEnd(started->id());
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  EXPECT_GT(ended.progress().total_bytes(), 0);
  EXPECT_EQ(ended.progress().done_bytes(), ended.progress().total_bytes());
  EXPECT_EQ(CheckOf(snapshot), v1::CHECK_STATE_OK);
  EXPECT_TRUE(ScratchIsEmpty());
}

TEST_F(SnapshotVerifierTest, DamageIsRecordedInSqlitesWords) {
  const SnapshotId snapshot = Commit(1);
  readers_.content.replace(4096 * 10, 4096, std::string(4096, 'x'));
  const auto started = verifier_->Start(snapshot, "", "operator:admin");
  const v1::Operation ended = WaitForEnd(started->id());
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ended.error().info().reason(), "SNAPSHOT_DAMAGED");
  EXPECT_EQ(CheckOf(snapshot), v1::CHECK_STATE_DAMAGED);
  EXPECT_FALSE(path_->snapshots->Resolve(snapshot.value())->check_message().empty());
}

// What the store hands out is not proven there.
TEST_F(SnapshotVerifierTest, ContentThatIsNotWhatItsNameSaysIsNoDatabaseToCheck) {
  const SnapshotId snapshot = Commit(1);
  readers_.misnamed = true;
  const auto started = verifier_->Start(snapshot, "", "operator:admin");
  const v1::Operation ended = WaitForEnd(started->id());
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ended.error().info().reason(), "CHUNK_DAMAGED");
  EXPECT_NE(CheckOf(snapshot), v1::CHECK_STATE_OK);
}

// What a dump has in the place of pages.
std::string Container(const std::string& text, format::Content content = format::Content::kSql) {
  format::SegmentWriter writer(content);
  EXPECT_TRUE(writer.Add(AsBytes(text)).ok());
  EXPECT_TRUE(writer.Finish().ok());
  std::string pages;
  while (std::optional<format::SegmentWriter::Segment> segment = writer.Take()) pages += AsText(segment->pages);
  return pages;
}

TEST_F(SnapshotVerifierTest, TextIsLoadedAndThenChecked) {
  const struct {
    std::string text;
    v1::CheckState state;
    v1::OperationState ended;
  } cases[] = {
      {"BEGIN; CREATE TABLE t(a unique); INSERT INTO t VALUES(1),(2); COMMIT;", v1::CHECK_STATE_OK, v1::OPERATION_STATE_SUCCEEDED},
      {"CREATE TABLE t(a unique); INSERT INTO t VALUES(1),(1);", v1::CHECK_STATE_DAMAGED, v1::OPERATION_STATE_FAILED},
      {"BEGIN; CREATE TABLE t(a);", v1::CHECK_STATE_DAMAGED, v1::OPERATION_STATE_FAILED},
      {"CREATE TABLE p(a primary key); CREATE TABLE c(a references p); INSERT INTO c VALUES(1);", v1::CHECK_STATE_DAMAGED,
       v1::OPERATION_STATE_FAILED},
      {"CREATE TABLE t(a); CREATE INDEX i ON t(of_the_application(a));", v1::CHECK_STATE_CANNOT_TELL, v1::OPERATION_STATE_SUCCEEDED},
  };
  unsigned seed = 1;
  for (const auto& each : cases) {
    SCOPED_TRACE(each.text);
    const SnapshotId snapshot = Commit(seed++);
    ASSERT_TRUE(path_->db
                    ->Write([&](sqlite3* db) {
                      return sqlite::Execute(db, "update snapshot set content = 2 where id = '" + snapshot.value() + "'");
                    })
                    .ok());
    readers_.content = Container(each.text);
    const auto started = verifier_->Start(snapshot, "", "operator:admin");
    ASSERT_TRUE(started.ok());
    EXPECT_EQ(WaitForEnd(started->id()).state(), each.ended);
    EXPECT_EQ(CheckOf(snapshot), each.state);
    EXPECT_TRUE(ScratchIsEmpty());
  }
}

TEST_F(SnapshotVerifierTest, WhatIsNotInAPartIsNoDamage) {
  const struct {
    std::string part, text;
    v1::CheckState state;
    std::string says;
  } cases[] = {
      {"table c", "CREATE TABLE c(a references p); INSERT INTO c VALUES(1);", v1::CHECK_STATE_OK, "refer to table p"},
      {"tables c, p", "CREATE TABLE p(a primary key); CREATE TABLE c(a references p); INSERT INTO c VALUES(1);", v1::CHECK_STATE_DAMAGED,
       "no parent in p"},
      {"data only", "INSERT INTO t VALUES(1);", v1::CHECK_STATE_CANNOT_TELL, "it holds a part only: data only; "},
      {"schema only", "BEGIN; CREATE TABLE t(a); COMMIT;", v1::CHECK_STATE_OK, ""},
  };
  unsigned seed = 1;
  for (const auto& each : cases) {
    SCOPED_TRACE(each.text);
    const SnapshotId snapshot = Commit(seed++);
    ASSERT_TRUE(path_->db
                    ->Write([&](sqlite3* db) {
                      return sqlite::Execute(
                          db, fmt::format("update snapshot set content = 2, part = '{}' where id = '{}'", each.part, snapshot.value()));
                    })
                    .ok());
    readers_.content = Container(each.text);
    const auto started = verifier_->Start(snapshot, "", "operator:admin");
    ASSERT_TRUE(started.ok());
    WaitForEnd(started->id());
    EXPECT_EQ(CheckOf(snapshot), each.state);
    EXPECT_THAT(path_->snapshots->Resolve(snapshot.value())->check_message(), testing::HasSubstr(each.says));
  }
}

// One that is whole, one that is cut short, and one that is none. A block of zeros ends an archive.
TEST_F(SnapshotVerifierTest, AnArchiveOfFilesIsReadToItsEnd) {
  std::string header(512, '\0');
  header.replace(0, 6, "a.conf");
  header.replace(100, 8, std::string("0000644\0", 8));
  header.replace(108, 8, std::string("0000000\0", 8));
  header.replace(116, 8, std::string("0000000\0", 8));
  header.replace(124, 12, std::string("00000000005\0", 12));
  header.replace(136, 12, std::string("00000000000\0", 12));
  header.replace(156, 1, "0");
  header.replace(257, 8, std::string("ustar\00000", 8));
  header.replace(148, 8, "        ");
  unsigned sum = 0;
  for (const char c : header) sum += static_cast<unsigned char>(c);
  header.replace(148, 8, fmt::format("{:06o}", sum) + std::string("\0 ", 2));
  const std::string whole = header + "hello" + std::string(507 + 1024, '\0');
  std::string absolute = whole;
  absolute[0] = '/';
  absolute.replace(148, 6, fmt::format("{:06o}", sum - 'a' + '/'));
  const std::string file = header + "hello" + std::string(507, '\0');
  const struct {
    std::string archive;
    v1::CheckState state;
  } cases[] = {{whole, v1::CHECK_STATE_OK},
               {std::string(1024, '\0'), v1::CHECK_STATE_OK},
               {whole.substr(0, 515), v1::CHECK_STATE_DAMAGED},
               {absolute, v1::CHECK_STATE_DAMAGED},
               {file + whole, v1::CHECK_STATE_DAMAGED},  // twice: no device takes it
               {std::string(2000, 'x'), v1::CHECK_STATE_DAMAGED}};
  unsigned seed = 1;
  for (const auto& each : cases) {
    SCOPED_TRACE(seed);
    const SnapshotId snapshot = Commit(seed++);
    ASSERT_TRUE(path_->db
                    ->Write([&](sqlite3* db) {
                      return sqlite::Execute(db, "update snapshot set content = 3 where id = '" + snapshot.value() + "'");
                    })
                    .ok());
    readers_.content = Container(each.archive, format::Content::kFiles);
    const auto started = verifier_->Start(snapshot, "", "operator:admin");
    ASSERT_TRUE(started.ok());
    const bool good = each.state == v1::CHECK_STATE_OK;
    EXPECT_EQ(WaitForEnd(started->id()).state(), good ? v1::OPERATION_STATE_SUCCEEDED : v1::OPERATION_STATE_FAILED);
    EXPECT_EQ(CheckOf(snapshot), each.state);
    EXPECT_TRUE(ScratchIsEmpty());
  }
}

TEST_F(SnapshotVerifierTest, CancelEndsWhatRunsAndWhatWaits) {
  const SnapshotId snapshot = Commit(1);
  readers_.open = false;
  const auto runs = verifier_->Start(snapshot, "", "operator:admin");
  while (readers_.opened == 0) usleep(1000);
  const auto waits = verifier_->Start(snapshot, "", "operator:admin");
  ASSERT_TRUE(waits.ok());
  for (const auto& operation : {waits, runs}) {
    const auto begin = std::chrono::steady_clock::now();
    ASSERT_TRUE(fleet_->Cancel(OperationId(operation->id())).ok());
    EXPECT_EQ(WaitForEnd(operation->id()).state(), v1::OPERATION_STATE_CANCELLED);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
  }
  EXPECT_EQ(CheckOf(snapshot), v1::CHECK_STATE_UNKNOWN);
  EXPECT_TRUE(ScratchIsEmpty());
}

TEST_F(SnapshotVerifierTest, NewestOfADatabaseIsCheckedByItselfAndOlderAreSuperseded) {
  readers_.open = false;
  const SnapshotId busy = Commit(1);
  ASSERT_TRUE(verifier_->Start(busy, "", "operator:admin").ok());
  const SnapshotId older = Commit(2);
  verifier_->Committed(older, device_, path_->committed.back().database);
  EXPECT_EQ(CheckOf(older), v1::CHECK_STATE_PENDING);
  const SnapshotId newest = Commit(3);
  verifier_->Committed(newest, device_, path_->committed.back().database);
  EXPECT_EQ(CheckOf(older), v1::CHECK_STATE_SUPERSEDED);
  readers_.open = true;
  EXPECT_EQ(WaitForCheck(newest, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
  EXPECT_EQ(CheckOf(older), v1::CHECK_STATE_SUPERSEDED);
}

TEST_F(SnapshotVerifierTest, APartTakesTheTurnOfNoWholeSnapshot) {
  readers_.open = false;
  const SnapshotId busy = Commit(1);
  ASSERT_TRUE(verifier_->Start(busy, "", "operator:admin").ok());
  const SnapshotId whole = Commit(2);
  const std::string database = path_->committed.back().database;
  verifier_->Committed(whole, device_, database);
  const SnapshotId part = Commit(3);
  verifier_->Committed(part, device_, database, Automatic::kPart);
  EXPECT_EQ(CheckOf(whole), v1::CHECK_STATE_PENDING);
  readers_.open = true;
  EXPECT_EQ(WaitForCheck(whole, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
  EXPECT_EQ(WaitForCheck(part, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
}

TEST_F(SnapshotVerifierTest, ADatabaseThatIsBackedUpAllTheTimeKeepsItsTurn) {
  const SteadyTime until = real_.Steady() + std::chrono::seconds(20);
  bool proven = false;
  for (unsigned seed = 1; !proven && real_.Steady() < until; ++seed) {
    const SnapshotId snapshot = Commit(seed);
    verifier_->Committed(snapshot, device_, path_->committed.back().database);
    proven = CheckOf(snapshot) == v1::CHECK_STATE_OK;
    const auto listed = path_->snapshots->List(device_, "", 1000, "");
    ASSERT_TRUE(listed.ok());
    for (const auto& older : listed->items) proven = proven || older.check() == v1::CHECK_STATE_OK;
  }
  EXPECT_TRUE(proven);
}

TEST_F(SnapshotVerifierTest, SyncsAreCheckedOnceInAWhileAndDoNotDelayOthers) {
  const SnapshotId first = Commit(1);
  const std::string database = path_->committed.back().database;
  verifier_->Committed(first, device_, database, Automatic::kContinuous);
  ASSERT_EQ(WaitForCheck(first, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
  // The next ones wait for their hour, the newest of them.
  std::vector<SnapshotId> later;
  for (unsigned seed = 2; seed < 5; ++seed) {
    later.push_back(Commit(seed));
    verifier_->Committed(later.back(), device_, database, Automatic::kContinuous);
  }
  for (int i = 0; i < 500 && verifier_->waiting() != 1; ++i) usleep(10'000);
  EXPECT_EQ(verifier_->waiting(), 1u);
  for (const SnapshotId& snapshot : later) EXPECT_EQ(CheckOf(snapshot), v1::CHECK_STATE_UNKNOWN);
  // A backup that is none of them does not.
  const SnapshotId backup = Commit(5);
  verifier_->Committed(backup, device_, database);
  EXPECT_EQ(WaitForCheck(backup, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
  EXPECT_EQ(CheckOf(later[0]), v1::CHECK_STATE_UNKNOWN);
}

TEST_F(SnapshotVerifierTest, GoesOnAfterARestartOfTheController) {
  readers_.open = false;
  const SnapshotId snapshot = Commit(1);
  const auto started = verifier_->Start(snapshot, "", "operator:admin");
  const SnapshotId automatic = Commit(2);
  verifier_->Committed(automatic, device_, path_->committed.back().database);
  while (readers_.opened == 0) usleep(1000);
  StopAll();
  ASSERT_TRUE(io::WriteFileAtomic(directory_ + "/scratch/left.check", "over").ok());
  readers_.open = true;
  StartAll();
  EXPECT_EQ(WaitForEnd(started->id()).state(), v1::OPERATION_STATE_SUCCEEDED);
  EXPECT_EQ(WaitForCheck(automatic, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
  EXPECT_TRUE(ScratchIsEmpty());
}

TEST_F(SnapshotVerifierTest, CopyThatDoesNotFitIsNotBegun) {
  StopAll();
  reserve_ = uint64_t{1} << 60;
  StartAll();
  const SnapshotId snapshot = Commit(1);
  const auto started = verifier_->Start(snapshot, "", "operator:admin");
  EXPECT_EQ(WaitForEnd(started->id()).error().info().reason(), "NOT_ENOUGH_SPACE");
  EXPECT_EQ(CheckOf(snapshot), v1::CHECK_STATE_FAILED);
  EXPECT_EQ(readers_.opened, 0);
}

TEST_F(SnapshotVerifierTest, ADrillIsAnOperationAndRecordsHowLongTheRestoreTook) {
  const SnapshotId id = Commit(1);
  const auto operation = verifier_->StartDrill(id, "", "operator:test");
  ASSERT_TRUE(operation.ok()) << operation.status();
  EXPECT_EQ(operation->kind(), v1::OPERATION_KIND_DRILL);
  const v1::Operation ended = WaitForEnd(operation->id());
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  const auto snapshot = path_->snapshots->Resolve(id.value());
  EXPECT_EQ(snapshot->check(), v1::CHECK_STATE_OK);
  EXPECT_TRUE(snapshot->has_drilled_at());
  EXPECT_TRUE(snapshot->has_restore_duration());
}

TEST_F(SnapshotVerifierTest, TheNewestSnapshotIsDrilledByItselfAndNewOnesAreCheckedBesides) {
  StopAll();
  const SnapshotId first = Commit(1);
  // Uploads have the fake clock's time, which may lie ahead of the verifier's.
  const auto ahead = std::chrono::duration_cast<std::chrono::milliseconds>(clock_.Now() - real_.Now());
  drill_every_ = -std::max(ahead, std::chrono::milliseconds(0)) - std::chrono::hours(1);
  drill_look_ = std::chrono::milliseconds(20);
  StartAll();
  const auto drilled = [&](const SnapshotId& id) { return path_->snapshots->Resolve(id.value())->has_drilled_at(); };
  for (int i = 0; i < 1000 && !drilled(first); ++i) usleep(10'000);
  ASSERT_TRUE(drilled(first));
  // Drills are due all the time: a new backup is checked all the same.
  const SnapshotId second = Commit(2);
  verifier_->Committed(second, device_, "main");
  EXPECT_EQ(WaitForCheck(second, v1::CHECK_STATE_OK), v1::CHECK_STATE_OK);
  for (int i = 0; i < 1000 && !drilled(second); ++i) usleep(10'000);
  EXPECT_TRUE(drilled(second));
  const auto operations = operations_->List(DeviceId(), false, 10, "");
  ASSERT_TRUE(operations.ok());
  EXPECT_EQ(operations->items.at(0).ordered_by(), "schedule");
}

TEST_F(SnapshotVerifierTest, TheNewestOfEveryDatabaseIsDrilledBeforeAnyOther) {
  StopAll();
  std::set<std::string> newest;
  for (const DeviceId& device : {device_, other_}) {
    for (const char* database : {"orders", "stock"}) {
      std::string last;
      for (unsigned seed = 1; seed < 3; ++seed) {
        const auto outcome = fakes::RunUpload(*path_->ingest, device, fakes::FakeDatabase::Make(4096, 70, seed),
                                              {.session_id = NewSession(), .database = database});
        ASSERT_TRUE(outcome.status.ok()) << outcome.status;
        last = outcome.snapshot_id;
      }
      newest.insert(last);
    }
  }
  // Received and checked long ago, whatever the clocks say.
  ASSERT_TRUE(path_->db
                  ->Write([](sqlite3* db) {
                    return sqlite::Execute(db, fmt::format("update snapshot set received_at = 1, checked_at = 1, check_state = {}",
                                                           static_cast<int>(v1::CHECK_STATE_OK)));
                  })
                  .ok());
  drill_every_ = std::chrono::hours(1);
  drill_look_ = std::chrono::milliseconds(5);
  StartAll();
  const auto drilled = [&] { return path_->Count("select count(*) from snapshot where drilled_at > 0"); };
  for (int i = 0; i < 3000 && drilled() < 5; ++i) usleep(5'000);
  ASSERT_GE(drilled(), 5);
  verifier_.reset();
  const auto operations = operations_->List(DeviceId(), false, 100, "");
  ASSERT_TRUE(operations.ok() && operations->items.size() >= 5);
  // The newest operation comes first.
  std::set<std::string> first_four;
  for (size_t i = 0; i < 4; ++i) first_four.insert((operations->items.rbegin() + static_cast<std::ptrdiff_t>(i))->snapshot_id());
  EXPECT_EQ(first_four, newest);
  EXPECT_FALSE(newest.contains((operations->items.rbegin() + 4)->snapshot_id())) << "then the others";
}

}  // namespace
}  // namespace litefleet::verify
