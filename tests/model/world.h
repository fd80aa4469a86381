// The real store, catalog, ingest, prune, retention, scrub and heal over a file system that forgets, driven by one thread in random order.
//
// Uploads and readers advance message by message, and go on in the middle of a prune or a scrub, so that everything runs beside everything
// without a thread: what a seed does it does again. Thread safety: none.
#ifndef LITEFLEET_TESTS_MODEL_WORLD_H_
#define LITEFLEET_TESTS_MODEL_WORLD_H_

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "controller/backup/catalog_backups.h"
#include "controller/catalog/generation_catalog.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/policy_catalog.h"
#include "controller/catalog/prune_catalog.h"
#include "controller/catalog/quota_catalog.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/fleet/device_fleet.h"
#include "controller/heal/healer.h"
#include "controller/prune/mark_writer.h"
#include "controller/prune/pruner.h"
#include "controller/rebuild/catalog_generation.h"
#include "controller/retention/quotas.h"
#include "controller/retention/retention.h"
#include "controller/scrub/scrubber.h"
#include "tests/fakes/volatile_files.h"
#include "tests/model/model.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::model {

class World {
 public:
  using Tell = std::function<void(const std::string& line)>;

  // `tell`: an event; it is applied to `model` before it returns.
  World(Model& model, std::string directory, fakes::VolatileFiles& files, unsigned seed, Tell tell);
  ~World();

  // The catalog out of the packs alone, beside a controller that does not run.
  static absl::Status Rebuild(const std::string& directory, const Clock& clock, fakes::VolatileFiles& files);

  // An older copy of the catalog, in the place of the one that there was: it must be refused.
  static absl::Status ExpectOutdated(const std::string& directory, const Clock& clock, fakes::VolatileFiles& files);

  // What a start of the controller does, and then everything is looked at.
  void Start();
  // What a stop does that nothing cuts short.
  void Stop();
  void Act(int actions);
  void CheckAll();

 private:
  struct Reading {
    std::string snapshot;
    std::unique_ptr<restore::SnapshotReader> reader;
  };

  unsigned Random(size_t below) { return static_cast<unsigned>(random_() % below); }
  void Violation(const std::string& text);
  // True where `status` is fine or one of these reasons; else it is a violation.
  bool Expect(const absl::Status& status, std::initializer_list<std::string_view> reasons, std::string_view what);
  std::string Pick(std::initializer_list<Fate> fates);
  void Small();  // may happen inside a prune or a scrub

  // world_actions.cc
  void Mutate(int device);
  void BeginUpload(int device);
  void StepUpload();
  void EndUpload(int device);
  void StepReader();
  void Delete();
  void TakeBack();
  void Pin();
  void Prune();
  void Retain();
  void Scrub();
  void Flip();
  void BackUpCatalog();
  void SetQuota();
  void CheckHoldings();

  // world_devices.cc
  void OpenHealer();
  void Heal();
  void AnswerHealOrder(const DeviceId& device, const fakes::PagedDatabase& has, const OperationId& operation);
  void Forget(int device);

  void Check(const std::string& id, const Snapshot& snapshot);
  bool Affected(const std::string& id);

  Model& model_;
  const std::string directory_;
  fakes::VolatileFiles& files_;
  std::minstd_rand random_;
  const Tell tell_;
  FakeClock clock_;
  ingest::DataPath path_;
  catalog::DeletionCatalog deletions_;
  catalog::PruneCatalog pruning_;
  catalog::PolicyCatalog policies_;
  prune::MarkWriter marks_;
  prune::Pruner pruner_;
  retention::Retention retention_;
  catalog::OperationCatalog operations_;
  catalog::IdentityCatalog identities_;
  fleet::CatalogReports reports_;
  std::unique_ptr<fleet::DeviceFleet> fleet_;
  catalog::ScrubCatalog scrubs_;
  std::unique_ptr<scrub::Scrubber> scrubber_;
  catalog::GenerationCatalog generations_;
  rebuild::CatalogGeneration generation_;
  backup::CatalogBackups backups_;
  catalog::QuotaCatalog holdings_;
  retention::Quota quota_;
  catalog::HealCatalog heals_;
  std::unique_ptr<heal::Healer> healer_;
  std::vector<std::unique_ptr<fakes::PagedUpload>> uploads_;  // one a device, or none
  std::vector<Reading> readers_;
  bool pruning_now_ = false;
  bool scrubbing_now_ = false;
};

}  // namespace litefleet::model

#endif  // LITEFLEET_TESTS_MODEL_WORLD_H_
