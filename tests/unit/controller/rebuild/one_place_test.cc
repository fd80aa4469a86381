// Records that take a right away, or that keep data, stand twice: a lost sector does not bring back what was before them.
#include <gmock/gmock.h>

#include "common/io/file.h"
#include "controller/catalog/policy_catalog.h"
#include "tests/unit/controller/rebuild/rebuild_fixture.h"

namespace litefleet::rebuild {
namespace {

using fakes::FakeDatabase;

// Each sector of 4 KiB in its turn.
TEST_F(RebuildTest, DamageOfOnePlaceLetsNoOldKeyInAndLoosensNoPolicy) {
  const DeviceId device = Enroll("alpha", "aa01");
  const DeviceId other = Enroll("beta", "bb01");
  catalog::PolicyCatalog policies(*path_->db);
  policies.SetRecords(records_.get());
  ASSERT_TRUE(policies.Put("shops", "name = \"shops\"\n[retention]\nkeep_last = 3\n", clock_.Now()).ok());
  ASSERT_TRUE(policies.Put("old", "name = \"old\"\n", clock_.Now()).ok());
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 5, 2), device).status.ok());
  ASSERT_TRUE(Upload(FakeDatabase::Make(4096, 5, 3), other).status.ok());
  // A certificate is renewed, the new one is used; then what is kept is kept longer.
  AddCertificate(device, (*identities_->FindCertificate("aa01"))->key_hash, "aa02");
  ASSERT_TRUE(identities_->CertificateUsed("aa02", clock_.Now()).ok());
  ASSERT_TRUE(policies.Put("shops", "name = \"shops\"\n[retention]\nkeep_last = 70\n", clock_.Now()).ok());
  ASSERT_TRUE(policies.Delete("old").ok());
  ASSERT_TRUE(policies.Hold(other, "main", "SUDDENLY_MANY", "too many", clock_.Now()).ok());
  ASSERT_TRUE(records_->WriteDue().ok());
  CloseAll();
  const std::vector<std::string> files = PackFiles();
  ASSERT_EQ(files.size(), 1U);
  const std::string whole = *io::ReadFile(files[0], size_t{1} << 30);
  for (size_t at = 4096; at < whole.size(); at += 4096) {
    std::string damaged = whole;
    damaged.replace(at, std::min<size_t>(4096, whole.size() - at), std::min<size_t>(4096, whole.size() - at), '\xa5');
    for (const std::string& file : PackFiles()) std::filesystem::remove(file);
    ASSERT_TRUE(io::WriteFileAtomic(files[0], damaged).ok());
    Rebuild();
    const auto replaced = identities_->FindCertificate("aa01");
    ASSERT_TRUE(replaced.ok()) << replaced.status();
    EXPECT_TRUE(!replaced->has_value() || (*replaced)->revoked) << at;
    const auto used = identities_->FindCertificate("aa02");
    EXPECT_TRUE(used.ok() && used->has_value() && !(*used)->revoked) << at;
    catalog::PolicyCatalog found(*path_->db);
    const auto rows = found.List();
    ASSERT_TRUE(rows.ok() && rows->size() == 1U) << at;
    EXPECT_THAT((*rows)[0].text, testing::HasSubstr("keep_last = 70")) << at;
    EXPECT_EQ(found.Holds(10, 0)->size(), 1U) << at;
    CloseAll();
  }
  OpenAll();
}

}  // namespace
}  // namespace litefleet::rebuild
