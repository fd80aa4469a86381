// Fills the store of a controller that does not run: many small snapshots, written through the store's own classes, and chunks that nothing
// refers to. `litefleet-controller rebuild` makes the catalog of it, as after the loss of one.
//
//   store_filler --store DATA/store --databases 1000 --snapshots 100 --chunks 100 --dead 10
//
// Each snapshot has chunks of its own, of one page of 512 bytes that zstd takes to about 60 bytes; all of it is sound and restores.
// Prints {"chunks":N,"snapshots":N,"dead_chunks":N}.
#include <CLI/CLI.hpp>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "controller/manifest/layer_writer.h"
#include "controller/manifest/stretch.h"
#include "controller/store/file_store.h"
#include "fmt/format.h"
#include "litefleet/storage/v1/records.pb.h"
#include "litefleet/v1/types.pb.h"

namespace litefleet {
namespace {

constexpr uint32_t kPageSize = 512;
constexpr size_t kRandomBytes = 40;  // of a page

struct Options {
  std::string store;
  int64_t databases = 1000;
  int64_t snapshots = 100;
  uint32_t chunks = 100;
  int dead = 10;
};

class Filler {
 public:
  Filler(const Options& options, store::Store& store) : options_(options), store_(store) {}

  absl::Status Run() {
    const int64_t now = ToUnixMillis(clock_.Now());
    for (int64_t snapshot = 0; snapshot < options_.snapshots; ++snapshot) {
      for (int64_t database = 0; database < options_.databases; ++database) {
        // An hour apart, the newest an hour ago.
        LF_RETURN_IF_ERROR(WriteSnapshot(database, snapshot, now - (options_.snapshots - snapshot) * 3'600'000));
      }
    }
    fmt::print("{{\"chunks\":{},\"snapshots\":{},\"dead_chunks\":{}}}\n", chunks_, options_.snapshots * options_.databases, dead_);
    return store_.SealOpenPack();
  }

 private:
  absl::StatusOr<std::pair<format::ChunkName, format::PageDigest>> WriteChunk() {
    Bytes page(kPageSize);
    for (size_t at = 0; at < kRandomBytes; at += sizeof(uint64_t)) {
      const uint64_t noise = random_();
      std::memcpy(page.data() + at, &noise, sizeof noise);
    }
    const format::PageDigest digest = format::DigestPage(page);
    const format::ChunkName name = format::NameChunk(kPageSize, std::span(&digest, 1));
    LF_ASSIGN_OR_RETURN(const format::Codec codec, compressor_.Compress(page, stored_));
    LF_RETURN_IF_ERROR(
        store_.PutChunk({.name = name, .codec = codec, .page_size = kPageSize, .page_count = 1, .stored = AsBytes(stored_)}).status());
    ++chunks_;
    return std::pair(name, digest);
  }

  absl::Status WriteSnapshot(int64_t database, int64_t number, int64_t at_ms) {
    const SnapshotId id(NewUlid(FromUnixMillis(at_ms)));
    stretch_.Reset(kPageSize, options_.chunks, 0);
    std::vector<format::PageDigest> digests;
    for (uint32_t page = 1; page <= options_.chunks; ++page) {
      LF_ASSIGN_OR_RETURN(const auto chunk, WriteChunk());
      digests.push_back(chunk.second);
      stretch_.Place(page, 1, *stretch_.ChunkNumber(chunk.first, 1), 0, 0);
      if (static_cast<int>(random_() % 100) < options_.dead) {
        LF_RETURN_IF_ERROR(WriteChunk().status());
        ++dead_;
      }
    }
    const format::ChunkName extent = format::NameChunk(kPageSize, digests);
    stretch_.SetName(0, extent, 0);
    manifest::LayerWriter writer(store_, id);
    LF_RETURN_IF_ERROR(writer.Add(stretch_, 0));
    LF_RETURN_IF_ERROR(writer.Finish());
    format::RootBuilder root(kPageSize, options_.chunks);
    root.Add(extent);

    storage::v1::SnapshotRecord record;
    record.set_snapshot_id(id.value());
    record.set_device_id(fmt::format("{:08x}-0000-4000-8000-000000000000", database + 1));
    record.set_database("main");
    record.set_timeline(1);
    record.set_sequence(static_cast<uint64_t>(number) + 1);
    record.set_method(v1::METHOD_ONLINE);
    record.set_page_size(kPageSize);
    record.set_page_count(options_.chunks);
    record.set_root_digest(std::string(root.Finish().AsString()));
    record.set_root_version(format::kRootVersion);
    record.set_manifest_kind(2);
    record.set_manifest_parts(static_cast<uint32_t>(writer.places().size()));
    storage::v1::ManifestLayer& layer = *record.add_layers();
    layer.set_id(id.value());
    layer.set_parts(record.manifest_parts());
    layer.set_bytes(writer.bytes());
    record.set_taken_at_ms(at_ms);
    record.set_received_at_ms(at_ms);
    record.set_effective_at_ms(at_ms);
    record.set_source_check(v1::CHECK_STATE_UNKNOWN);
    record.set_session_id(NewUlid(FromUnixMillis(at_ms)));
    return store_.PutRecord(format::RecordType::kSnapshot, AsBytes(record.SerializeAsString())).status();
  }

  const Options& options_;
  store::Store& store_;
  const RealClock clock_;
  std::mt19937_64 random_{20261128};
  format::ChunkCompressor compressor_{1};
  std::string stored_;
  manifest::Stretch stretch_;
  int64_t chunks_ = 0;
  int64_t dead_ = 0;
};

absl::Status Fill(const Options& options) {
  const RealClock clock;
  store::FileStoreOptions store_options;
  store_options.directory = options.store;
  LF_ASSIGN_OR_RETURN(const auto store, store::FileStore::Open(store_options, clock));
  return Filler(options, *store).Run();
}

int Main(int argc, char** argv) {
  CLI::App app("Fills the store of a controller with many small snapshots");
  Options options;
  app.add_option("--store", options.store, "DATA/store")->required();
  app.add_option("--databases", options.databases)->check(CLI::Range(1, 1'000'000));
  app.add_option("--snapshots", options.snapshots, "of each database")->check(CLI::Range(1, 1'000'000));
  app.add_option("--chunks", options.chunks, "of each snapshot, one page each")->check(CLI::Range(1, 512));
  app.add_option("--dead", options.dead, "chunks for 100 others that nothing refers to")->check(CLI::Range(0, 100));
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = Fill(options);
  if (status.ok()) return 0;
  fmt::print(stderr, "store_filler: {}\n", MessageOf(status));
  return 1;
}

}  // namespace
}  // namespace litefleet

int main(int argc, char** argv) { return litefleet::Main(argc, argv); }
