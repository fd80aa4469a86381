#include "controller/heal/healer.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "common/base/crash_point.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "controller/heal/wanted_list.h"
#include "fmt/format.h"

namespace litefleet::heal {
namespace {

using Ask = catalog::HealCatalog::Ask;

constexpr int kDatabasesAtOnce = 1000;
constexpr auto kSettleAgain = std::chrono::minutes(5);  // after a failure, as of a full store
constexpr int kSnapshotsLookedAt = 1000;

absl::Status Invalid(const std::string& what) { return Error(absl::StatusCode::kInvalidArgument, "CHUNK_INVALID", what); }

}  // namespace

absl::StatusOr<int> Healer::OrderDue() {
  if (ordering_.exchange(true)) return 0;
  const auto done = absl::MakeCleanup([this] { ordering_ = false; });
  if (const absl::Status settled = SettleEnded(); !settled.ok())
    spdlog::warn("settle orders to heal that have ended early: {}", MessageOf(settled));
  const SystemTime asked_before = deps_.clock.Now() - options_.ask_again;
  LF_ASSIGN_OR_RETURN(const auto databases, deps_.catalog.DueDatabases(asked_before, kDatabasesAtOnce));
  int orders = 0;
  for (const catalog::HealCatalog::Database& database : databases) {
    LF_ASSIGN_OR_RETURN(const bool ordered, OrderFor(database, asked_before));
    orders += ordered ? 1 : 0;
  }
  return orders;
}

absl::Status Healer::SettleEnded() {
  if (deps_.clock.Steady() < settle_at_) return absl::OkStatus();
  LF_ASSIGN_OR_RETURN(const auto databases, deps_.catalog.ClaimingDatabases());
  absl::Status first;
  for (const catalog::HealCatalog::Database& database : databases) {
    if (deps_.is_asked(database.device, database.name)) continue;
    first.Update(RepairAll(database.id));
  }
  // All their manifests would be read each time, by a thread that others wait for.
  if (!first.ok()) settle_at_ = deps_.clock.Steady() + kSettleAgain;
  return first;
}

absl::StatusOr<bool> Healer::OrderFor(const catalog::HealCatalog::Database& database, SystemTime asked_before) {
  LF_ASSIGN_OR_RETURN(const auto snapshots, deps_.catalog.DamagedSnapshots(database.id, kSnapshotsLookedAt));
  LF_ASSIGN_OR_RETURN(auto chunks, deps_.catalog.Wanted(database.id, Ask::kWhole, asked_before, kMaxWanted));
  WantedList list;
  if (!chunks.empty()) {
    LF_ASSIGN_OR_RETURN(list, MakeWantedList(deps_.chunks, deps_.store, chunks, snapshots));
    LF_RETURN_IF_ERROR(deps_.catalog.SetPages(database.id, list.unknown));
  }
  if (list.asked.empty()) {
    LF_ASSIGN_OR_RETURN(chunks, deps_.catalog.Wanted(database.id, Ask::kPages, asked_before, kMaxWanted));
    LF_ASSIGN_OR_RETURN(list, MakePagesList(deps_.chunks, deps_.store, chunks, snapshots));
    LF_RETURN_IF_ERROR(deps_.catalog.SetGone(database.id, list.unknown));
  }
  if (list.asked.empty()) return false;
  list.order.set_database(database.name);
  const absl::Status started = deps_.start(database.device, list.order);
  if (absl::IsAlreadyExists(started)) return false;
  LF_RETURN_IF_ERROR(started);
  LF_CRASH_POINT("heal.after_order");
  LF_RETURN_IF_ERROR(deps_.catalog.SetAsked(database.id, list.asked, deps_.clock.Now()));
  return true;
}

absl::StatusOr<store::Placed> Healer::Put(const v1::HealOrder& order, const v1::WantedContent& content, Arrived& arrived) {
  if (content.position() >= static_cast<uint32_t>(order.wanted_size()))
    return Invalid(fmt::format("content {} came, the order names {}", content.position(), order.wanted_size()));
  const v1::WantedPages& wanted = order.wanted(static_cast<int>(content.position()));
  uint32_t pages = 0;
  for (const v1::PageRun& run : wanted.runs()) pages += run.page_count();
  pages -= static_cast<uint32_t>(wanted.known_positions_size());
  const v1::ChunkData& data = content.chunk();
  const auto name = format::ChunkName::FromBytes(data.name());
  if (!name.has_value() || data.raw_bytes() != pages * order.page_size())
    return Invalid(fmt::format("content {} is not what the order names", content.position()));
  if (data.codec() != v1::CODEC_RAW && data.codec() != v1::CODEC_ZSTD) return Invalid("a chunk's codec is unknown");
  if (data.data().empty() || data.data().size() > data.raw_bytes()) return Invalid("a chunk's payload has a strange length");
  const auto codec = static_cast<format::Codec>(data.codec());
  format::ChunkDecompressor decompressor;
  Bytes raw;
  const absl::Status opened =
      decompressor.Open(codec, AsBytes(data.data()), data.raw_bytes(), order.page_size(), *name, raw, &arrived.digests);
  if (!opened.ok()) return Invalid("what the device sent is not what it says: " + MessageOf(opened));
  LF_ASSIGN_OR_RETURN(
      const store::Placed placed,
      deps_.store.PutChunk(
          {.name = *name, .codec = codec, .page_size = order.page_size(), .page_count = pages, .stored = AsBytes(data.data())}));
  LF_CRASH_POINT("heal.after_chunk_write");
  arrived.wanted = &wanted;
  arrived.hold = placed.hold;
  arrived.chunk = {.name = *name,
                   .page_size = order.page_size(),
                   .page_count = pages,
                   .codec = codec,
                   .stored_bytes = static_cast<uint32_t>(data.data().size()),
                   .place = catalog::PackPlace{.pack = placed.location.pack, .offset = placed.location.offset}};
  return placed;
}

absl::StatusOr<v1::SendWantedResponse> Healer::Accept(const DeviceId& device, const v1::SendWantedRequest& request) {
  LF_ASSIGN_OR_RETURN(const v1::HealOrder order, deps_.order_of(device, OperationId(request.operation_id())));
  LF_ASSIGN_OR_RETURN(const int64_t database, deps_.catalog.DatabaseOf(device, order.database()));
  v1::SendWantedResponse response;
  if (request.contents_size() > 0) LF_RETURN_IF_ERROR(deps_.store.CheckSpace());
  std::vector<Arrived> all;
  std::optional<uint64_t> epoch;
  for (const v1::WantedContent& content : request.contents()) {
    LF_ASSIGN_OR_RETURN(const store::Placed placed, Put(order, content, all.emplace_back()));
    if (epoch.has_value() && *epoch != placed.epoch)
      return Error(absl::StatusCode::kUnavailable, "STORE_FAILED", "the store failed meanwhile", "it will be tried again");
    epoch = placed.epoch;
  }
  if (epoch.has_value()) {
    LF_RETURN_IF_ERROR(deps_.store.Sync(*epoch));
    LF_CRASH_POINT("heal.after_pack_sync");
    LF_ASSIGN_OR_RETURN(const uint32_t taken, Take(device, database, order, all));
    response.set_taken(taken);
  }
  if (request.last()) {
    LF_RETURN_IF_ERROR(RepairAll(database));
    std::vector<format::ChunkName> names;
    for (const v1::WantedPages& wanted : order.wanted()) {
      const auto name = format::ChunkName::FromBytes(wanted.name());
      if (name.has_value()) names.push_back(*name);
    }
    LF_RETURN_IF_ERROR(deps_.catalog.NoteAnswered(database, names));
  }
  if (request.last() || response.taken() > 0) deps_.changed();
  return response;
}

absl::StatusOr<uint32_t> Healer::Take(const DeviceId& device, int64_t database, const v1::HealOrder& order,
                                      const std::vector<Arrived>& all) {
  uint32_t taken = 0;
  std::vector<catalog::ArrivedChunk> chunks;
  for (const Arrived& arrived : all) chunks.push_back(arrived.chunk);
  LF_ASSIGN_OR_RETURN(const std::vector<bool> made, deps_.catalog.MakeGood(chunks));
  LF_ASSIGN_OR_RETURN(const auto snapshots, deps_.catalog.DamagedSnapshots(database, kSnapshotsLookedAt));
  for (size_t i = 0; i < all.size(); ++i) {
    taken += made[i] ? 1 : 0;
    // Only extents are asked for page by page.
    if (made[i] || all[i].wanted->runs_size() != 1) continue;
    LF_ASSIGN_OR_RETURN(const auto pages, repair_.Prove(order.page_size(), *all[i].wanted, all[i].digests, snapshots));
    if (pages.empty()) continue;
    LF_RETURN_IF_ERROR(deps_.catalog.AddHealedPages(device, database, all[i].chunk, pages));
    ++taken;
  }
  return taken;
}

absl::Status Healer::RepairAll(int64_t database) {
  const Turn::Holder turn(repairs_);
  LF_ASSIGN_OR_RETURN(const auto snapshots, deps_.catalog.DamagedSnapshots(database, kSnapshotsLookedAt));
  bool all = true;
  for (const SnapshotId& snapshot : snapshots) {
    const absl::StatusOr<bool> whole = repair_.Repair(snapshot);
    // Its manifest was composed anew meanwhile: what came for it is in no layer yet, and stays claimed for the next time.
    all = all && !absl::IsAborted(whole.status());
    if (absl::IsDataLoss(whole.status()) || absl::IsNotFound(whole.status()) || absl::IsAborted(whole.status())) continue;
    LF_RETURN_IF_ERROR(whole.status());
    if (*whole) LF_RETURN_IF_ERROR(deps_.set_whole(snapshot));
  }
  return all ? deps_.catalog.DropHealingClaims(database) : absl::OkStatus();
}

}  // namespace litefleet::heal
