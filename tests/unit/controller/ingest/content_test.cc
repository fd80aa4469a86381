// Uploads whose pages are no database: chunks end anywhere, nothing is compared, successive ones share what they have in common.
#include <random>
#include <string>

#include "common/base/status.h"
#include "common/format/segment.h"
#include "controller/catalog/deletion_catalog.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"
#include "tests/unit/controller/ingest/upload_text.h"

namespace litefleet::ingest {
namespace {

using Content = IngestTest;

std::string Rows(size_t bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < bytes) text += "INSERT INTO t VALUES(" + std::to_string(text.size()) + "," + std::to_string(random()) + ");\n";
  return text;
}

std::string TextOf(const Bytes& pages) {
  format::SegmentReader reader(format::Content::kSql);
  std::string text;
  EXPECT_TRUE(reader
                  .Add(pages,
                       [&](ByteView piece) {
                         text += AsText(piece);
                         return absl::OkStatus();
                       })
                  .ok());
  EXPECT_TRUE(reader.Finish().ok());
  return text;
}

TEST_F(Content, TextComesBackAndTheCatalogSaysWhatItIs) {
  Open();
  const std::string text = Rows(3'000'000, 1);
  const Sent sent = UploadText(*path_->ingest, device_, text);
  ASSERT_TRUE(sent.status.ok()) << sent.status;
  EXPECT_EQ(sent.sent, sent.offered);
  const auto snapshot = path_->snapshots->Resolve(sent.snapshot);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ(snapshot->method(), v1::METHOD_DUMP);
  EXPECT_EQ(snapshot->content(), v1::SNAPSHOT_CONTENT_SQL);
  EXPECT_EQ(snapshot->content_bytes(), static_cast<int64_t>(text.size()));
  const auto pages = path_->ReadBack(sent.snapshot);
  ASSERT_TRUE(pages.ok()) << pages.status();
  EXPECT_EQ(TextOf(*pages), text);
}

// As a device sends it that keeps nothing of it: how much it was it knows in the end.
TEST_F(Content, HowMuchTextThereIsMayBeToldWithTheCommit) {
  Open();
  const std::string text = Rows(3'000'000, 5);
  const auto unsized = [](v1::UploadRequest& r) {
    if (!r.has_begin()) return;
    r.mutable_begin()->set_page_count(0);
    r.mutable_begin()->set_size_at_commit(true);
  };
  const Sent sent = UploadText(*path_->ingest, device_, text, unsized);
  ASSERT_TRUE(sent.status.ok()) << sent.status;
  EXPECT_EQ(TextOf(*path_->ReadBack(sent.snapshot)), text);
  const Sent known = UploadText(*path_->ingest, device_, text);
  EXPECT_EQ(known.sent, 0U) << "the same text is the same chunks";
  EXPECT_EQ(path_->snapshots->Resolve(sent.snapshot)->root_digest(), path_->snapshots->Resolve(known.snapshot)->root_digest());
  EXPECT_TRUE(UploadText(*path_->ingest, device_, "", unsized).status.ok());

  const auto refused = [&](const std::string& reason, const std::function<void(v1::UploadRequest&)>& change) {
    const Sent wrong = UploadText(*path_->ingest, device_, text, [&](v1::UploadRequest& r) {
      unsized(r);
      change(r);
    });
    EXPECT_EQ(ReasonOf(wrong.status), reason) << wrong.status;
  };
  refused("COMMIT_INVALID", [](v1::UploadRequest& r) {
    if (r.has_commit()) r.mutable_commit()->set_page_count(r.commit().page_count() - 1);
  });
  refused("MANIFEST_INCOMPLETE", [](v1::UploadRequest& r) {
    if (r.has_commit()) r.mutable_commit()->set_page_count(r.commit().page_count() + 1);
  });
  refused("COMMIT_INVALID", [](v1::UploadRequest& r) {
    if (r.has_commit()) r.mutable_commit()->set_page_count(UINT32_MAX);
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_page_count(7);
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_content(v1::SNAPSHOT_CONTENT_DATABASE);
  });
}

TEST_F(Content, SuccessiveTextsShareWhatTheyHaveInCommon) {
  Open();
  std::string text = Rows(6'000'000, 2);
  const Sent first = UploadText(*path_->ingest, device_, text);
  ASSERT_TRUE(first.status.ok()) << first.status;
  text.insert(2'000'000, "INSERT INTO t VALUES(-1,'new');\n");
  const Sent second = UploadText(*path_->ingest, device_, text);
  ASSERT_TRUE(second.status.ok()) << second.status;
  EXPECT_LE(second.sent, 3u);
  EXPECT_EQ(TextOf(*path_->ReadBack(second.snapshot)), text);
  // Nothing was copied together: the third one finds the segments of the second.
  const Sent third = UploadText(*path_->ingest, device_, text);
  EXPECT_EQ(third.sent, 0u);
  // Another device may not refer to them.
  const Sent foreign = UploadText(*path_->ingest, other_, text);
  EXPECT_EQ(foreign.sent, foreign.offered);
}

TEST_F(Content, APartIsNeverTheNewestNorProvenNorWhatATimeMeans) {
  Open();
  const auto newest = [&] {
    const auto database = path_->snapshots->GetDatabase(device_, "main");
    const auto at = path_->snapshots->At(device_, "main", clock_.Now() + std::chrono::hours(24), std::nullopt);
    const auto found = path_->snapshots->Newest(device_, "main");
    EXPECT_EQ(at.ok() ? at->id() : "", found.ok() ? found->id() : "");
    EXPECT_EQ(database.ok() ? database->newest_snapshot().id() : "", found.ok() ? found->id() : "");
    return found.ok() ? found->id() : ReasonOf(found.status());
  };
  const Sent first = UploadPart(*path_->ingest, device_, Rows(50'000, 1), "tables a, b");
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_EQ(newest(), "NO_SNAPSHOT") << "nobody has backed up the rest";
  const Sent whole = UploadText(*path_->ingest, device_, Rows(100'000, 2));
  ASSERT_TRUE(whole.status.ok()) << whole.status;
  EXPECT_FALSE(path_->committed.back().part);
  const Sent part = UploadPart(*path_->ingest, device_, Rows(50'000, 3), "schema only");
  ASSERT_TRUE(part.status.ok()) << part.status;
  EXPECT_TRUE(path_->committed.back().part);
  EXPECT_EQ(newest(), whole.snapshot);
  EXPECT_EQ(path_->snapshots->Resolve(part.snapshot)->part(), "schema only");
  EXPECT_EQ(path_->snapshots->Resolve(whole.snapshot)->part(), "");
  EXPECT_EQ(path_->snapshots->GetDatabase(device_, "main")->snapshots(), 3);

  ASSERT_TRUE(path_->snapshots->SetCheck(SnapshotId(part.snapshot), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  EXPECT_FALSE(path_->snapshots->GetDatabase(device_, "main")->has_newest_proven_at());
  catalog::DeletionCatalog deletions(*path_->db);
  EXPECT_EQ(ReasonOf(deletions.Trash(SnapshotId(whole.snapshot), false, "operator:test", clock_.Now())), "LAST_SNAPSHOT")
      << "parts do not stand for it";
  ASSERT_TRUE(path_->snapshots->SetCheck(SnapshotId(whole.snapshot), v1::CHECK_STATE_OK, "", clock_.Now()).ok());
  EXPECT_TRUE(path_->snapshots->GetDatabase(device_, "main")->has_newest_proven_at());
  EXPECT_EQ(newest(), whole.snapshot);
  ASSERT_TRUE(deletions.Trash(SnapshotId(whole.snapshot), true, "operator:test", clock_.Now()).ok());
  EXPECT_EQ(newest(), "NO_SNAPSHOT");
  EXPECT_FALSE(path_->snapshots->GetDatabase(device_, "main")->has_newest_proven_at());
  ASSERT_TRUE(deletions.Restore(SnapshotId(whole.snapshot)).ok());
  EXPECT_EQ(newest(), whole.snapshot);
}

TEST_F(Content, EmptyTextIsASnapshotWithoutPages) {
  Open();
  const Sent sent = UploadText(*path_->ingest, device_, "");
  ASSERT_TRUE(sent.status.ok()) << sent.status;
  EXPECT_TRUE(path_->ReadBack(sent.snapshot)->empty());
}

TEST_F(Content, WhatTheRulesForbidIsRefused) {
  Open();
  const std::string text = Rows(600'000, 4);
  const auto refused = [&](const std::string& reason, const std::function<void(v1::UploadRequest&)>& change) {
    const Sent sent = UploadText(*path_->ingest, device_, text, change);
    EXPECT_EQ(ReasonOf(sent.status), reason) << sent.status;
  };
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_page_size(4096);
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_content(static_cast<v1::SnapshotContent>(9));
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_compare(true);
  });
  refused("BEGIN_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_base_snapshot_id(NewUlid(RealClock().Now()));
  });
  refused("ROOT_MISMATCH", [](v1::UploadRequest& r) {
    if (r.has_commit()) (*r.mutable_commit()->mutable_root_digest())[0] ^= 1;
  });
  refused("COMMIT_INVALID", [](v1::UploadRequest& r) {
    if (r.has_commit()) r.mutable_commit()->set_precopied(true);
  });
  refused("OFFER_INVALID", [](v1::UploadRequest& r) {
    if (r.has_offer() && r.offer().offer_id() == 2) r.mutable_offer()->mutable_chunks(0)->mutable_runs(0)->set_first_page(4'000'000);
  });
  // As an extent of a database each chunk would have to be whole.
  refused("OFFER_INVALID", [](v1::UploadRequest& r) {
    if (r.has_begin()) r.mutable_begin()->set_content(v1::SNAPSHOT_CONTENT_DATABASE);
  });
}

}  // namespace
}  // namespace litefleet::ingest
