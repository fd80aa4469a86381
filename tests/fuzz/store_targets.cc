// What the controller reads of its own packs, as somebody else may have written it: manifests, and records of which a catalog is made; and
// keys that were exported.
#include <stdlib.h>

#include <array>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/format/extent.h"
#include "common/format/pack_record.h"
#include "controller/catalog/catalog_db.h"
#include "controller/catalog/schema.h"
#include "controller/identity/authority.h"
#include "controller/manifest/manifest_reader.h"
#include "controller/rebuild/rebuild.h"
#include "tests/fuzz/targets.h"

namespace litefleet::fuzz {
namespace {

// Takes bytes from the front; zeros behind the end.
class Input {
 public:
  explicit Input(ByteView bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }
  uint32_t Byte() {
    if (bytes_.empty()) return 0;
    const auto byte = static_cast<uint32_t>(bytes_[0]);
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  uint32_t Number() {
    const uint32_t low = Byte();
    return low | Byte() << 8;
  }
  ByteView Piece(size_t size) {
    const ByteView piece = bytes_.first(std::min(size, bytes_.size()));
    bytes_ = bytes_.subspan(piece.size());
    return piece;
  }

 private:
  ByteView bytes_;
};

format::RecordHeader HeaderOf(format::RecordType type) {
  format::RecordHeader header;
  header.type = type;
  return header;
}

// One pack of records that were read well. Nothing is written to it.
class OnePack final : public store::Store {
 public:
  void Add(format::RecordHeader header, ByteView payload) {
    header.stored_bytes = static_cast<uint32_t>(payload.size());
    records_.push_back({.header = header, .payload = std::string(AsText(payload))});
  }
  absl::StatusOr<store::StoredRecord> Read(const store::Location& location) override {
    if (location.pack != 1 || location.offset >= records_.size())
      return Error(absl::StatusCode::kDataLoss, "CHUNK_MISSING", "there is no such record");
    return records_[location.offset];
  }
  std::vector<store::PackInfo> Packs() override { return {{.id = 1, .sealed = true, .held = false, .size = records_.size()}}; }
  absl::StatusOr<store::PackScan> ScanPack(
      uint64_t pack, absl::FunctionRef<absl::Status(const store::Location&, const format::ScannedRecord&)> visit) override {
    for (uint64_t at = 0; at < records_.size(); ++at) {
      format::ScannedRecord record;
      record.offset = at;
      record.header = records_[at].header;
      record.payload = AsBytes(records_[at].payload);
      LF_RETURN_IF_ERROR(visit({.pack = pack, .offset = at}, record));
    }
    return store::PackScan{.records = records_.size()};
  }
  absl::StatusOr<store::Placed> PutChunk(const store::ChunkToPut&) override { return No(); }
  absl::StatusOr<store::Placed> PutRecord(format::RecordType, ByteView) override { return No(); }
  absl::Status Sync(uint64_t) override { return No(); }
  absl::Status ForEachRecord(absl::FunctionRef<absl::Status(const store::Location&, const format::ScannedRecord&)> visit) override {
    return ScanPack(1, visit).status();
  }
  absl::Status SealOpenPack() override { return No(); }
  absl::Status RemovePack(uint64_t) override { return No(); }
  void ForgetCached(uint64_t) override {}
  absl::Status CheckSpace() override { return absl::OkStatus(); }
  absl::StatusOr<store::StoreStats> Stats() override { return store::StoreStats(); }

 private:
  static absl::Status No() { return absl::UnimplementedError("it is only read"); }
  std::vector<store::StoredRecord> records_;
};

// Geometry, layers, then the parts of all of them: each with its length.
void Manifest(ByteView bytes) {
  Input input(bytes);
  catalog::SnapshotLayout layout;
  layout.page_size = 512u << (input.Byte() % 8);
  layout.page_count = input.Number() * (1 + input.Byte());
  layout.root_version = format::kRootVersion;
  layout.manifest_kind = 2;
  uint32_t parts = 0;
  for (uint32_t left = 1 + input.Byte() % 4; left > 0; --left) {
    const uint32_t count = input.Byte() % 8;
    layout.layers.push_back({.id = std::string(1, static_cast<char>('a' + left)), .parts = count, .bytes = 0, .first_part = parts});
    parts += count;
  }
  OnePack store;
  std::vector<catalog::ManifestPlace> places;
  while (places.size() < parts) {
    const uint32_t first_page = input.Number();
    store.Add(HeaderOf(format::RecordType::kManifestPart), input.Piece(input.Number()));
    places.push_back({.first_page = first_page, .place = {.pack = 1, .offset = places.size()}});
  }
  const auto some = [&](uint32_t first, uint32_t limit) -> absl::StatusOr<std::vector<catalog::ManifestPlace>> {
    const size_t from = std::min<size_t>(first, places.size());
    const size_t end = std::min<size_t>(from + limit, places.size());
    return std::vector<catalog::ManifestPlace>(places.begin() + static_cast<std::ptrdiff_t>(from),
                                               places.begin() + static_cast<std::ptrdiff_t>(end));
  };
  auto reader = manifest::ManifestReader::Open(some, store, layout);
  if (!reader.ok()) return;
  manifest::Stretch stretch;
  // In their order, and one again; for another size of the database too.
  const uint32_t count = std::min(reader->stretch_count(), 20u);
  for (uint32_t turn = 0; turn < count + 2; ++turn) {
    const uint32_t number = turn < count ? turn : 0;
    if (number >= count) break;
    const bool other = turn == count + 1;
    const absl::Status read = other ? reader->ReadFor(layout.page_count / 2 + 1, number, stretch) : reader->Read(number, stretch);
    if (!read.ok()) {
      Require(absl::IsDataLoss(read), "a manifest that makes no sense is damage");
      continue;
    }
    Require(other || stretch.Complete(), "all pages have a chunk");
    for (uint32_t at = 0; at < stretch.page_count(); ++at) {
      const manifest::PageRef& page = stretch.page(at);
      if (page.chunk == manifest::kNoChunk) continue;
      Require(page.chunk < stretch.chunks().size() && page.layer < layout.layers.size(), "a page's chunk and layer are there");
      Require(page.index < stretch.chunk_of(at).page_count, "a page is in its chunk");
    }
    for (uint32_t extent = 0; extent < stretch.extent_count(); ++extent) {
      const auto whole = stretch.WholeChunk(extent);
      Require(!whole.has_value() || stretch.chunks()[*whole].page_count == stretch.PagesIn(extent),
              "a whole chunk is as long as its extent");
    }
  }
}

// A folder for the catalogs of one process.
const std::string& Scratch() {
  struct Folder {
    Folder() { Require(mkdtemp(path.data()) != nullptr, "there is a folder for scratch"); }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/litefleet-fuzz-XXXXXX" : "/tmp/litefleet-fuzz-XXXXXX";
  };
  static const Folder folder;
  return folder.path;
}

// Records: type, length, payload; of a chunk its name and its number of pages.
void Rebuild(ByteView bytes) {
  OnePack store;
  for (Input input(bytes); !input.empty();) {
    format::RecordHeader header = HeaderOf(static_cast<format::RecordType>(input.Byte()));
    const ByteView payload = input.Piece(input.Number());
    if (header.type == format::RecordType::kChunk) {
      Input chunk(payload);
      const ByteView name = chunk.Piece(format::kDigestBytes);
      std::copy(name.begin(), name.end(), header.name.bytes.begin());
      header.page_size = 4096;
      header.page_count = chunk.Byte();
    }
    store.Add(header, payload);
  }
  const std::string path = Scratch() + "/catalog.db";
  const FakeClock clock;
  auto catalog = catalog::RebuildCatalog::Create(path);
  Require(catalog.ok(), "a catalog can be made");
  const auto report = rebuild::Rebuild(store, **catalog, clock, {});
  if (!report.ok()) std::fprintf(stderr, "%s\n", std::string(report.status().message()).c_str());
  Require(report.ok(), "no record ends a rebuild, whatever it says");
  Require((*catalog)->Close().ok(), "what was rebuilt can be closed");
  catalog->reset();
  const auto db = catalog::CatalogDb::Open(path, false, catalog::Migrations());
  Require(db.ok() && (*db)->CheckIntegrity().value().empty(), "what was rebuilt is a catalog");
}

void ExportedKeys(ByteView bytes) {
  const std::string directory = Scratch() + "/ca";
  std::filesystem::remove_all(directory);
  const absl::Status imported = identity::Authority::Import(directory, AsText(bytes), "correct horse");
  Require(imported.ok() == std::filesystem::exists(directory + "/root.pem"), "keys are taken as a whole or not at all");
}

}  // namespace

void AddStoreTargets(std::vector<Target>& targets) {
  targets.push_back({"manifest", Manifest});
  targets.push_back({"rebuild", Rebuild, 12});
  targets.push_back({"exported_keys", ExportedKeys, 16});
}

}  // namespace litefleet::fuzz
