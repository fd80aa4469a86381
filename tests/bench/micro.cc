// What every page goes through, one step at a time: digests of pages, names of chunks, compression and the way back, on content that
// compresses as tables do (a third is random).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/format/extent.h"

namespace litefleet::format {
namespace {

constexpr size_t kExtent = kExtentBytes;

Bytes Extent() {
  Bytes raw(kExtent);
  std::mt19937_64 random(7);
  for (size_t at = 0; at < kExtent; at += 24) {
    const uint64_t words[3] = {random(), at, at / 4096};
    std::memcpy(raw.data() + at, words, std::min<size_t>(sizeof words, kExtent - at));
  }
  return raw;
}

void CountBytes(benchmark::State& state) { state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kExtent)); }

void DigestsOfPages(benchmark::State& state) {
  const Bytes raw = Extent();
  std::vector<PageDigest> digests;
  for (auto _ : state) {
    digests.clear();
    DigestPages(static_cast<uint32_t>(state.range(0)), raw, digests);
    benchmark::DoNotOptimize(digests.data());
  }
  CountBytes(state);
}
BENCHMARK(DigestsOfPages)->Arg(512)->Arg(4096)->Arg(65536);

void NameOfAChunk(benchmark::State& state) {
  const Bytes raw = Extent();
  for (auto _ : state) benchmark::DoNotOptimize(NameChunkOf(4096, raw));
  CountBytes(state);
}
BENCHMARK(NameOfAChunk);

void Compress(benchmark::State& state) {
  const Bytes raw = Extent();
  ChunkCompressor compressor(static_cast<int>(state.range(0)));
  std::string stored;
  for (auto _ : state) {
    if (!compressor.Compress(raw, stored).ok()) return state.SkipWithError("it cannot be compressed");
  }
  CountBytes(state);
  state.counters["ratio"] = static_cast<double>(stored.size()) / static_cast<double>(kExtent);
}
BENCHMARK(Compress)->Arg(1)->Arg(3)->Arg(9);

// As a restore does: decompress, hash, compare.
void OpenAChunk(benchmark::State& state) {
  const Bytes raw = Extent();
  std::string stored;
  const auto codec = ChunkCompressor(1).Compress(raw, stored);
  const ChunkName name = NameChunkOf(4096, raw);
  ChunkDecompressor decompressor;
  Bytes out;
  for (auto _ : state) {
    if (!codec.ok() || !decompressor.Open(*codec, AsBytes(stored), kExtent, 4096, name, out).ok())
      return state.SkipWithError("it cannot be opened");
  }
  CountBytes(state);
}
BENCHMARK(OpenAChunk);

}  // namespace
}  // namespace litefleet::format

BENCHMARK_MAIN();
