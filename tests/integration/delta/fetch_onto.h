// A delta restore without a device: what differs of a snapshot from what somebody has is fetched and put in its place.
#ifndef LITEFLEET_TESTS_INTEGRATION_DELTA_FETCH_ONTO_H_
#define LITEFLEET_TESTS_INTEGRATION_DELTA_FETCH_ONTO_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "tests/unit/controller/ingest/ingest_fixture.h"

namespace litefleet::upload {

// What a device that has `local` gets of a snapshot: the names of its extents, and pages that differ. Their number.
inline uint32_t FetchOnto(ingest::DataPath& path, const v1::Snapshot& snapshot, Bytes local, const Bytes& wanted) {
  auto names = path.readers->OpenNames(SnapshotId(snapshot.id()));
  EXPECT_TRUE(names.ok()) << names.status();
  format::RootBuilder root(snapshot.page_size(), snapshot.page_count());
  for (;;) {
    const auto some = (*names)->Next();
    EXPECT_TRUE(some.ok()) << some.status();
    if (!some.ok() || some->empty()) break;
    for (const format::ChunkName& name : *some) root.Add(name);
  }
  EXPECT_EQ(root.Finish().AsString(), snapshot.root_digest());

  local.resize(wanted.size());
  std::vector<format::PageDigest> digests;
  format::DigestPages(snapshot.page_size(), local, digests);
  std::string have;
  for (const format::PageDigest& digest : digests) have += digest.AsString().substr(0, restore::kHaveBytes);
  const restore::WantedRun all[] = {{1, snapshot.page_count()}};
  auto reader = path.readers->OpenDifferent(SnapshotId(snapshot.id()), all, have);
  EXPECT_TRUE(reader.ok()) << reader.status();
  uint32_t pages = 0;
  uint32_t last = 0;
  for (;;) {
    auto chunk = (*reader)->Next();
    EXPECT_TRUE(chunk.ok()) << chunk.status();
    if (!chunk.ok() || !chunk->has_value()) break;
    format::ChunkCompressor compressor(3);
    EXPECT_TRUE(restore::Pack(**chunk, compressor).ok());
    Bytes raw;
    EXPECT_TRUE(format::ChunkDecompressor()
                    .Open((*chunk)->codec, AsBytes((*chunk)->data), (*chunk)->raw_bytes, snapshot.page_size(), (*chunk)->name, raw)
                    .ok());
    if ((*chunk)->runs.empty()) (*chunk)->runs.push_back({(*chunk)->first_page, (*chunk)->page_count});
    size_t at = 0;
    for (const restore::WantedRun& run : (*chunk)->runs) {
      EXPECT_GT(run.first_page, last);
      last = run.first_page + run.page_count - 1;
      pages += run.page_count;
      const size_t size = size_t{run.page_count} * snapshot.page_size();
      std::copy_n(raw.begin() + static_cast<std::ptrdiff_t>(at), size,
                  local.begin() + static_cast<std::ptrdiff_t>(size_t{run.first_page - 1} * snapshot.page_size()));
      at += size;
    }
  }
  EXPECT_TRUE(local == wanted);
  return pages;
}

}  // namespace litefleet::upload

#endif  // LITEFLEET_TESTS_INTEGRATION_DELTA_FETCH_ONTO_H_
