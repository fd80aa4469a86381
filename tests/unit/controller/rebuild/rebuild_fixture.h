// A data path whose catalog is lost and made anew.
#ifndef LITEFLEET_TESTS_UNIT_CONTROLLER_REBUILD_REBUILD_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_CONTROLLER_REBUILD_REBUILD_FIXTURE_H_

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "controller/catalog/identity_catalog.h"
#include "controller/rebuild/rebuild.h"
#include "controller/rebuild/store_records.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::rebuild {

class RebuildTest : public ingest::IngestTest {
 protected:
  void SetUp() override {
    IngestTest::SetUp();
    OpenAll();
  }
  void OpenAll() {
    Open();
    due_ = std::make_unique<catalog::RecordCatalog>(*path_->db);
    records_ = std::make_unique<StoreRecords>(*due_, *path_->store, clock_);
    identities_ = std::make_unique<catalog::IdentityCatalog>(*path_->db);
    identities_->SetRecords(records_.get());
    path_->snapshots->SetRecords(records_.get());
  }
  void CloseAll() {
    identities_.reset();
    path_.reset();
  }
  // A device with a valid certificate.
  DeviceId Enroll(const std::string& name, const std::string& serial) {
    catalog::NewToken token;
    token.id = NewUlid(clock_.Now());
    RandomBytes(token.secret_hash);
    token.expires_at = clock_.Now() + std::chrono::hours(1);
    token.labels = {{"site", "north"}};
    EXPECT_TRUE(identities_->CreateToken(token).ok());
    catalog::KeyHash key{};
    RandomBytes(key);
    const auto enrolled = identities_->Enroll(token.secret_hash, key, name, clock_.Now());
    EXPECT_TRUE(enrolled.ok()) << enrolled.status();
    AddCertificate(enrolled->device, key, serial);
    return enrolled->device;
  }
  void AddCertificate(const DeviceId& device, const catalog::KeyHash& key, const std::string& serial) {
    catalog::CertificateRow row;
    row.serial = serial;
    row.device = device;
    row.role = "device";
    row.key_hash = key;
    row.issued_at = clock_.Now();
    row.not_after = clock_.Now() + std::chrono::hours(90 * 24);
    const absl::Status added = identities_->AddCertificate(row);
    EXPECT_TRUE(added.ok()) << added;
  }
  RebuildReport Rebuild(bool keep_certificates = true) {
    CloseAll();
    for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(directory_ + "/catalog.db" + suffix);
    RebuildReport report;
    {
      store::FileStoreOptions options;
      options.directory = directory_ + "/store";
      auto store = store::FileStore::Open(options, clock_);
      EXPECT_TRUE(store.ok()) << store.status();
      auto catalog = catalog::RebuildCatalog::Create(directory_ + "/catalog.db");
      EXPECT_TRUE(catalog.ok()) << catalog.status();
      auto result = rebuild::Rebuild(**store, **catalog, clock_, {.keep_certificates = keep_certificates, .progress = {}});
      EXPECT_TRUE(result.ok()) << result.status();
      if (result.ok()) report = *result;
      const absl::Status closed = (*catalog)->Close();
      EXPECT_TRUE(closed.ok()) << closed;
    }
    OpenAll();
    EXPECT_TRUE(records_->WriteDue().ok());
    return report;
  }
  std::vector<std::string> PackFiles() {
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory_ + "/store/packs")) files.push_back(entry.path());
    std::sort(files.begin(), files.end());
    return files;
  }
  void Flip(const std::string& file, uint64_t at) {
    std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
    stream.seekg(static_cast<std::streamoff>(at));
    const char c = static_cast<char>(stream.get() ^ 0x40);
    stream.seekp(static_cast<std::streamoff>(at));
    stream.put(c);
  }

  std::unique_ptr<catalog::RecordCatalog> due_;
  std::unique_ptr<StoreRecords> records_;
  std::unique_ptr<catalog::IdentityCatalog> identities_;
};

}  // namespace litefleet::rebuild

#endif  // LITEFLEET_TESTS_UNIT_CONTROLLER_REBUILD_REBUILD_FIXTURE_H_
