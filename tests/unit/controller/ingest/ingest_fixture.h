// A controller's data path in a temporary directory: catalog, store, ingest, reader, all real.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_INGEST_INGEST_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_INGEST_INGEST_FIXTURE_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "common/base/executor.h"
#include "controller/catalog/schema.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/ingest/ingest.h"
#include "controller/restore/store_snapshot_reader.h"
#include "controller/store/file_store.h"
#include "tests/fakes/upload_device.h"

namespace litefleet::ingest {

// Takes nothing: whoever posts does it himself, so that one thread does everything in one order.
class NoExecutor final : public Executor {
 public:
  bool TryPost(absl::AnyInvocable<void()>) override { return false; }
};

struct DataPath {
  explicit DataPath(const std::string& directory, const Clock& clock, IngestLimits limits = {}, uint64_t seal_bytes = 4 << 20,
                    store::FileSystem& files = store::PosixFileSystem(), bool threads = true) {
    auto opened = catalog::CatalogDb::Open(directory + "/catalog.db", true, catalog::Migrations());
    EXPECT_TRUE(opened.ok()) << opened.status();
    db = *std::move(opened);
    snapshots = std::make_unique<catalog::SnapshotCatalog>(*db);
    ingest_catalog = std::make_unique<catalog::IngestCatalog>(*db);
    store::FileStoreOptions options;
    options.directory = directory + "/store";
    options.reserve_bytes = 0;
    options.seal_bytes = seal_bytes;
    options.first_pack_id = *ingest_catalog->LargestPack() + 1;
    auto opened_store = store::FileStore::Open(options, clock, files);
    EXPECT_TRUE(opened_store.ok()) << opened_store.status();
    store = *std::move(opened_store);
    readers = std::make_unique<restore::StoreSnapshotReaderFactory>(*ingest_catalog, *store);
    session_executor = std::make_unique<NoExecutor>();
    verify_executor = std::make_unique<NoExecutor>();
    if (threads) {
      session_executor = std::make_unique<ThreadPoolExecutor>(8, 1024);
      verify_executor = std::make_unique<ThreadPoolExecutor>(2, 1024);
    }
    ingest = std::make_unique<Ingest>(
        IngestDeps{
            .store = *store,
            .catalog = *ingest_catalog,
            .clock = clock,
            .session_executor = *session_executor,
            .verify_executor = *verify_executor,
            .contact =
                [this](const DeviceId&) { return DeviceContact{.clock_offset_ms = clock_offset_ms, .heard_before = previous_contact}; },
            .check_quota = [this](const DeviceId& device,
                                  bool goes_on) { return check_quota ? check_quota(device, goes_on) : absl::OkStatus(); },
            .now = [this, &clock]() -> absl::StatusOr<ControllerNow> { return now ? now() : ControllerNow{.time = clock.Now()}; },
            .on_committed =
                [this](const CommittedSnapshot& snapshot) {
                  const std::scoped_lock lock(committed_mu);
                  committed.push_back(snapshot);
                }},
        limits);
  }
  ~DataPath() {
    session_executor.reset();
    verify_executor.reset();
  }

  // The whole database as stored, or the error.
  absl::StatusOr<Bytes> ReadBack(const std::string& snapshot, std::vector<restore::WantedRun> wanted = {}) {
    auto reader = readers->Open(SnapshotId(snapshot), wanted);
    if (!reader.ok()) return reader.status();
    Bytes bytes;
    format::ChunkDecompressor decompressor;
    for (;;) {
      auto chunk = (*reader)->Next();
      if (!chunk.ok()) return chunk.status();
      if (!chunk->has_value()) return bytes;
      const absl::Status proven = restore::Unpack(**chunk, (*reader)->geometry().page_size, decompressor);
      if (!proven.ok()) return proven;
      bytes.insert(bytes.end(), (*chunk)->raw.begin(), (*chunk)->raw.end());
    }
  }
  size_t SnapshotCount() { return snapshots->List(DeviceId(), "", 1000, "")->items.size(); }
  int64_t Count(const std::string& sql) {
    int64_t count = -1;
    EXPECT_TRUE(db->Read([&](sqlite3* connection) -> absl::Status {
                    const auto value = sqlite::QueryInt(connection, sql);
                    count = value.value_or(-1);
                    return value.status();
                  }).ok());
    return count;
  }

  int64_t clock_offset_ms = 0;
  std::optional<SystemTime> previous_contact;
  std::function<absl::Status(const DeviceId&, bool)> check_quota;
  std::function<absl::StatusOr<ControllerNow>()> now;  // empty: the clock's
  std::mutex committed_mu;
  std::vector<CommittedSnapshot> committed;  // read when no upload runs
  std::unique_ptr<catalog::CatalogDb> db;
  std::unique_ptr<catalog::SnapshotCatalog> snapshots;
  std::unique_ptr<catalog::IngestCatalog> ingest_catalog;
  std::unique_ptr<store::FileStore> store;
  std::unique_ptr<restore::StoreSnapshotReaderFactory> readers;
  std::unique_ptr<Executor> session_executor;
  std::unique_ptr<Executor> verify_executor;
  std::unique_ptr<Ingest> ingest;
};

inline Bytes WholeOf(const fakes::FakeDatabase& database) {
  Bytes bytes;
  for (uint32_t i = 0; i < database.seeds.size(); ++i) {
    const Bytes extent = database.Extent(i);
    bytes.insert(bytes.end(), extent.begin(), extent.end());
  }
  return bytes;
}

class IngestTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/litefleet-ingest-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    directory_ = name;
  }
  void TearDown() override {
    path_.reset();
    std::filesystem::remove_all(directory_);
  }
  void Open(IngestLimits limits = {}) {
    path_.reset();
    path_ = std::make_unique<DataPath>(directory_, clock_, limits, 4 << 20, *disk_);
  }
  static std::string NewSession() { return NewUlid(RealClock().Now()); }
  fakes::UploadOutcome Upload(const fakes::FakeDatabase& database, const DeviceId& device, std::string session = NewSession()) {
    return fakes::RunUpload(*path_->ingest, device, database, {.session_id = std::move(session)});
  }
  // A small database of device_, whose commit is as `change` makes it: that is called when all else was sent.
  v1::Snapshot UploadCommit(const std::function<void(v1::UploadCommit&)>& change) {
    const fakes::FakeDatabase database = fakes::FakeDatabase::Make(4096, 10, 1);
    auto sink = std::make_shared<fakes::RecordingSink>();
    auto session = *path_->ingest->NewUpload(device_, sink);
    v1::UploadRequest request = fakes::BeginRequest(database, {.session_id = NewSession()});
    EXPECT_TRUE(session->Handle(request).ok());
    request = fakes::OfferRequest(database, 1, 0, 1);
    EXPECT_TRUE(session->Handle(request).ok());
    if (sink->Next(v1::UploadResponse::kMissing)->missing().positions_size() > 0) {
      request = fakes::ChunkRequest(database, 0);
      EXPECT_TRUE(session->Handle(request).ok());
    }
    request = fakes::CommitRequest(database);
    change(*request.mutable_commit());
    EXPECT_TRUE(session->Handle(request).ok());
    session->End();
    return *path_->snapshots->Resolve(sink->Next(v1::UploadResponse::kCommitted)->committed().snapshot_id());
  }

  const DeviceId device_{"11111111-1111-4111-8111-111111111111"};
  const DeviceId other_{"22222222-2222-4222-8222-222222222222"};
  std::string directory_;
  FakeClock clock_;
  store::FileSystem* disk_ = &store::PosixFileSystem();  // of the store
  std::unique_ptr<DataPath> path_;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_INGEST_INGEST_FIXTURE_H_
