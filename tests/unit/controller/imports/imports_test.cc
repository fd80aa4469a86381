#include "controller/imports/imports.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <filesystem>
#include <mutex>

#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/file.h"
#include "common/sqlite/handle.h"
#include "controller/catalog/deletion_catalog.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "fmt/format.h"
#include "tests/unit/controller/fleet/own_operations.h"

namespace litefleet::imports {
namespace {

using testing::HasSubstr;

class ImportsTest : public fleet::OwnOperationsTest {
 protected:
  // What a client has seen of one stream.
  struct Client {
    std::shared_ptr<ImportSession> session;
    std::vector<v1::ImportSnapshotResponse> answers;
    std::mutex mu;
    std::optional<absl::Status> closed;

    absl::Status Say(const v1::ImportSnapshotRequest& request) { return session->Handle(request).status(); }
    std::optional<absl::Status> WaitForClose() {
      for (int i = 0; i < 1000; ++i) {
        {
          const std::scoped_lock lock(mu);
          if (closed.has_value()) return closed;
        }
        usleep(10'000);
      }
      return std::nullopt;
    }
  };

  void SetUp() override {
    IngestTest::SetUp();
    Open();
    std::filesystem::create_directory(directory_ + "/scratch");
    // The database is known, with a backup of its own.
    backup_ = Commit(1);
    StartAll();
  }
  void TearDown() override {
    StopAll();
    IngestTest::TearDown();
  }
  void StartAll() {
    StartFleet();
    options_.scratch = directory_ + "/scratch";
    options_.look = std::chrono::milliseconds(20);
    imports_ = std::make_unique<Imports>(ImportDeps{.fleet = *fleet_,
                                                    .ingest = *path_->ingest,
                                                    .clock = real_,
                                                    .resolve = [this](const std::string& reference) -> absl::StatusOr<v1::Database> {
                                                      if (gone_ || (reference != "alpha/main" && reference != device_.value() + "/main"))
                                                        return Error(absl::StatusCode::kNotFound, "DATABASE_NOT_FOUND", "no " + reference);
                                                      return path_->snapshots->GetDatabase(device_, "main");
                                                    },
                                                    .on_imported = [this](const SnapshotId& id) { imported_ = id; }},
                                         options_);
    ASSERT_TRUE(imports_->Begin().ok());
  }
  void StopAll() {
    imports_.reset();
    StopFleet();
  }
  SnapshotId Commit(unsigned seed) {
    Upload(fakes::FakeDatabase::Make(4096, 70, seed), device_);
    return path_->committed.back().snapshot;
  }
  absl::StatusOr<std::unique_ptr<Client>> Connect() {
    auto client = std::make_unique<Client>();
    auto session = imports_->NewSession("operator:ann", {.send = [at = client.get()](const auto& answer) { at->answers.push_back(answer); },
                                                         .close =
                                                             [at = client.get()](const absl::Status& status) {
                                                               const std::scoped_lock lock(at->mu);
                                                               at->closed = status;
                                                             }});
    if (!session.ok()) return session.status();
    client->session = *std::move(session);
    return client;
  }
  static v1::ImportSnapshotRequest BeginOf(int64_t bytes, const std::string& name = "brought.db", const std::string& to = "alpha/main") {
    v1::ImportSnapshotRequest request;
    request.mutable_begin()->set_database(to);
    request.mutable_begin()->set_file_name(name);
    request.mutable_begin()->set_bytes(bytes);
    request.mutable_begin()->mutable_modified_at()->set_seconds(1'700'000'000);
    return request;
  }
  static v1::ImportSnapshotRequest PieceOf(std::string piece) {
    v1::ImportSnapshotRequest request;
    request.set_piece(std::move(piece));
    return request;
  }
  static v1::ImportSnapshotRequest EndOf(const std::string& content) {
    v1::ImportSnapshotRequest request;
    request.mutable_end()->set_sha256(std::string(AsText(format::Sha256(AsBytes(content)))));
    return request;
  }
  // The operation, when it has ended.
  v1::Operation Import(const std::string& content, const std::string& name = "brought.db") {
    auto client = Connect();
    EXPECT_TRUE(client.ok()) << client.status();
    EXPECT_TRUE((*client)->Say(BeginOf(static_cast<int64_t>(content.size()), name)).ok());
    for (size_t at = 0; at < content.size(); at += 200'000) EXPECT_TRUE((*client)->Say(PieceOf(content.substr(at, 200'000))).ok());
    const auto all = (*client)->session->Handle(EndOf(content));
    EXPECT_TRUE(all.ok() && *all) << all.status();
    (*client)->session->End();
    EXPECT_EQ((*client)->answers.size(), 2u);
    EXPECT_TRUE((*client)->answers.back().has_received());
    return WaitForEnd((*client)->answers.front().operation().id());
  }
  v1::Operation WaitForEnd(const std::string& id) {
    for (int i = 0; i < 3000; ++i) {
      const auto operation = operations_->Resolve(id);
      if (operation.ok() && operation->has_ended_at()) return *operation;
      usleep(10'000);
    }
    ADD_FAILURE() << "the operation did not end";
    return {};
  }
  std::string MakeDatabase(const std::string& sql, const std::string& pragma = "pragma page_size=4096") {
    const std::string path = directory_ + "/made.db";
    std::filesystem::remove(path);
    {
      auto db = sqlite::Open(path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
      EXPECT_TRUE(sqlite::Execute(db->get(), pragma).ok());
      EXPECT_TRUE(sqlite::Execute(db->get(), sql).ok());
    }
    return *io::ReadFile(path, 1 << 28);
  }
  std::string Rows(int rows) {
    return fmt::format(
        "create table t(a); with recursive c(n) as (select 1 union all select n+1 from c where n < {}) insert into t select "
        "hex(randomblob(200)) || n from c",
        rows);
  }
  bool ScratchIsEmpty() { return std::filesystem::is_empty(directory_ + "/scratch"); }
  std::string ReasonFor(const std::string& content) {
    const v1::Operation ended = Import(content);
    EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED) << ended.DebugString();
    return ended.error().info().reason();
  }

  ImportOptions options_;
  SnapshotId backup_;
  SnapshotId imported_;
  std::atomic<bool> gone_ = false;
  std::unique_ptr<Imports> imports_;
};

TEST_F(ImportsTest, ADatabaseFileIsASnapshotByteForByte) {
  const std::string content = MakeDatabase(Rows(5000));
  const v1::Operation ended = Import(content);
  ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  EXPECT_EQ(ended.kind(), v1::OPERATION_KIND_IMPORT);
  EXPECT_EQ(ended.ordered_by(), "operator:ann");
  EXPECT_EQ(ended.progress().done_bytes(), static_cast<int64_t>(content.size()));
  const auto snapshot = path_->snapshots->Resolve(ended.snapshot_id());
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->method(), v1::METHOD_FILE);
  EXPECT_EQ(snapshot->content(), v1::SNAPSHOT_CONTENT_DATABASE);
  EXPECT_EQ(snapshot->source_check(), v1::CHECK_STATE_OK);
  EXPECT_EQ(snapshot->taken_at().seconds(), 1'700'000'000);
  EXPECT_EQ(snapshot->operation_id(), ended.id());
  EXPECT_THAT(snapshot->provenance(), HasSubstr("\"brought.db\""));
  EXPECT_THAT(snapshot->provenance(), HasSubstr(ToHex(format::Sha256(AsBytes(content)))));
  EXPECT_THAT(snapshot->provenance(), HasSubstr("operator:ann"));
  const auto back = path_->ReadBack(ended.snapshot_id());
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_TRUE(AsText(*back) == content);
  EXPECT_TRUE(ScratchIsEmpty());
  EXPECT_EQ(imported_.value(), ended.snapshot_id());
}

TEST_F(ImportsTest, AnotherImportOfTheSameStoresNothing) {
  const std::string content = MakeDatabase(Rows(2000));
  const auto first = path_->snapshots->Resolve(Import(content).snapshot_id());
  const auto second = path_->snapshots->Resolve(Import(content).snapshot_id());
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_GT(first->stored_bytes(), 100'000);
  EXPECT_LT(second->stored_bytes(), 1000);
  EXPECT_EQ(first->root_digest(), second->root_digest());
  EXPECT_NE(first->id(), second->id());
}

TEST_F(ImportsTest, EveryPageSizeAndTheWalMode) {
  for (const int size : {512, 1024, 65536}) {
    const std::string content = MakeDatabase(Rows(300), fmt::format("pragma page_size={}; pragma journal_mode=wal", size));
    const v1::Operation ended = Import(content);
    ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
    const auto snapshot = path_->snapshots->Resolve(ended.snapshot_id());
    EXPECT_EQ(snapshot->page_size(), static_cast<uint32_t>(size));
    EXPECT_EQ(snapshot->journal_mode(), v1::JOURNAL_MODE_WAL);
    EXPECT_TRUE(AsText(*path_->ReadBack(ended.snapshot_id())) == content);
  }
}

TEST_F(ImportsTest, SqlTextIsLoadedInTheHelper) {
  std::string text =
      "\xef\xbb\xbf"
      "BEGIN; CREATE TABLE t(a unique);\n";
  for (int i = 0; i < 20000; ++i) text += fmt::format("INSERT INTO t VALUES('it''s {}');\n", i);
  text += "COMMIT;\n";
  const v1::Operation ended = Import(text, "dump.sql");
  ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  const auto snapshot = path_->snapshots->Resolve(ended.snapshot_id());
  EXPECT_EQ(snapshot->method(), v1::METHOD_DUMP);
  EXPECT_EQ(snapshot->content(), v1::SNAPSHOT_CONTENT_DATABASE);
  EXPECT_THAT(snapshot->provenance(), HasSubstr("SQL text \"dump.sql\""));
  const auto back = path_->ReadBack(ended.snapshot_id());
  ASSERT_TRUE(back.ok());
  ASSERT_TRUE(io::WriteFileAtomic(directory_ + "/back.db", std::string(AsText(*back)), 0600).ok());
  auto db = sqlite::Open(directory_ + "/back.db", SQLITE_OPEN_READONLY);
  EXPECT_EQ(*sqlite::QueryInt(db->get(), "select count(*) from t"), 20000);
  EXPECT_TRUE(ScratchIsEmpty());
}

TEST_F(ImportsTest, WhatIsNoDatabaseMakesNothing) {
  const size_t snapshots = path_->SnapshotCount();
  std::string damaged_header = MakeDatabase("create table t(a)");
  for (size_t i = 100; i < damaged_header.size(); ++i) damaged_header[i] = static_cast<char>(i * 7919 >> 3);
  std::string not_sqlite = damaged_header;
  not_sqlite[18] = not_sqlite[19] = 9;  // a version that SQLite does not read
  not_sqlite[21] = 1;                   // nor these fractions
  EXPECT_EQ(ReasonFor(not_sqlite), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor("this is no SQL;"), "LOAD_REFUSED");
  EXPECT_EQ(ReasonFor("-- nothing but a comment\n"), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor("CREATE TABLE t(a unique); INSERT INTO t VALUES(1),(1);"), "LOAD_DAMAGED");
  EXPECT_EQ(ReasonFor("BEGIN; CREATE TABLE t(a);"), "LOAD_DAMAGED");
  EXPECT_EQ(ReasonFor("ATTACH '/etc/passwd' AS x; CREATE TABLE t(a);"), "LOAD_REFUSED");
  EXPECT_EQ(ReasonFor(MakeDatabase(Rows(100)).substr(0, 8192)), "IMPORT_TRUNCATED");
  EXPECT_EQ(path_->SnapshotCount(), snapshots);
  EXPECT_TRUE(ScratchIsEmpty());
}

TEST_F(ImportsTest, DamageIsImportedAsItIsAndSaid) {
  std::string content = MakeDatabase(Rows(3000));
  content.replace(4096 * 20, 4096, std::string(4096, 'x'));
  const v1::Operation ended = Import(content);
  ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED) << ended.DebugString();
  const auto snapshot = path_->snapshots->Resolve(ended.snapshot_id());
  EXPECT_EQ(snapshot->source_check(), v1::CHECK_STATE_DAMAGED);
  EXPECT_FALSE(snapshot->source_check_message().empty());
  EXPECT_TRUE(AsText(*path_->ReadBack(ended.snapshot_id())) == content);
}

TEST_F(ImportsTest, IsNeverTheNewestNorWhatAtFinds) {
  const v1::Operation ended = Import(MakeDatabase(Rows(100)));
  ASSERT_EQ(ended.state(), v1::OPERATION_STATE_SUCCEEDED);
  const SnapshotId id(ended.snapshot_id());
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), backup_.value());
  EXPECT_EQ(path_->snapshots->GetDatabase(device_, "main")->newest_snapshot().id(), backup_.value());
  const SystemTime later = FromProtoTime(path_->snapshots->Resolve(backup_.value())->taken_at()) + std::chrono::hours(1);
  const auto then = path_->snapshots->At(device_, "main", later, std::nullopt);
  ASSERT_TRUE(then.ok()) << then.status();
  EXPECT_EQ(then->id(), backup_.value());
  // Between the time of the file and that of the backup there was no state.
  EXPECT_EQ(ReasonOf(path_->snapshots->At(device_, "main", FromUnixMillis(1'700'000'001'000), std::nullopt).status()), "NO_SNAPSHOT_THEN");
  // Nor is it what was proven.
  ASSERT_TRUE(path_->snapshots->SetCheck(id, v1::CHECK_STATE_OK, "", real_.Now()).ok());
  EXPECT_FALSE(path_->snapshots->GetDatabase(device_, "main")->has_newest_proven_at());
  // The next backup goes on from the one before.
  const SnapshotId next = Commit(2);
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), next.value());
  EXPECT_EQ(path_->snapshots->GetDatabase(device_, "main")->snapshots(), 3);
}

TEST_F(ImportsTest, RetentionLeavesItAlone) {
  const std::string id = Import(MakeDatabase(Rows(10))).snapshot_id();
  const SnapshotId newest = Commit(10);
  const catalog::PolicyCatalog policies(*path_->db);
  const auto databases = policies.DatabasesAfter(0, 10);
  ASSERT_TRUE(databases.ok());
  auto seen = databases->front().seen;
  const auto snapshots = policies.SnapshotsOf(seen);
  ASSERT_TRUE(snapshots.ok());
  ASSERT_EQ(snapshots->size(), 2u);
  EXPECT_EQ((*snapshots)[0].id.value(), backup_.value());
  EXPECT_EQ((*snapshots)[1].id.value(), newest.value());
  // A plan that was made of these is not void because of it.
  catalog::DeletionCatalog deletions(*path_->db);
  const std::vector<SnapshotId> planned = {backup_};
  const auto trashed = deletions.TrashPlanned(seen, planned, "policy:x", real_.Now());
  ASSERT_TRUE(trashed.ok()) << trashed.status();
  EXPECT_EQ(*trashed, 1);
  EXPECT_EQ(path_->snapshots->Resolve(id)->state(), v1::SNAPSHOT_STATE_COMMITTED);
  // Deleted by an operator it goes as any.
  ASSERT_TRUE(deletions.Trash(SnapshotId(id), false, "operator:ann", real_.Now()).ok());
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->id(), newest.value());
}

// Scrub looks anew for what is proven when a chunk goes bad, and when it came back.
TEST_F(ImportsTest, IsNotWhatIsProvenAfterDamageEither) {
  const SnapshotId id(Import(MakeDatabase(Rows(100))).snapshot_id());
  ASSERT_TRUE(path_->snapshots->SetCheck(id, v1::CHECK_STATE_OK, "", real_.Now()).ok());
  catalog::ScrubCatalog scrub(*path_->db);
  for (const bool damaged : {true, false}) {
    for (const SnapshotId& snapshot : {backup_, id}) {
      ASSERT_TRUE(scrub.SetDamaged(snapshot, damaged).ok());
      EXPECT_FALSE(path_->snapshots->GetDatabase(device_, "main")->has_newest_proven_at());
    }
  }
}

// A week of states waits in the spool of a device that cannot be reached: an import meanwhile is no reason to put them all in one moment,
// where the tiers would keep one of them.
TEST_F(ImportsTest, IsNoContactWithTheDevice) {
  ASSERT_EQ(Import(MakeDatabase(Rows(10))).state(), v1::OPERATION_STATE_SUCCEEDED);
  const auto change = [&](const std::string& sql) {
    ASSERT_TRUE(path_->db->Write([&](sqlite3* db) { return sqlite::Execute(db, sql); }).ok());
  };
  const int64_t before = path_->Count("select effective_at from snapshot where id = '" + backup_.value() + "'");
  change(fmt::format("update snapshot set effective_at = {} where id = '{}'", before - 7 * 86'400'000, backup_.value()));
  const auto effective = [&](int64_t age_s) {
    const auto outcome = fakes::RunUpload(*path_->ingest, device_, fakes::FakeDatabase::Make(4096, 10, static_cast<unsigned>(age_s)),
                                          {.session_id = NewSession(), .age_seconds = age_s});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return path_->Count("select received_at - effective_at from snapshot where id = '" + outcome.snapshot_id + "'");
  };
  EXPECT_NEAR(static_cast<double>(effective(500'000)), 500'000'000.0, 1000.0);
  EXPECT_NEAR(static_cast<double>(effective(100'000)), 100'000'000.0, 1000.0);
}

TEST_F(ImportsTest, ADeviceThatIsGoneMeanwhileGetsNothing) {
  const size_t before = path_->SnapshotCount();
  const std::string content = MakeDatabase(Rows(100));
  auto client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(static_cast<int64_t>(content.size()))).ok());
  for (size_t at = 0; at < content.size(); at += 200'000) ASSERT_TRUE(client->Say(PieceOf(content.substr(at, 200'000))).ok());
  gone_ = true;
  ASSERT_TRUE(client->session->Handle(EndOf(content)).ok());
  client->session->End();
  EXPECT_EQ(WaitForEnd(client->answers.front().operation().id()).error().info().reason(), "DATABASE_NOT_FOUND");
  EXPECT_EQ(path_->SnapshotCount(), before);
  EXPECT_TRUE(ScratchIsEmpty());
}

// Each of them alone would fit.
TEST_F(ImportsTest, TogetherTheyLeaveTheReserveAlone) {
  const auto free = static_cast<int64_t>(*io::FreeBytes(directory_ + "/scratch"));
  auto first = *Connect();
  auto second = *Connect();
  ASSERT_TRUE(first->Say(BeginOf(free / 5 * 3)).ok());
  EXPECT_EQ(ReasonOf(second->Say(BeginOf(free / 5 * 3))), "NOT_ENOUGH_SPACE");
  second->session->End();
  first->session->End();
  auto third = *Connect();
  EXPECT_TRUE(third->Say(BeginOf(free / 5 * 3)).ok()) << "what ended takes nothing any more";
  third->session->End();
}

TEST_F(ImportsTest, MessagesOutOfOrderEndIt) {
  auto client = *Connect();
  EXPECT_EQ(ReasonOf(client->Say(PieceOf("x"))), "IMPORT_OUT_OF_ORDER");
  client->session->End();
  EXPECT_TRUE(client->answers.empty());
  client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(10)).ok());
  EXPECT_EQ(ReasonOf(client->Say(BeginOf(10))), "IMPORT_OUT_OF_ORDER");
  client->session->End();
  EXPECT_EQ(WaitForEnd(client->answers.front().operation().id()).error().info().reason(), "IMPORT_OUT_OF_ORDER");
  client = *Connect();
  EXPECT_EQ(ReasonOf(client->Say(v1::ImportSnapshotRequest())), "IMPORT_OUT_OF_ORDER");
  client->session->End();
}

TEST_F(ImportsTest, WhatDoesNotBeginWellMakesNoOperation) {
  const auto reason = [this](const v1::ImportSnapshotRequest& begin) {
    auto client = *Connect();
    const std::string found = ReasonOf(client->Say(begin));
    client->session->End();
    EXPECT_TRUE(client->answers.empty());
    return found;
  };
  EXPECT_EQ(reason(BeginOf(0)), "BEGIN_INVALID");
  EXPECT_EQ(reason(BeginOf(-5)), "BEGIN_INVALID");
  EXPECT_EQ(reason(BeginOf(10, "../x")), "BEGIN_INVALID");
  EXPECT_EQ(reason(BeginOf(10, std::string(256, 'x'))), "BEGIN_INVALID");
  EXPECT_EQ(reason(BeginOf(int64_t{1} << 50)), "IMPORT_TOO_LARGE");
  EXPECT_EQ(reason(BeginOf(int64_t{1} << 43)), "NOT_ENOUGH_SPACE");
  EXPECT_EQ(reason(BeginOf(10, "x", "alpha/other")), "DATABASE_NOT_FOUND");
  EXPECT_TRUE(operations_->List(DeviceId(), false, 10, "")->items.empty());
}

TEST_F(ImportsTest, ADifferentFileThanAnnouncedIsRefused) {
  auto client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(4)).ok());
  EXPECT_EQ(ReasonOf(client->Say(PieceOf("12345"))), "IMPORT_DAMAGED_ON_THE_WAY");
  client->session->End();
  for (const std::string& told : {std::string("123"), std::string("1235")}) {
    client = *Connect();
    ASSERT_TRUE(client->Say(BeginOf(4)).ok());
    ASSERT_TRUE(client->Say(PieceOf(told)).ok());
    EXPECT_EQ(ReasonOf(client->Say(EndOf("1234"))), "IMPORT_DAMAGED_ON_THE_WAY");
    client->session->End();
    EXPECT_EQ(WaitForEnd(client->answers.front().operation().id()).state(), v1::OPERATION_STATE_FAILED);
  }
}

TEST_F(ImportsTest, ACutStreamEndsTheOperation) {
  auto client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(100)).ok());
  ASSERT_TRUE(client->Say(PieceOf("abc")).ok());
  client->session->End();
  const v1::Operation ended = WaitForEnd(client->answers.front().operation().id());
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ended.error().info().reason(), "IMPORT_CUT");
  EXPECT_TRUE(ScratchIsEmpty());
}

TEST_F(ImportsTest, ACancelledOneIsClosed) {
  auto client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(100)).ok());
  const std::string id = client->answers.front().operation().id();
  ASSERT_TRUE(fleet_->Cancel(OperationId(id)).ok());
  const auto closed = client->WaitForClose();
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(ReasonOf(*closed), "CANCELLED");
  EXPECT_EQ(ReasonOf(client->Say(PieceOf("abc"))), "CANCELLED");
  client->session->End();
  EXPECT_EQ(WaitForEnd(id).state(), v1::OPERATION_STATE_CANCELLED);
}

TEST_F(ImportsTest, OneThatStandsStillIsClosed) {
  StopAll();
  options_.idle = std::chrono::milliseconds(50);
  StartAll();
  auto client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(100)).ok());
  const auto closed = client->WaitForClose();
  ASSERT_TRUE(closed.has_value());
  EXPECT_EQ(ReasonOf(*closed), "IMPORT_STALLED");
  client->session->End();
}

TEST_F(ImportsTest, MoreThanAFewAreRefused) {
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < options_.most; ++i) clients.push_back(*Connect());
  EXPECT_EQ(ReasonOf(Connect().status()), "TOO_MANY_IMPORTS");
  for (auto& client : clients) client->session->End();
  auto again = Connect();
  ASSERT_TRUE(again.ok());
  (*again)->session->End();
}

TEST_F(ImportsTest, ARestartEndsIt) {
  auto client = *Connect();
  ASSERT_TRUE(client->Say(BeginOf(100)).ok());
  const std::string id = client->answers.front().operation().id();
  // As a crash leaves it: nobody tells the end.
  StopAll();
  StartAll();
  const v1::Operation ended = WaitForEnd(id);
  EXPECT_EQ(ended.state(), v1::OPERATION_STATE_FAILED);
  EXPECT_EQ(ended.error().info().reason(), "IMPORT_INTERRUPTED");
}

TEST_F(ImportsTest, AKillAtEachStepLeavesAFailedOperationAndNoFile) {
  for (const char* point : {"import.received", "import.checked", "import.before_end"}) {
    SCOPED_TRACE(point);
    const std::string content = MakeDatabase(Rows(200));
    const size_t before = path_->SnapshotCount();
    StopAll();
    path_.reset();  // no thread may be left behind by the fork
    const pid_t pid = fork();
    if (pid == 0) {
      setenv("LITEFLEET_CRASH_AT", point, 1);
      Open();
      StartAll();
      Import(content);
      _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    Open();
    StartAll();
    const auto operations = operations_->List(DeviceId(), false, 1, "");
    ASSERT_TRUE(operations.ok() && operations->items.size() == 1);
    EXPECT_EQ(operations->items[0].error().info().reason(), "IMPORT_INTERRUPTED");
    // Committed is committed: it names the operation.
    const bool there = std::string_view(point) == "import.before_end";
    EXPECT_EQ(path_->SnapshotCount(), before + (there ? 1 : 0));
    EXPECT_TRUE(ScratchIsEmpty());
  }
}

}  // namespace
}  // namespace litefleet::imports
