#include "controller/ingest/upload_session.h"

#include <gmock/gmock.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "common/base/proto_time.h"
#include "controller/restore/materialise.h"
#include "fmt/format.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::ingest {
namespace {

using fakes::BeginRequest;
using fakes::ChunkRequest;
using fakes::CommitRequest;
using fakes::FakeDatabase;
using fakes::OfferRequest;
using fakes::RecordingSink;

TEST_F(IngestTest, FirstBackupIsStoredAndReadBack) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 20 + 5, 1);
  const auto outcome = Upload(database, device_);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_TRUE(outcome.created);
  EXPECT_EQ(outcome.chunks_sent, 21u);
  const auto bytes = path_->ReadBack(outcome.snapshot_id);
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(*bytes, WholeOf(database));
  const auto snapshot = path_->snapshots->Resolve(outcome.snapshot_id);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->device_id(), device_.value());
  EXPECT_EQ(snapshot->database(), "main");
  EXPECT_EQ(snapshot->sequence(), 1u);
  EXPECT_EQ(snapshot->root_digest(), database.Root().AsString());
  EXPECT_EQ(snapshot->size_bytes(), int64_t{4096} * (64 * 20 + 5));
  EXPECT_GT(snapshot->stored_bytes(), 0);
  EXPECT_EQ(snapshot->wire_bytes(), snapshot->stored_bytes());
  ASSERT_EQ(path_->committed.size(), 1u);
  EXPECT_EQ(path_->committed[0].snapshot.value(), outcome.snapshot_id);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  EXPECT_EQ(path_->ingest->uploads(), 0u);
}

TEST_F(IngestTest, AllPageSizesAndAnEmptyDatabase) {
  Open();
  for (const uint32_t page_size : {512u, 1024u, 8192u, 65536u}) {
    const FakeDatabase database = FakeDatabase::Make(page_size, format::PagesPerExtent(page_size) * 2 + 1, page_size);
    const auto outcome = Upload(database, device_);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    EXPECT_EQ(*path_->ReadBack(outcome.snapshot_id), WholeOf(database));
  }
  const auto empty = Upload(FakeDatabase::Make(4096, 0, 1), device_);
  ASSERT_TRUE(empty.status.ok()) << empty.status;
  EXPECT_TRUE(path_->ReadBack(empty.snapshot_id)->empty());
}

TEST_F(IngestTest, UnchangedBackupSendsNothing) {
  Open();
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 20, 1);
  const auto first = Upload(database, device_);
  ASSERT_TRUE(first.status.ok());
  const auto second = Upload(database, device_);
  ASSERT_TRUE(second.status.ok());
  EXPECT_EQ(second.chunks_sent, 0u);
  EXPECT_NE(second.snapshot_id, first.snapshot_id);
  database.seeds[7] = 4711;
  const auto third = Upload(database, device_);
  ASSERT_TRUE(third.status.ok());
  EXPECT_EQ(third.chunks_sent, 1u);
  EXPECT_EQ(*path_->ReadBack(third.snapshot_id), WholeOf(database));
  EXPECT_EQ(path_->snapshots->Resolve(third.snapshot_id)->sequence(), 3u);
}

// What moved, and what an older snapshot holds, is claimed; what stands where it stood is held by the pinned snapshot.
TEST_F(IngestTest, OnlyWhatThePinnedSnapshotDoesNotHoldIsClaimed) {
  IngestLimits limits;
  limits.entries_per_part = 4;
  Open(limits);
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 20, 1);
  ASSERT_TRUE(Upload(database, device_).status.ok());
  const auto claims = [&](const FakeDatabase& offered) {
    auto sink = std::make_shared<RecordingSink>();
    auto session = *path_->ingest->NewUpload(device_, sink);
    v1::UploadRequest request = BeginRequest(offered, {.session_id = NewSession()});
    EXPECT_TRUE(session->Handle(request).ok());
    request = OfferRequest(offered, 1, 0, static_cast<uint32_t>(offered.seeds.size()));
    EXPECT_TRUE(session->Handle(request).ok());
    EXPECT_EQ(sink->Next(v1::UploadResponse::kMissing)->missing().positions_size(), 0);
    session->End();
    return path_->Count("select count(*) from claim");
  };
  EXPECT_EQ(claims(database), 0);
  FakeDatabase shorter = FakeDatabase::Make(4096, 64 * 10, 1);
  EXPECT_EQ(claims(shorter), 0);
  FakeDatabase moved = database;
  std::swap(moved.seeds[3], moved.seeds[15]);
  EXPECT_EQ(claims(moved), 2);
  EXPECT_EQ(path_->Count("select count(*) from upload_session where state = 1 and pinned <> ''"), 1) << "that with claims";
}

// Design law 7: what another device has must be shown to be had, and is stored once.
TEST_F(IngestTest, EqualDataOfAnotherDeviceIsUploadedAgainAndStoredOnce) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 10, 1);
  ASSERT_TRUE(Upload(database, device_).status.ok());
  const uint64_t before = path_->store->Stats()->stored_bytes;
  const auto other = Upload(database, other_);
  ASSERT_TRUE(other.status.ok()) << other.status;
  EXPECT_EQ(other.chunks_sent, 10u);
  EXPECT_LT(path_->store->Stats()->stored_bytes, before + 5000);
  EXPECT_EQ(path_->snapshots->Resolve(other.snapshot_id)->stored_bytes(), 0);
  EXPECT_EQ(*path_->ReadBack(other.snapshot_id), WholeOf(database));
  EXPECT_EQ(Upload(database, other_).chunks_sent, 0u);
}

TEST_F(IngestTest, RepeatedContentIsStoredOnce) {
  Open();
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 30, 1);
  for (unsigned& seed : database.seeds) seed = 5;
  const auto outcome = Upload(database, device_);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 1);
  EXPECT_EQ(*path_->ReadBack(outcome.snapshot_id), WholeOf(database));
  EXPECT_LT(path_->store->Stats()->stored_bytes, 300'000u);
}

TEST_F(IngestTest, ResumeGoesOnWhereItStood) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 30, 1);
  const std::string session = NewSession();
  const auto cut = fakes::RunUpload(*path_->ingest, device_, database, {.session_id = session, .stop_after_chunks = 17});
  EXPECT_EQ(ReasonOf(cut.status), "UPLOAD_CANCELLED") << cut.status;
  EXPECT_EQ(path_->SnapshotCount(), 0u);
  Open();  // a restart between
  const auto rest = Upload(database, device_, session);
  ASSERT_TRUE(rest.status.ok()) << rest.status;
  EXPECT_EQ(rest.durable_at_begin, 17u);
  EXPECT_EQ(rest.chunks_sent, 13u);
  EXPECT_EQ(*path_->ReadBack(rest.snapshot_id), WholeOf(database));
  EXPECT_GT(path_->snapshots->Resolve(rest.snapshot_id)->wire_bytes(), 30 * 100'000);
  // The answer was lost: the same session is answered with the same snapshot.
  const auto again = Upload(database, device_, session);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_EQ(again.snapshot_id, rest.snapshot_id);
  EXPECT_FALSE(again.created);
  EXPECT_EQ(path_->SnapshotCount(), 1u);
}

// An operation that failed while the link was away, and the one after it.
TEST_F(IngestTest, AnotherSessionOfTheDatabaseGoesOnWhereOneWasCut) {
  Open();
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 40, 1);
  const auto cut = fakes::RunUpload(*path_->ingest, device_, database, {.session_id = NewSession(), .stop_after_chunks = 36});
  EXPECT_EQ(ReasonOf(cut.status), "UPLOAD_CANCELLED") << cut.status;
  Open();
  clock_.Advance(std::chrono::hours(24 * 6));
  const auto second = fakes::RunUpload(*path_->ingest, device_, database, {.session_id = NewSession(), .stop_after_chunks = 2});
  EXPECT_EQ(second.chunks_sent, 2u);
  // The first session goes; what the second found of it stays, and goes with that.
  clock_.Advance(std::chrono::hours(24 * 2));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 1);
  EXPECT_EQ(path_->Count("select count(*) from device_chunk"), 38);
  database.seeds[7] = 4711;
  const auto third = Upload(database, device_);
  ASSERT_TRUE(third.status.ok()) << third.status;
  EXPECT_EQ(third.chunks_sent, 3u);
  EXPECT_EQ(*path_->ReadBack(third.snapshot_id), WholeOf(database));
  clock_.Advance(std::chrono::hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from device_chunk"), 40);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  EXPECT_EQ(Upload(database, device_).chunks_sent, 0u);
}

TEST_F(IngestTest, SessionsOfOtherDatabasesOrDevicesDoNotGoOn) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 10, 1);
  const auto cut = [&](const DeviceId& device, const std::string& name) {
    return fakes::RunUpload(*path_->ingest, device, database, {.session_id = NewSession(), .database = name, .stop_after_chunks = 9})
        .chunks_sent;
  };
  EXPECT_EQ(cut(device_, "main"), 9u);
  EXPECT_EQ(cut(other_, "main"), 9u);
  EXPECT_EQ(cut(device_, "other"), 9u);
}

TEST_F(IngestTest, SmallMarksAndWindows) {
  IngestLimits limits;
  limits.mark_bytes = 300'000;
  limits.in_flight_bytes = 200'000;
  limits.entries_per_part = 3;
  Open(limits);
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 25 + 1, 1);
  const auto outcome = Upload(database, device_);
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(*path_->ReadBack(outcome.snapshot_id), WholeOf(database));
  EXPECT_EQ(path_->Count("select count(*) from manifest_part"), 9);
}

// What a fast upload sends is made durable in larger steps than what a slow one sends.
TEST_F(IngestTest, AMarkSoonAfterAnotherWaitsForTwiceAsMuch) {
  IngestLimits limits;
  limits.mark_bytes = 300'000;  // three chunks
  limits.mark_pause = std::chrono::milliseconds(200);
  path_ = std::make_unique<DataPath>(directory_, clock_, limits, 4 << 20, store::PosixFileSystem(), /*threads=*/false);
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 16, 1);
  auto sink = std::make_shared<RecordingSink>();
  auto session = *path_->ingest->NewUpload(device_, sink);
  v1::UploadRequest request = BeginRequest(database, {.session_id = NewSession()});
  ASSERT_TRUE(session->Handle(request).ok());
  request = OfferRequest(database, 1, 0, 16);
  ASSERT_TRUE(session->Handle(request).ok());
  std::vector<int64_t> durable;
  for (uint32_t i = 0; i < 14; ++i) {
    if (i == 8) clock_.Advance(limits.mark_pause);
    request = ChunkRequest(database, i);
    ASSERT_TRUE(session->Handle(request).ok());
    durable.push_back(path_->Count("select count(*) from chunk"));
  }
  EXPECT_THAT(durable, testing::ElementsAre(0, 0, 3, 3, 3, 3, 3, 8, 8, 8, 11, 11, 11, 11));
  session->End();
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 14);
}

TEST_F(IngestTest, WantedRunsOnly) {
  IngestLimits limits;
  limits.entries_per_part = 3;
  Open(limits);
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 25 + 1, 1);
  const auto outcome = Upload(database, device_);
  ASSERT_TRUE(outcome.status.ok());
  const auto pages = [&](std::vector<restore::WantedRun> wanted) {
    std::vector<uint32_t> firsts;
    auto reader = path_->readers->Open(SnapshotId(outcome.snapshot_id), wanted);
    EXPECT_TRUE(path_->readers->pins().IsPinned(SnapshotId(outcome.snapshot_id)));
    for (;;) {
      auto chunk = (*reader)->Next();
      EXPECT_TRUE(chunk.ok()) << chunk.status();
      if (!chunk.ok() || !chunk->has_value()) return firsts;
      firsts.push_back((*chunk)->first_page);
    }
  };
  EXPECT_THAT(pages({{1, 1}}), testing::ElementsAre(1));
  EXPECT_THAT(pages({{64, 2}}), testing::ElementsAre(1, 65));
  EXPECT_THAT(pages({{700, 1}, {705, 1}, {1601, 1}}), testing::ElementsAre(641, 705 - 0, 1601));
  EXPECT_THAT(pages({{1, 64 * 25 + 1}}).size(), 26u);
  EXPECT_FALSE(path_->readers->pins().IsPinned(SnapshotId(outcome.snapshot_id)));
  EXPECT_EQ(ReasonOf(path_->readers->Open(SnapshotId(outcome.snapshot_id), std::vector<restore::WantedRun>{{5, 2}, {6, 1}}).status()),
            "RUNS_INVALID");
  EXPECT_EQ(ReasonOf(path_->readers->Open(SnapshotId(outcome.snapshot_id), std::vector<restore::WantedRun>{{1601, 2}}).status()),
            "RUNS_INVALID");
  EXPECT_EQ(ReasonOf(path_->readers->Open(SnapshotId("01ARZ3NDEKTSV4RRFFQ69G5FAV"), {}).status()), "SNAPSHOT_NOT_FOUND");
}

TEST_F(IngestTest, Materialise) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 5 + 7, 1);
  const auto outcome = Upload(database, device_);
  ASSERT_TRUE(outcome.status.ok());
  const std::string file = directory_ + "/copy.db";
  uint64_t last = 0;
  ASSERT_TRUE(restore::Materialise(*path_->readers, SnapshotId(outcome.snapshot_id), file, [&](uint64_t written) {
                last = written;
                return absl::OkStatus();
              }).ok());
  EXPECT_EQ(last, std::filesystem::file_size(file));
  std::ifstream in(file, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(in)), {});
  EXPECT_EQ(content, AsText(WholeOf(database)));
  EXPECT_EQ(restore::Materialise(*path_->readers, SnapshotId(outcome.snapshot_id), file, [](uint64_t) { return absl::OkStatus(); }).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(restore::Materialise(*path_->readers, SnapshotId(outcome.snapshot_id), file + "2",
                                 [](uint64_t) { return absl::CancelledError("stop"); })
                .code(),
            absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(file + "2"));
}

TEST_F(IngestTest, FlippedBitsInAPackAreNoticedWhenRead) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 10, 1);
  const auto outcome = Upload(database, device_);
  ASSERT_TRUE(outcome.status.ok());
  const std::string pack = std::filesystem::directory_iterator(directory_ + "/store/packs")->path();
  std::fstream file(pack, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(500'000);
  file.write("damage", 6);
  file.close();
  EXPECT_EQ(path_->ReadBack(outcome.snapshot_id).status().code(), absl::StatusCode::kDataLoss);
}

// What stands in the socket before the commit makes the age late, and the state look newer than it is: the clock, which is right, is
// believed. Where it looks older, or newer than the stream has lasted, the clock was set.
TEST_F(IngestTest, ASlowLinkDoesNotMoveWhenAStateWasTaken) {
  Open();
  const auto upload = [&](std::chrono::seconds lasts, std::chrono::seconds late, std::chrono::seconds clock_set) {
    const SystemTime taken = clock_.Now();
    const v1::Snapshot snapshot = UploadCommit([&](v1::UploadCommit& commit) {
      clock_.Advance(lasts);
      *commit.mutable_taken_at() = ToProtoTime(taken + clock_set);
      *commit.mutable_age() = ToProtoDuration(std::chrono::duration_cast<std::chrono::milliseconds>(lasts - late));
    });
    return (TimestampMillis(snapshot.taken_at()) - ToUnixMillis(taken)) / 1000;
  };
  using std::chrono::seconds;
  EXPECT_EQ(upload(seconds(120), seconds(90), seconds(0)), 0) << "90 s in the socket";
  EXPECT_EQ(upload(seconds(120), seconds(0), seconds(40)), 0) << "set forward";
  EXPECT_EQ(upload(seconds(120), seconds(0), seconds(-200)), 0) << "set back";
  EXPECT_EQ(upload(seconds(120), seconds(10), seconds(-100'000)), 10);
}

TEST_F(IngestTest, TimesAreCorrectedAndClamped) {
  Open();
  const SystemTime now = clock_.Now();
  const int64_t now_s = ToUnixMillis(now) / 1000;
  path_->clock_offset_ms = 5000;
  const v1::Snapshot first = UploadCommit([&](v1::UploadCommit& commit) {
    commit.mutable_taken_at()->set_seconds(now_s - 105);
    commit.mutable_age()->set_seconds(100);
  });
  EXPECT_EQ(first.taken_at().seconds(), now_s - 100);
  EXPECT_EQ(first.effective_at().seconds(), now_s - 100);
  EXPECT_EQ(first.received_at().seconds(), now_s);
  // The device's clock was set after it had been measured: in which year it was taken says the age.
  for (const int64_t jump : {-1'500'000'000, 90'000}) {
    const v1::Snapshot jumped = UploadCommit([&](v1::UploadCommit& commit) {
      commit.mutable_taken_at()->set_seconds(now_s - 55 + jump);
      commit.mutable_age()->set_seconds(50);
    });
    EXPECT_EQ(jumped.taken_at().seconds(), now_s - 50) << jump;
  }
  // Not before the snapshot before, whatever is claimed.
  EXPECT_EQ(UploadCommit([](v1::UploadCommit& commit) { commit.mutable_age()->set_seconds(1'000'000); }).effective_at().seconds(),
            now_s - 50);
  // Not before the device was heard last.
  path_->previous_contact = now - std::chrono::seconds(20);
  EXPECT_EQ(UploadCommit([](v1::UploadCommit& commit) { commit.mutable_age()->set_seconds(50); }).effective_at().seconds(), now_s - 20);
  // Not in the future.
  const v1::Snapshot future = UploadCommit([&](v1::UploadCommit& commit) {
    commit.mutable_taken_at()->set_seconds(now_s + 1'000'000);
    commit.clear_age();
  });
  EXPECT_EQ(future.effective_at().seconds(), now_s);
  const v1::Snapshot nonsense = UploadCommit([&](v1::UploadCommit& commit) {
    commit.mutable_taken_at()->set_seconds(INT64_MAX);
    commit.mutable_age()->set_seconds(INT64_MIN);
    commit.mutable_duration()->set_seconds(INT64_MAX);
    commit.mutable_duration()->set_nanos(INT32_MAX);
    commit.set_read_bytes(-5);
    commit.set_pages_sent(UINT32_MAX);
  });
  EXPECT_EQ(nonsense.effective_at().seconds(), now_s);
}

TEST_F(IngestTest, TimelinesAreOnlyThoseThatWereGiven) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 10, 1);
  const auto on = [&](uint64_t timeline) {
    return fakes::RunUpload(*path_->ingest, device_, database, {.session_id = NewSession(), .timeline = timeline}).status;
  };
  EXPECT_TRUE(on(1).ok());
  EXPECT_EQ(ReasonOf(on(2)), "TIMELINE_UNKNOWN");
  EXPECT_EQ(ReasonOf(on(0)), "BEGIN_INVALID");
  const OperationId operation(NewSession());
  EXPECT_EQ(*path_->snapshots->ReserveTimeline(device_, "main", operation), 2u);
  EXPECT_EQ(*path_->snapshots->ReserveTimeline(device_, "main", operation), 2u);
  EXPECT_TRUE(on(2).ok());
  EXPECT_EQ(*path_->snapshots->HighestTimeline(device_, "main"), 2u);
}

TEST_F(IngestTest, SessionsBelongToTheirDevice) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 10, 1);
  const std::string session = NewSession();
  ASSERT_TRUE(Upload(database, device_, session).status.ok());
  EXPECT_EQ(ReasonOf(Upload(database, other_, session).status), "SESSION_NOT_YOURS");
  EXPECT_EQ(ReasonOf(fakes::RunUpload(*path_->ingest, device_, database, {.session_id = session, .database = "other"}).status),
            "SESSION_NOT_YOURS");
}

TEST_F(IngestTest, ExpiredSessionsAreRemovedWithTheirRights) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 4, 1);
  const std::string session = NewSession();
  EXPECT_FALSE(fakes::RunUpload(*path_->ingest, device_, database, {.session_id = session, .stop_after_chunks = 3}).status.ok());
  const FakeDatabase kept = FakeDatabase::Make(4096, 64 * 2, 2);
  ASSERT_TRUE(Upload(kept, device_).status.ok());
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 2);
  clock_.Advance(std::chrono::hours(24 * 8));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 1);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  EXPECT_EQ(path_->Count("select count(*) from device_chunk"), 2);
  clock_.Advance(std::chrono::hours(24 * 40));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 0);
  EXPECT_EQ(Upload(kept, device_).chunks_sent, 0u) << "what a snapshot holds may still be referred to";
  EXPECT_EQ(Upload(database, device_, session).chunks_sent, 4u);
}

// One a second of each database: nobody asks about any but the newest, whose answer may be lost with an agent that is away for weeks.
TEST_F(IngestTest, SessionsOfSyncsAreForgottenAfterADayButForTheNewest) {
  Open();
  FakeDatabase database = FakeDatabase::Make(4096, 64 * 2, 1);
  fakes::UploadPlan plan{.session_id = NewSession(), .method = v1::METHOD_CONTINUOUS};
  for (int i = 0; i < 3; ++i) {
    plan.session_id = NewSession();
    database.seeds[0] = 5000 + i;
    ASSERT_TRUE(fakes::RunUpload(*path_->ingest, device_, database, plan).status.ok());
  }
  const auto sessions = [&] { return path_->Count("select count(*) from upload_session"); };
  clock_.Advance(std::chrono::hours(23));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(sessions(), 3);
  for (int day = 0; day < 40; ++day) {
    clock_.Advance(std::chrono::hours(25));
    ASSERT_TRUE(path_->ingest->Maintain().ok());
    EXPECT_EQ(sessions(), 1);
  }
  const auto again = fakes::RunUpload(*path_->ingest, device_, database, plan);
  ASSERT_TRUE(again.status.ok()) << again.status;
  EXPECT_FALSE(again.created);
  EXPECT_EQ(path_->SnapshotCount(), 3U);
  plan.session_id = NewSession();
  ASSERT_TRUE(fakes::RunUpload(*path_->ingest, device_, database, plan).created);
  clock_.Advance(std::chrono::hours(25));
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(sessions(), 1);
}

// What a long hold of the time has left is not removed on one call's time.
TEST_F(IngestTest, ManyExpiredSessionsGoInPortions) {
  Open();
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 10, 1), device_).status.ok());
  const auto fill = [&](int state, int count) {
    ASSERT_TRUE(path_->db
                    ->Write([&](sqlite::Connection db) -> absl::Status {
                      return sqlite::Execute(
                          db, "with recursive n(i) as (select 1 union all select i + 1 from n where i < " + std::to_string(count) +
                                  ") insert into upload_session (session, owner, database, state, expires_at) select 'x' || " +
                                  std::to_string(state) + " || '-' || i, 1, (select id from database), " + std::to_string(state) +
                                  ", 1 from n");
                    })
                    .ok());
  };
  const auto left = [&](int state) {
    return path_->Count("select count(*) from upload_session where expires_at = 1 and state = " + std::to_string(state));
  };
  fill(2, 50'700);
  fill(1, 50'300);
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(left(2), 700);
  EXPECT_EQ(left(1), 300);
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(left(2) + left(1), 0);
  // Those with claims go one by one, as many as there is time for.
  fill(1, 250);
  ASSERT_TRUE(path_->db
                  ->Write([](sqlite::Connection db) {
                    return sqlite::Execute(db, "insert into claim (session, chunk) select id, 1 from upload_session where expires_at = 1");
                  })
                  .ok());
  for (int call = 0; call < 250 && left(1) > 0; ++call) ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(left(1), 0);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
}

// The stream that ends has its own session to remove, and not those of the whole fleet.
TEST_F(IngestTest, AStreamThatEndsRemovesNoOtherSession) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 4, 1);
  EXPECT_FALSE(fakes::RunUpload(*path_->ingest, device_, database, {.session_id = NewSession(), .stop_after_chunks = 3}).status.ok());
  clock_.Advance(std::chrono::hours(24 * 8));
  EXPECT_FALSE(fakes::RunUpload(*path_->ingest, other_, database, {.session_id = NewSession(), .stop_after_chunks = 3}).status.ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 2);
  ASSERT_TRUE(path_->ingest->Maintain().ok());
  EXPECT_EQ(path_->Count("select count(*) from upload_session"), 1);
}

TEST_F(IngestTest, ANewerStreamEndsTheOlderOne) {
  Open();
  const FakeDatabase database = FakeDatabase::Make(4096, 64 * 4, 1);
  const std::string session = NewSession();
  auto sink = std::make_shared<RecordingSink>();
  auto older = *path_->ingest->NewUpload(device_, sink);
  v1::UploadRequest request = BeginRequest(database, {.session_id = session});
  ASSERT_TRUE(older->Handle(request).ok());
  request = OfferRequest(database, 1, 0, 4);
  ASSERT_TRUE(older->Handle(request).ok());
  request = ChunkRequest(database, 0);
  ASSERT_TRUE(older->Handle(request).ok());
  std::thread closer([&] {
    while (!sink->closed().has_value()) std::this_thread::yield();
    older->End();
  });
  const auto newer = Upload(database, device_, session);
  closer.join();
  ASSERT_TRUE(newer.status.ok()) << newer.status;
  EXPECT_EQ(newer.chunks_sent, 3u);
  EXPECT_EQ(ReasonOf(*sink->closed()), "REPLACED_BY_NEWER_STREAM");
}

// Messages that were on their way for long, and a retry of an operation that knows only an old state.
TEST_F(IngestTest, AnOldStreamThatComesAfterTheCommitChangesNothing) {
  Open();
  const FakeDatabase old_state = FakeDatabase::Make(4096, 64 * 4, 1);
  const FakeDatabase new_state = FakeDatabase::Make(4096, 64 * 4, 2);
  const std::string session = NewSession();
  const auto committed = Upload(new_state, device_, session);
  ASSERT_TRUE(committed.status.ok()) << committed.status;
  auto sink = std::make_shared<RecordingSink>();
  auto late = *path_->ingest->NewUpload(device_, sink);
  v1::UploadRequest request = BeginRequest(old_state, {.session_id = session});
  ASSERT_TRUE(late->Handle(request).ok());
  const auto answer = sink->Next(v1::UploadResponse::kCommitted);
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->committed().snapshot_id(), committed.snapshot_id);
  EXPECT_FALSE(answer->committed().created());
  for (v1::UploadRequest& more :
       std::vector<v1::UploadRequest>{OfferRequest(old_state, 1, 0, 4), ChunkRequest(old_state, 0), CommitRequest(old_state)}) {
    EXPECT_EQ(ReasonOf(late->Handle(more)), "UPLOAD_OUT_OF_ORDER");
  }
  late->End();
  EXPECT_EQ(path_->SnapshotCount(), 1u);
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 4);
  EXPECT_EQ(path_->Count("select count(*) from claim"), 0);
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->root_digest(), new_state.Root().AsString());
  EXPECT_EQ(*path_->ReadBack(committed.snapshot_id), WholeOf(new_state));
}

TEST_F(IngestTest, ManyDevicesAtOnce) {
  Open();
  std::vector<std::thread> threads;
  std::vector<fakes::UploadOutcome> outcomes(8);
  for (unsigned t = 0; t < outcomes.size(); ++t) {
    threads.emplace_back([&, t] {
      const DeviceId device("0000000" + std::to_string(t) + "-1111-4111-8111-111111111111");
      outcomes[t] = Upload(FakeDatabase::Make(4096, 64 * 20, t / 2), device);  // two and two have the same data
    });
  }
  for (auto& thread : threads) thread.join();
  for (unsigned t = 0; t < outcomes.size(); ++t) {
    ASSERT_TRUE(outcomes[t].status.ok()) << outcomes[t].status;
    EXPECT_EQ(*path_->ReadBack(outcomes[t].snapshot_id), WholeOf(FakeDatabase::Make(4096, 64 * 20, t / 2)));
  }
  EXPECT_EQ(path_->Count("select count(*) from chunk"), 80);
}

TEST_F(IngestTest, UploadsOfOneDatabaseAtOnceGetTheirSequenceNumbers) {
  Open();
  std::vector<std::thread> threads;
  std::vector<fakes::UploadOutcome> outcomes(6);
  for (unsigned t = 0; t < outcomes.size(); ++t) {
    threads.emplace_back([&, t] { outcomes[t] = Upload(FakeDatabase::Make(4096, 64, t), device_); });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& outcome : outcomes) EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(path_->snapshots->Newest(device_, "main")->sequence(), 6u);
}

}  // namespace
}  // namespace litefleet::ingest
