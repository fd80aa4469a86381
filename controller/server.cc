#include "controller/server.h"

#include <fcntl.h>
#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <malloc.h>
#include <netdb.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <string_view>
#include <thread>
#include <utility>

#include "common/base/executor.h"
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "common/io/admin_socket.h"
#include "common/io/file.h"
#include "common/io/patient_lock.h"
#include "common/obs/log.h"
#include "common/rpc/address.h"
#include "common/rpc/channel.h"
#include "common/rpc/server_credentials.h"
#include "controller/backup/catalog_backups.h"
#include "controller/catalog/generation_catalog.h"
#include "controller/catalog/heal_catalog.h"
#include "controller/catalog/identity_catalog.h"
#include "controller/catalog/ingest_catalog.h"
#include "controller/catalog/operation_catalog.h"
#include "controller/catalog/record_catalog.h"
#include "controller/catalog/schema.h"
#include "controller/catalog/scrub_catalog.h"
#include "controller/catalog/snapshot_catalog.h"
#include "controller/doctor/doctor.h"
#include "controller/file_exchange.h"
#include "controller/fleet/device_fleet.h"
#include "controller/flow/fair_rate.h"
#include "controller/flow/fair_slots.h"
#include "controller/heal/healer.h"
#include "controller/identity/enrollment.h"
#include "controller/ingest/ingest.h"
#include "controller/manifest/manifest_reader.h"
#include "controller/metrics/metrics_server.h"
#include "controller/prune/maintenance.h"
#include "controller/rebuild/catalog_generation.h"
#include "controller/rebuild/store_records.h"
#include "controller/restore/store_snapshot_reader.h"
#include "controller/retention/clock_sync.h"
#include "controller/retention/quotas.h"
#include "controller/rpc/admin_service.h"
#include "controller/rpc/agent_service.h"
#include "controller/rpc/authenticator.h"
#include "controller/rpc/control_reactor.h"
#include "controller/rpc/fetch_reactor.h"
#include "controller/rpc/import_service.h"
#include "controller/rpc/upload_reactor.h"
#include "controller/scrub/scrubber.h"
#include "controller/store/file_store.h"
#include "controller/verify/snapshot_verifier.h"
#include "fmt/format.h"

namespace litefleet {
namespace {

constexpr std::chrono::seconds kGrace{4};
constexpr size_t kMaxQueued = 4096;
constexpr int kUploadThreads = 64;  // so many commits may share a sync; one that waits has touched some 20 kB
constexpr std::chrono::milliseconds kMarkPause{200};
constexpr size_t kFreeMemoryKept = 64 << 20;

// glibc's heaps give back only what lies at their end: after thousands of devices have left that is next to nothing.
void GiveMemoryBack() {
#ifdef __GLIBC__
  if (mallinfo2().fordblks > kFreeMemoryKept) malloc_trim(0);
#endif
}

// gRPC says only that it could not; the kernel says why.
absl::Status CheckAddress(const rpc::Address& address) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &found); error != 0) {
    return Error(absl::StatusCode::kInvalidArgument, "ADDRESS_INVALID",
                 fmt::format("listen on {}: {}", address.Text(), gai_strerror(error)),
                 "write an address of this machine, or [::]:8742 for all of them");
  }
  absl::Status status = absl::OkStatus();
  const io::UniqueFd fd(socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int one = 1;
  // Without IPv6 gRPC falls back to IPv4 by itself.
  if (fd.valid() && setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
      bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0) {
    const std::string what = fmt::format("listen on {}", address.Text());
    status = errno == EADDRINUSE ? Error(absl::StatusCode::kFailedPrecondition, "ADDRESS_IN_USE", what + ": another program listens there",
                                         "stop it, or give another address with --listen")
                                 : ErrnoError(errno, what);
  }
  freeaddrinfo(found);
  return status;
}

}  // namespace

// In the order of construction; Stop takes apart by hand what must not go in the reverse order.
struct Server::Parts {
  explicit Parts(io::ProcessLock held) : lock(std::move(held)) {}

  io::ProcessLock lock;
  ServerOptions options;
  RealClock clock;
  std::string socket_path;
  rpc::Address bound;        // as asked for
  std::atomic<int> port{0};  // that was taken
  std::string address;

  std::unique_ptr<identity::Authority> authority;
  rpc::ServerCertificates certificates;
  std::unique_ptr<catalog::CatalogDb> db;
  std::unique_ptr<catalog::IdentityCatalog> identities;
  std::unique_ptr<catalog::SnapshotCatalog> snapshots;
  std::unique_ptr<catalog::OperationCatalog> operations;
  std::unique_ptr<identity::Enrollment> enrollment;
  std::unique_ptr<rpc::CertificateAuthenticator> authenticator;
  std::unique_ptr<fleet::CatalogReports> reports;
  std::unique_ptr<catalog::PolicyCatalog> policies;
  std::unique_ptr<retention::ControllerTime> time;
  std::unique_ptr<fleet::DeviceFleet> fleet;
  std::unique_ptr<catalog::IngestCatalog> ingest_catalog;
  std::unique_ptr<store::FileStore> store;
  std::unique_ptr<catalog::GenerationCatalog> generations;
  std::unique_ptr<rebuild::CatalogGeneration> generation;
  bool counts = false;  // the catalog was found to be the newest
  std::unique_ptr<catalog::RecordCatalog> due_records;
  std::unique_ptr<rebuild::StoreRecords> records;
  std::unique_ptr<catalog::ScrubCatalog> scrub_catalog;
  std::unique_ptr<catalog::HealCatalog> heal_catalog;
  std::unique_ptr<heal::Healer> healer;
  std::unique_ptr<scrub::Scrubber> scrubber;
  std::unique_ptr<restore::StoreSnapshotReaderFactory> readers;
  std::unique_ptr<verify::SnapshotVerifier> verifier;
  std::unique_ptr<catalog::DeletionCatalog> deletions;
  std::unique_ptr<catalog::PruneCatalog> pruning;
  std::unique_ptr<catalog::QuotaCatalog> holdings;
  std::unique_ptr<retention::Quotas> quotas;
  std::unique_ptr<prune::MarkWriter> marks;
  std::unique_ptr<prune::Pruner> pruner;
  std::unique_ptr<retention::Retention> retention;
  std::unique_ptr<prune::Maintenance> maintenance;
  std::unique_ptr<backup::CatalogBackups> backups;
  std::unique_ptr<ingest::Ingest> ingest;
  std::unique_ptr<FileExchange> files;
  std::unique_ptr<rpc::AdminHandlers> admin_handlers;

  std::unique_ptr<ThreadPoolExecutor> work;     // catalog and fleet: short
  std::unique_ptr<ThreadPoolExecutor> streams;  // downloads and fetches: reads of the store
  std::unique_ptr<ThreadPoolExecutor> uploads;  // wait for disk and catalog
  std::unique_ptr<ThreadPoolExecutor> digests;  // as many as cores: decompress and hash
  std::unique_ptr<flow::FairSlots> upload_slots;
  std::unique_ptr<flow::FairRate> upload_rate;
  std::unique_ptr<flow::FairRate> fetch_rate;
  std::unique_ptr<v1::AgentService::CallbackService> agent_service;
  std::unique_ptr<v1::AdminService::CallbackService> admin_service;
  std::unique_ptr<v1::ImportService::CallbackService> import_service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<metrics::MetricsServer> metrics;

  absl::Status Open();
  absl::Status OpenStore();
  absl::Status OpenMaintenance();
  absl::Status MakeServices();
  absl::Status Listen();
  absl::Status ServeMetrics();
  absl::Status RefreshCertificate();
  doctor::Parts DoctorParts();
  // What changed while the store could not be written, or by another process.
  void WriteRecords();
  void OrderHealing();
  void AskForLost();
  // REQUIRES: OpenMaintenance has been: nobody connects, and no policy changes, before.
  absl::StatusOr<v1::DevicePolicy> PolicyOf(const DeviceId& device);
  void Stop();
};

absl::Status Server::Parts::Open() {
  const DataDirectory& data = options.data;
  LF_ASSIGN_OR_RETURN(authority, identity::Authority::Open(data.ca()));
  LF_RETURN_IF_ERROR(RefreshCertificate());
  LF_ASSIGN_OR_RETURN(db, catalog::CatalogDb::Open(data.catalog(), false, catalog::Migrations()));
  LF_RETURN_IF_ERROR(io::MakeDirectory(data.scratch(), 0700));
  identities = std::make_unique<catalog::IdentityCatalog>(*db);
  snapshots = std::make_unique<catalog::SnapshotCatalog>(*db);
  operations = std::make_unique<catalog::OperationCatalog>(*db);

  work = std::make_unique<ThreadPoolExecutor>(options.config.workers, kMaxQueued);
  streams = std::make_unique<ThreadPoolExecutor>(options.config.workers, kMaxQueued);
  uploads = std::make_unique<ThreadPoolExecutor>(std::max(options.config.workers, kUploadThreads), kMaxQueued);
  digests = std::make_unique<ThreadPoolExecutor>(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())), kMaxQueued);
  enrollment = std::make_unique<identity::Enrollment>(*authority, *identities, clock);
  LF_ASSIGN_OR_RETURN(authenticator, rpc::CertificateAuthenticator::Create(*authority, *identities, *work, clock));
  reports = std::make_unique<fleet::CatalogReports>(*identities, *snapshots, catalog::GapCatalog(*db), *db);
  LF_RETURN_IF_ERROR(OpenStore());
  LF_RETURN_IF_ERROR(OpenMaintenance());
  return MakeServices();
}

absl::Status Server::Parts::OpenStore() {
  ingest_catalog = std::make_unique<catalog::IngestCatalog>(*db);
  LF_ASSIGN_OR_RETURN(const uint64_t largest, ingest_catalog->LargestPack());
  store::FileStoreOptions store_options;
  store_options.directory = options.data.store();
  store_options.reserve_bytes = static_cast<uint64_t>(options.config.store_reserve);
  store_options.first_pack_id = largest + 1;
  LF_ASSIGN_OR_RETURN(store, store::FileStore::Open(store_options, clock));
  generations = std::make_unique<catalog::GenerationCatalog>(*db);
  generation = std::make_unique<rebuild::CatalogGeneration>(*generations, *store, clock);
  LF_RETURN_IF_ERROR(generation->CheckNewest());
  // A store that cannot be written to is served all the same; no pack is rewritten before this has been done.
  if (const auto counted = generation->Advance(); !counted.ok()) spdlog::error("count the catalog: {}", MessageOf(counted.status()));
  counts = true;
  due_records = std::make_unique<catalog::RecordCatalog>(*db);
  records = std::make_unique<rebuild::StoreRecords>(*due_records, *store, clock);
  identities->SetRecords(records.get());
  snapshots->SetRecords(records.get());
  reports->gaps().SetRecords(records.get());
  WriteRecords();
  policies = std::make_unique<catalog::PolicyCatalog>(*db);
  policies->SetRecords(records.get());
  time = std::make_unique<retention::ControllerTime>(*policies, clock, BootId(), retention::ClockIsSynchronized);
  LF_RETURN_IF_ERROR(time->Tick().status());
  // From here on it ends what has expired.
  fleet::DeviceFleetParts fleet_parts{operations.get(),
                                      reports.get(),
                                      &clock,
                                      LITEFLEET_VERSION,
                                      [this] { AskForLost(); },
                                      [this](const DeviceId& device) { return PolicyOf(device); },
                                      [this] { return time->Stamp(); }};
  LF_ASSIGN_OR_RETURN(fleet, fleet::DeviceFleet::Create(fleet_parts, {}));
  holdings = std::make_unique<catalog::QuotaCatalog>(*db);
  quotas = std::make_unique<retention::Quotas>(
      *holdings, *policies,
      retention::Quota{.bytes = options.config.quota_device_bytes, .snapshots = options.config.quota_device_snapshots});
  readers = std::make_unique<restore::StoreSnapshotReaderFactory>(*ingest_catalog, *store);
  verify::VerifierOptions verifier_options;
  verifier_options.scratch = options.data.scratch();
  verifier_options.drill_every = options.config.drill_every;
  verifier_options.drill_older_every = options.config.drill_older_every;
  verifier = std::make_unique<verify::SnapshotVerifier>(*fleet, *snapshots, *readers, clock, verifier_options);
  LF_RETURN_IF_ERROR(verifier->Begin());
  scrub_catalog = std::make_unique<catalog::ScrubCatalog>(*db);
  scrub::ScrubberOptions scrub_options;
  scrub_options.bytes_per_second = options.config.scrub_rate;
  scrub_options.every = std::chrono::duration_cast<std::chrono::hours>(options.config.scrub_every);
  scrub_options.now = [this]() -> absl::StatusOr<scrub::ScrubTime> {
    LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading now, time->Now());
    return scrub::ScrubTime{.time = now.time, .on_hold = !now.hold.empty()};
  };
  const auto needed = [this](const SnapshotId& snapshot, const auto& visit) {
    return manifest::ForEachNeededChunk(*ingest_catalog, *store, snapshot, [&](std::span<const manifest::ChunkRef> chunks) -> absl::Status {
      std::vector<format::ChunkName> names;
      for (const manifest::ChunkRef& chunk : chunks) names.push_back(chunk.name);
      return visit(names);
    });
  };
  scrubber = std::make_unique<scrub::Scrubber>(*fleet, *store, *ingest_catalog, *scrub_catalog, needed, clock, scrub_options);
  heal_catalog = std::make_unique<catalog::HealCatalog>(*db);
  heal::HealerDeps heal_deps{
      .catalog = *heal_catalog,
      .chunks = *ingest_catalog,
      .store = *store,
      .clock = clock,
      .start = [this](const DeviceId& device, const v1::HealOrder& order) { return fleet->StartHeal(device, order, "scrub").status(); },
      .order_of = [this](const DeviceId& device, const OperationId& operation) { return fleet->HealOrderOf(device, operation); },
      .is_asked = [this](const DeviceId& device, const std::string& database) { return fleet->IsHealing(device, database); },
      .set_whole = [this](const SnapshotId& snapshot) { return scrub_catalog->SetDamaged(snapshot, false).status(); },
      .changed = [this] { scrubber->Committed(); }};
  healer = std::make_unique<heal::Healer>(std::move(heal_deps), heal::HealerOptions());
  scrubber->OnMarked([this] { OrderHealing(); });
  LF_RETURN_IF_ERROR(scrubber->Begin());
  ingest::IngestLimits limits{.mark_pause = kMarkPause, .digest_cache_bytes = static_cast<size_t>(options.config.digest_cache)};
  // The slots are what limits: a session may end a little later than its stream.
  limits.max_uploads = static_cast<size_t>(options.config.uploads) + kUploadThreads;
  limits.ShareReceiveWindow(options.config.connection_memory, options.config.uploads);
  ingest::IngestDeps deps{.store = *store,
                          .catalog = *ingest_catalog,
                          .clock = clock,
                          .session_executor = *uploads,
                          .verify_executor = *digests,
                          .contact = [this](const DeviceId& device) -> ingest::DeviceContact {
                            const auto contact = identities->LastContact(device);
                            if (!contact.ok()) return {};
                            return {.clock_offset_ms = contact->clock_offset_ms, .heard_before = contact->seen_before};
                          },
                          .check_quota = [this](const DeviceId& device, bool goes_on) { return quotas->Check(device, goes_on); },
                          .now = [this]() -> absl::StatusOr<ingest::ControllerNow> {
                            LF_ASSIGN_OR_RETURN(const retention::ControllerTime::Reading now, time->Now());
                            return ingest::ControllerNow{.time = now.time, .on_hold = !now.hold.empty()};
                          },
                          .on_committed =
                              [this](const ingest::CommittedSnapshot& snapshot) {
                                using verify::Automatic;
                                verifier->Committed(snapshot.snapshot, snapshot.device, snapshot.database,
                                                    snapshot.part                              ? Automatic::kPart
                                                    : snapshot.method == v1::METHOD_CONTINUOUS ? Automatic::kContinuous
                                                                                               : Automatic::kBackup);
                                scrubber->Committed();
                                files->Committed(snapshot.device, snapshot.database);
                              }};
  ingest = std::make_unique<ingest::Ingest>(std::move(deps), limits);
  return ingest->Maintain();
}

absl::Status Server::Parts::OpenMaintenance() {
  deletions = std::make_unique<catalog::DeletionCatalog>(*db);
  pruning = std::make_unique<catalog::PruneCatalog>(*db);
  marks = std::make_unique<prune::MarkWriter>(*deletions, *store, clock);
  pruner = std::make_unique<prune::Pruner>(prune::PrunerDeps{.catalog = *pruning,
                                                             .deletions = *deletions,
                                                             .marks = *marks,
                                                             .store = *store,
                                                             .held = [this](const SnapshotId& id) { return readers->pins().IsPinned(id); },
                                                             .records = due_records.get(),
                                                             .count_generation = [this]() -> absl::StatusOr<uint64_t> {
                                                               // What dead records alone say, before they go.
                                                               LF_RETURN_IF_ERROR(records->WriteDue());
                                                               return generation->Advance();
                                                             }});
  retention = std::make_unique<retention::Retention>(*policies, *deletions, [this] { return marks->WriteDue(); });
  prune::MaintenanceOptions maintenance_options;
  maintenance_options.prune.snapshot_grace = options.config.prune_grace;
  maintenance_options.prune.chunk_grace = options.config.prune_chunk_grace;
  maintenance_options.prune.rewrite_percent = options.config.prune_rewrite_percent;
  maintenance_options.prune_every = options.config.prune_every;
  maintenance_options.retention_every = options.config.retention_every;
  maintenance = std::make_unique<prune::Maintenance>(prune::MaintenanceDeps{.pruner = *pruner,
                                                                            .retention = *retention,
                                                                            .time = *time,
                                                                            .fleet = *fleet,
                                                                            .store = *store,
                                                                            .last_prune = [this] { return pruning->LastPrune(); }},
                                                     maintenance_options);
  LF_RETURN_IF_ERROR(maintenance->Begin());
  backup::CatalogBackupOptions backup_options;
  backup_options.catalog = options.data.catalog();
  backup_options.store = options.data.store();
  backup_options.scratch = options.data.scratch();
  backup_options.every = options.config.catalog_backup_every;
  backup_options.keep = options.config.catalog_backup_keep;
  // Whoever puts the copy in the place of the catalog is told that it is one.
  backup_options.made = [this] { return generation->Advance().status(); };
  backups = std::make_unique<backup::CatalogBackups>(std::move(backup_options), clock);
  backups->Begin();
  const auto imported = [this](const SnapshotId& snapshot) {
    if (const auto check = verifier->Start(snapshot, "", "import"); !check.ok())
      spdlog::warn("check the import {}: {}", snapshot.value(), MessageOf(check.status()));
  };
  LF_ASSIGN_OR_RETURN(
      files, FileExchange::Begin({*fleet, *ingest, *readers, *identities, *snapshots, *policies, *retention, clock, imported}, options.data,
                                 options.config));
  return absl::OkStatus();
}

absl::StatusOr<v1::DevicePolicy> Server::Parts::PolicyOf(const DeviceId& device) {
  LF_ASSIGN_OR_RETURN(const std::vector<retention::Policy> all, retention->Policies());
  if (all.empty()) return v1::DevicePolicy();
  LF_ASSIGN_OR_RETURN(const v1::Device found, identities->ResolveDevice(device.value()));
  return retention::CarriedTo(all, retention::ToLabels(found.labels()));
}

void Server::Parts::OrderHealing() {
  const absl::StatusOr<int> ordered = healer->OrderDue();
  if (!ordered.ok()) spdlog::error("ask devices for what the store lost: {}", MessageOf(ordered.status()));
}

// On the scrubber's thread: devices that were away, too, are asked.
void Server::Parts::AskForLost() {
  if (scrubber != nullptr) scrubber->Committed();
}

void Server::Parts::WriteRecords() {
  if (const absl::Status status = records->WriteDue(); !status.ok()) spdlog::error("{}", MessageOf(status));
}

absl::Status Server::Parts::MakeServices() {
  rpc::AdminDependencies admin;
  admin.catalog = db.get();
  admin.identities = identities.get();
  admin.snapshots = snapshots.get();
  admin.operations = operations.get();
  admin.fleet = fleet.get();
  admin.readers = readers.get();
  admin.verifier = verifier.get();
  admin.deletions = deletions.get();
  admin.pruning = pruning.get();
  admin.policies = policies.get();
  admin.holdings = holdings.get();
  admin.quotas = quotas.get();
  admin.store = store.get();
  admin.marks = marks.get();
  admin.maintenance = maintenance.get();
  admin.scrubber = scrubber.get();
  admin.retention = retention.get();
  admin.time = time.get();
  admin.backups = backups.get();
  admin.is_read = [this](const SnapshotId& id) { return readers->pins().IsPinned(id); };
  admin.alarms = [this] { return files->Alarms(); };
  admin.clock = &clock;
  admin.data_directory = options.data.path;
  admin.doctor = DoctorParts();
  admin.issue_token = [this](const rpc::TokenWish& wish) {
    return enrollment->IssueToken({wish.uses, wish.ttl, wish.labels, wish.for_device});
  };
  admin_handlers = std::make_unique<rpc::AdminHandlers>(std::move(admin));
  admin_service = rpc::MakeAdminService(*admin_handlers, *authenticator, *work, *streams);
  import_service = rpc::MakeImportService(files->imports(), *authenticator, *streams);

  upload_slots = std::make_unique<flow::FairSlots>(flow::FairSlots::Limits{.slots = static_cast<size_t>(options.config.uploads)}, clock);
  upload_rate = std::make_unique<flow::FairRate>(options.config.upload_rate, clock);
  fetch_rate = std::make_unique<flow::FairRate>(options.config.fetch_rate, clock);
  rpc::AgentServiceParts agent;
  agent.authenticator = authenticator.get();
  agent.enrollment = enrollment.get();
  agent.work = work.get();
  agent.uploads = uploads.get();
  agent.send_wanted = [this](const DeviceId& device, const v1::SendWantedRequest& request) { return healer->Accept(device, request); };
  agent.control = [this](grpc::CallbackServerContext* context, const rpc::Caller& caller) {
    return rpc::NewControlReactor({.fleet = fleet.get(), .executor = work.get()}, caller, context);
  };
  agent.upload = [this](grpc::CallbackServerContext* context, const rpc::Caller& caller) {
    return rpc::NewUploadReactor(
        context, {.ingest = ingest.get(), .executor = uploads.get(), .rate = upload_rate.get(), .slots = upload_slots.get()}, caller);
  };
  agent.fetch = [this](grpc::CallbackServerContext* context, const rpc::Caller& caller, const v1::FetchRequest& request) {
    const rpc::FetchDeps deps{.readers = readers.get(), .fleet = fleet.get(), .executor = streams.get(), .rate = fetch_rate.get()};
    return rpc::NewFetchReactor(context, deps, caller, request);
  };
  agent_service = rpc::MakeAgentService(std::move(agent));
  return absl::OkStatus();
}

doctor::Parts Server::Parts::DoctorParts() {
  return {.clock = &clock,
          .catalog = db.get(),
          .catalog_backups = [this] { return admin_handlers->GetCatalogBackups(); },
          .data_directory = options.data.path,
          .config_file = options.config_file,
          .configuration = [this]() -> absl::StatusOr<std::vector<std::string>> {
            if (!options.read_config) return std::vector<std::string>();
            LF_ASSIGN_OR_RETURN(const config::ControllerConfig wanted, options.read_config());
            return config::NeedRestart(options.config, wanted);
          },
          .store_reserve = [this] { return static_cast<uint64_t>(options.config.store_reserve); },
          .hosts = [this] { return authority->hosts(); },
          .listening =
              [this] {
                rpc::Address taken = bound;
                taken.port = static_cast<uint16_t>(port.load());
                return taken;
              },
          .newest_snapshot_at = [this]() -> std::optional<SystemTime> {
            const auto newest = snapshots->List(DeviceId(), "", 1, "");
            if (!newest.ok() || newest->items.empty()) return std::nullopt;
            return FromProtoTime(newest->items.front().received_at());
          }};
}

absl::Status Server::Parts::RefreshCertificate() {
  LF_ASSIGN_OR_RETURN(const rpc::Identity identity, authority->EnsureServerIdentity(clock.Now()));
  return certificates.Set(identity);
}

absl::Status Server::Parts::Listen() {
  LF_ASSIGN_OR_RETURN(bound, rpc::ParseListenAddress(options.config.listen));
  if (bound.is_unix())
    return Error(absl::StatusCode::kInvalidArgument, "ADDRESS_INVALID", "--listen takes HOST:PORT", "the unix socket is always there");
  LF_RETURN_IF_ERROR(CheckAddress(bound));
  socket_path = io::AdminSocketPath(options.data.path);
  LF_RETURN_IF_ERROR(io::MakeDirectory(io::DirectoryOf(socket_path), 0755));
  LF_RETURN_IF_ERROR(io::RemoveFile(socket_path));  // a crash left it: the lock is ours

  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  rpc::ApplyServerLimits(builder, {options.config.streams_per_connection, options.config.connection_memory});
  int taken = 0;
  builder.AddListeningPort(bound.Text(), rpc::TlsCredentials(certificates), &taken);
  builder.AddListeningPort("unix:" + socket_path, rpc::UnixSocketCredentials());
  builder.RegisterService(agent_service.get());
  builder.RegisterService(admin_service.get());
  builder.RegisterService(import_service.get());
  server = builder.BuildAndStart();
  if (server == nullptr || taken == 0) {
    return Error(absl::StatusCode::kFailedPrecondition, "ADDRESS_IN_USE",
                 fmt::format("cannot listen on {} and {}", bound.Text(), socket_path),
                 "give another address with --listen; see the log for gRPC's reason");
  }
  if (chmod(socket_path.c_str(), 0600) != 0) return ErrnoError(errno, "chmod " + socket_path);
  port = taken;
  address = admin_handlers->dependencies().doctor.listening().Text();
  if (!options.ready_file.empty()) LF_RETURN_IF_ERROR(io::WriteFileAtomic(options.ready_file, address + "\n", 0644));
  return absl::OkStatus();
}

absl::Status Server::Parts::ServeMetrics() {
  const config::ControllerConfig& config = options.config;
  if (config.metrics_listen.empty()) return absl::OkStatus();
  const metrics::Sources sources{
      db.get(), identities.get(), snapshots.get(), fleet.get(), store.get(), &clock, [this]() -> absl::StatusOr<metrics::Sources::Damage> {
        LF_ASSIGN_OR_RETURN(const rpc::Damage damage, admin_handlers->GetDamage());
        return metrics::Sources::Damage{damage.quarantined_chunks, damage.wanted_chunks, damage.damaged_snapshots, damage.holds};
      }};
  LF_ASSIGN_OR_RETURN(auto figures, metrics::FleetMetrics::Create(sources, config.metrics_databases));
  LF_ASSIGN_OR_RETURN(metrics, metrics::MetricsServer::Start(config.metrics_listen, std::move(figures)));
  spdlog::info("metrics on {}, port {}", config.metrics_listen, metrics->port());
  return absl::OkStatus();
}

void Server::Parts::Stop() {
  metrics.reset();
  if (!options.ready_file.empty()) io::RemoveFile(options.ready_file).IgnoreError();
  if (server != nullptr) {
    if (auto* health = server->GetHealthCheckService()) health->Shutdown();
    fleet->CloseAll(
        Error(absl::StatusCode::kUnavailable, "SHUTTING_DOWN", "the controller is shutting down", "the agent connects again by itself"));
    server->Shutdown(std::chrono::system_clock::now() + kGrace);
    server->Wait();
    server.reset();
  }
  if (!socket_path.empty()) io::RemoveFile(socket_path).IgnoreError();
  if (upload_slots != nullptr) upload_slots->Stop();
  for (flow::FairRate* rate : {upload_rate.get(), fetch_rate.get()}) {
    if (rate != nullptr) rate->Stop();
  }
  if (files != nullptr) files->Stop();
  // What is queued still uses everything else; an upload waits for its digests.
  uploads.reset();
  digests.reset();
  streams.reset();
  work.reset();
  files.reset();
  maintenance.reset();
  backups.reset();
  verifier.reset();
  scrubber.reset();
  // The last: a copy of the catalog that was taken while this ran is an older one from here on.
  if (!counts) return;
  if (const absl::Status status = generation->AdvanceIfGrown(); !status.ok()) spdlog::error("count the catalog: {}", MessageOf(status));
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Server::~Server() { parts_->Stop(); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  LF_RETURN_IF_ERROR(options.data.CheckInitialized());
  LF_RETURN_IF_ERROR(options.data.CheckFileSystem(options.config.allow_network_file_system));
  LF_ASSIGN_OR_RETURN(io::ProcessLock lock, io::LockPatiently([&] { return io::ProcessLock::Acquire(options.data.lock()); }, io::kChange));
  auto parts = std::make_unique<Parts>(std::move(lock));
  parts->options = options;
  std::unique_ptr<Server> server(new Server(std::move(parts)));
  LF_RETURN_IF_ERROR(server->parts_->Open());
  LF_RETURN_IF_ERROR(server->parts_->ServeMetrics());
  LF_RETURN_IF_ERROR(server->parts_->Listen());
  spdlog::info("serving {} on {} and {}", options.data.path, server->parts_->address, server->parts_->socket_path);
  return server;
}

const std::string& Server::address() const { return parts_->address; }

absl::Status Server::Reload(const config::ControllerConfig& config) {
  for (const std::string& name : config::NeedRestart(parts_->options.config, config)) {
    spdlog::warn("reload: `{}` has changed: that takes effect after a restart", name);
  }
  LF_RETURN_IF_ERROR(obs::SetupLog({config.log_level, config.log_format}));
  LF_RETURN_IF_ERROR(parts_->RefreshCertificate());
  parts_->WriteRecords();
  return parts_->authenticator->Refresh();
}

void Server::Maintain() {
  GiveMemoryBack();
  if (const absl::Status status = parts_->RefreshCertificate(); !status.ok())
    spdlog::error("renew the server's certificate: {}", MessageOf(status));
  // Once a minute: a jump is seen only by who looks at both clocks.
  if (const auto time = parts_->time->Tick(); !time.ok()) spdlog::error("keep the controller's time: {}", MessageOf(time.status()));
  parts_->WriteRecords();
  parts_->AskForLost();
  if (const absl::Status status = parts_->generation->AdvanceIfGrown(); !status.ok())
    spdlog::error("count the catalog: {}", MessageOf(status));
  if (const absl::Status status = parts_->ingest->Maintain(); !status.ok())
    spdlog::error("remove old upload sessions: {}", MessageOf(status));
}

}  // namespace litefleet
