#include "common/format/pack_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "common/format/store_names.h"

namespace litefleet::format {
namespace {

constexpr uint64_t kTag = 0x1122334455667788;

Bytes Payload(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

// A pack in memory.
struct FakePack {
  FakePack() {
    bytes.resize(kPackHeaderBytes);
    EncodePackHeader({.features = 0, .pack_id = 7, .tag = kTag, .created_at_ms = 1'800'000'000'000},
                     std::span<std::byte, kPackHeaderBytes>(bytes.data(), kPackHeaderBytes));
  }
  // Returns the offset.
  size_t Add(RecordType type, ByteView payload) {
    RecordHeader header;
    header.type = type;
    header.stored_bytes = header.raw_bytes = static_cast<uint32_t>(payload.size());
    if (type == RecordType::kChunk) {
      header.page_size = 512;
      header.page_count = static_cast<uint32_t>(payload.size() / 512);
      header.name = NameChunkOf(512, payload);
    }
    header.payload_crc = Crc32c(payload);
    const size_t at = bytes.size();
    bytes.resize(at + kRecordHeaderBytes);
    EncodeRecordHeader(header, kTag, std::span<std::byte, kRecordHeaderBytes>(bytes.data() + at, kRecordHeaderBytes));
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return at;
  }
  absl::StatusOr<PackScanner> Scan() const {
    return PackScanner::Open(
        [this](uint64_t offset, std::span<std::byte> out) -> absl::StatusOr<size_t> {
          if (offset >= bytes.size()) return size_t{0};
          const size_t n = std::min(out.size(), bytes.size() - static_cast<size_t>(offset));
          std::memcpy(out.data(), bytes.data() + offset, n);
          return n;
        },
        bytes.size());
  }
  std::vector<uint64_t> Offsets(PackScanner& scanner) const {
    std::vector<uint64_t> offsets;
    for (;;) {
      const auto record = scanner.Next();
      if (!record.ok() || !record->has_value()) return offsets;
      offsets.push_back((*record)->offset);
    }
  }
  Bytes bytes;
};

TEST(Crc32c, VectorsOfTheRfc) {
  const Bytes zeros(32, std::byte{0});
  const Bytes ones(32, std::byte{0xff});
  EXPECT_EQ(Crc32c(zeros), 0x8a9136aau);
  EXPECT_EQ(Crc32c(ones), 0x62a8ab43u);
  EXPECT_EQ(Crc32c(AsBytes("123456789")), 0xe3069283u);
  EXPECT_EQ(internal::Crc32cPortable(AsBytes("123456789")), 0xe3069283u);
  for (size_t size : {0u, 1u, 7u, 8u, 9u, 1000u, 4099u}) {
    const Bytes bytes = Payload(size, static_cast<unsigned>(size));
    EXPECT_EQ(Crc32c(bytes), internal::Crc32cPortable(bytes)) << size;
  }
}

TEST(StoreNames, MadeAndParsed) {
  EXPECT_EQ(MakePackFileName(0xa7, true), "00000000000000a7.pack");
  EXPECT_EQ(MakePackFileName(UINT64_MAX, false), "ffffffffffffffff.open");
  const auto parsed = ParsePackFileName("00000000000000a7.pack");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->id, 0xa7u);
  EXPECT_TRUE(parsed->sealed);
  for (const char* bad : {"", "0000000000000000.pack", "00000000000000A7.pack", "00000000000000a7.tmp", "0000000000000a7.pack",
                          "x0000000000000a7.open", "00000000000000a7.pack "}) {
    EXPECT_FALSE(ParsePackFileName(bad).has_value()) << bad;
  }
}

// These bytes are on disks: they must never change.
TEST(PackRecord, GoldenBytes) {
  std::array<std::byte, kPackHeaderBytes> pack;
  EncodePackHeader({.features = 0, .pack_id = 0x0102, .tag = kTag, .created_at_ms = 1'800'000'000'000}, pack);
  EXPECT_EQ(ToHex(pack),
            "4c465041434b0d0a0100000040000000"
            "0000000000000000"
            "0201000000000000"
            "8877665544332211"
            "00505c18a3010000"
            "000000000000000000000000" +
                ToHex(ByteView(pack).last(4)));
  EXPECT_EQ(LoadLittleEndian<uint32_t>(pack.data() + 60), Crc32c(ByteView(pack).first(60)));

  RecordHeader header;
  header.type = RecordType::kChunk;
  header.codec = Codec::kZstd;
  header.stored_bytes = 0x1234;
  header.raw_bytes = 8192;
  header.page_size = 4096;
  header.page_count = 2;
  for (size_t i = 0; i < kDigestBytes; ++i) header.name.bytes[i] = static_cast<std::byte>(i);
  header.payload_crc = 0xdeadbeef;
  std::array<std::byte, kRecordHeaderBytes> record;
  EncodeRecordHeader(header, kTag, record);
  EXPECT_EQ(ToHex(ByteView(record).first(68)),
            "4c465231"
            "01"
            "02"
            "0000"
            "8877665544332211"
            "34120000"
            "00200000"
            "00100000"
            "02000000"
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
            "efbeadde");
  EXPECT_EQ(LoadLittleEndian<uint32_t>(record.data() + 68), Crc32c(ByteView(record).first(68)));
  const auto decoded = DecodeRecordHeader(record, kTag);
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(*decoded, header);
  EXPECT_FALSE(DecodeRecordHeader(record, kTag + 1).ok());
}

TEST(PackRecord, EveryFlippedBitOfAHeaderIsNoticed) {
  FakePack pack;
  const size_t at = pack.Add(RecordType::kChunk, Payload(1024, 1));
  for (size_t bit = 0; bit < kPackHeaderBytes * 8; ++bit) {
    Bytes copy(pack.bytes.begin(), pack.bytes.begin() + kPackHeaderBytes);
    copy[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(DecodePackHeader(copy).ok()) << bit;
  }
  for (size_t bit = 0; bit < kRecordHeaderBytes * 8; ++bit) {
    Bytes copy(pack.bytes.begin() + static_cast<ptrdiff_t>(at), pack.bytes.begin() + static_cast<ptrdiff_t>(at + kRecordHeaderBytes));
    copy[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(DecodeRecordHeader(copy, kTag).ok()) << bit;
  }
}

TEST(PackRecord, UnknownVersionAndFeaturesAreRefusedByName) {
  FakePack pack;
  Bytes header(pack.bytes.begin(), pack.bytes.begin() + kPackHeaderBytes);
  for (const size_t at : {size_t{8}, size_t{16}}) {
    Bytes newer = header;
    newer[at] = std::byte{2};
    StoreLittleEndian<uint32_t>(Crc32c(ByteView(newer).first(60)), newer.data() + 60);
    EXPECT_EQ(ReasonOf(DecodePackHeader(newer).status()), "PACK_TOO_NEW");
  }
}

TEST(PackRecord, SizesAreBounded) {
  const auto encode = [](RecordHeader header) {
    std::array<std::byte, kRecordHeaderBytes> bytes;
    EncodeRecordHeader(header, kTag, bytes);
    return DecodeRecordHeader(bytes, kTag).ok();
  };
  RecordHeader chunk{.type = RecordType::kChunk,
                     .codec = Codec::kZstd,
                     .stored_bytes = 10,
                     .raw_bytes = 512,
                     .page_size = 512,
                     .page_count = 1,
                     .name = {},
                     .payload_crc = 0};
  EXPECT_TRUE(encode(chunk));
  RecordHeader bad = chunk;
  bad.page_count = 2;
  EXPECT_FALSE(encode(bad));
  bad = chunk;
  bad.page_size = 500;
  EXPECT_FALSE(encode(bad));
  bad = chunk;
  bad.stored_bytes = kMaxChunkPayload + 1;
  EXPECT_FALSE(encode(bad));
  bad = chunk;
  bad.codec = Codec::kRaw;
  EXPECT_FALSE(encode(bad));
  bad = chunk;
  bad.codec = static_cast<Codec>(9);
  EXPECT_FALSE(encode(bad));
  bad = {.type = static_cast<RecordType>(99),
         .codec = Codec::kRaw,
         .stored_bytes = kMaxRecordPayload,
         .raw_bytes = kMaxRecordPayload,
         .page_size = 0,
         .page_count = 0,
         .name = {},
         .payload_crc = 0};
  EXPECT_TRUE(encode(bad)) << "unknown types are skipped, not fatal";
  bad.stored_bytes = bad.raw_bytes = kMaxRecordPayload + 1;
  EXPECT_FALSE(encode(bad));
}

TEST(PackScanner, ReadsAllRecords) {
  FakePack pack;
  std::vector<uint64_t> offsets;
  for (unsigned i = 0; i < 50; ++i)
    offsets.push_back(pack.Add(i % 5 == 0 ? RecordType::kManifestPart : RecordType::kChunk, Payload(512 * (1 + i * 7 % 500), i)));
  auto scanner = pack.Scan();
  ASSERT_TRUE(scanner.ok()) << scanner.status();
  EXPECT_EQ(pack.Offsets(*scanner), offsets);
  EXPECT_EQ(scanner->end_of_records(), pack.bytes.size());
  EXPECT_EQ(scanner->damaged_bytes(), 0u);
}

// A torn tail is cut at every byte: what stands before it is found, nothing else.
TEST(PackScanner, TornTail) {
  FakePack pack;
  const size_t first = pack.Add(RecordType::kChunk, Payload(512, 1));
  const size_t second = pack.Add(RecordType::kChunk, Payload(1024, 2));
  const Bytes whole = pack.bytes;
  for (size_t size = second; size < whole.size(); ++size) {
    pack.bytes.assign(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    auto scanner = pack.Scan();
    ASSERT_TRUE(scanner.ok());
    EXPECT_THAT(pack.Offsets(*scanner), testing::ElementsAre(first)) << size;
    EXPECT_EQ(scanner->end_of_records(), second);
    EXPECT_EQ(scanner->damaged_bytes(), 0u);
  }
  pack.bytes = whole;
  std::fill(pack.bytes.begin() + static_cast<ptrdiff_t>(second), pack.bytes.end(), std::byte{0});  // blocks that were never written
  pack.bytes.resize(pack.bytes.size() + (5 << 20));
  auto scanner = pack.Scan();
  ASSERT_TRUE(scanner.ok());
  EXPECT_THAT(pack.Offsets(*scanner), testing::ElementsAre(first));
}

TEST(PackScanner, DamageInTheMiddleIsSkipped) {
  FakePack pack;
  std::vector<uint64_t> offsets;
  for (unsigned i = 0; i < 5; ++i) offsets.push_back(pack.Add(RecordType::kChunk, Payload(200 * 512, i)));
  for (const size_t in_record : {size_t{5}, kRecordHeaderBytes + 100}) {
    FakePack damaged = pack;
    damaged.bytes[offsets[2] + in_record] ^= std::byte{0x10};
    auto scanner = damaged.Scan();
    ASSERT_TRUE(scanner.ok());
    EXPECT_THAT(damaged.Offsets(*scanner), testing::ElementsAre(offsets[0], offsets[1], offsets[3], offsets[4]));
    EXPECT_EQ(scanner->damaged_bytes(), offsets[3] - offsets[2]);
    EXPECT_EQ(scanner->end_of_records(), damaged.bytes.size());
  }
}

// A device decides what stands in a payload; a record inside of one must not be taken for real, also when what is around it is damaged.
TEST(PackScanner, PayloadCannotForgeARecord) {
  FakePack other;
  other.bytes.clear();
  RecordHeader header{.type = RecordType::kSnapshot,
                      .codec = Codec::kRaw,
                      .stored_bytes = 4,
                      .raw_bytes = 4,
                      .page_size = 0,
                      .page_count = 0,
                      .name = {},
                      .payload_crc = Crc32c(AsBytes("evil"))};
  Bytes forged(kRecordHeaderBytes);
  EncodeRecordHeader(header, kTag + 1, std::span<std::byte, kRecordHeaderBytes>(forged.data(), kRecordHeaderBytes));
  for (const char c : std::string_view("evil")) forged.push_back(static_cast<std::byte>(c));
  forged.resize(1024);
  FakePack pack;
  const size_t first = pack.Add(RecordType::kChunk, forged);
  const size_t second = pack.Add(RecordType::kChunk, Payload(512, 3));
  pack.bytes[first + 1] ^= std::byte{1};
  auto scanner = pack.Scan();
  ASSERT_TRUE(scanner.ok());
  EXPECT_THAT(pack.Offsets(*scanner), testing::ElementsAre(second));
}

TEST(PackScanner, RandomBytesNeverCrash) {
  std::mt19937 random(42);
  for (unsigned round = 0; round < 300; ++round) {
    FakePack pack;
    for (unsigned i = 0; i < 6; ++i) pack.Add(RecordType::kChunk, Payload(512 * (1 + random() % 8), round * 10 + i));
    const unsigned changes = random() % 40;
    for (unsigned i = 0; i < changes; ++i) {
      const size_t at = kPackHeaderBytes + random() % (pack.bytes.size() - kPackHeaderBytes);
      switch (random() % 3) {
        case 0:
          pack.bytes[at] = static_cast<std::byte>(random());
          break;
        case 1:
          std::memcpy(pack.bytes.data() + std::min(at, pack.bytes.size() - 4), "LFR1", 4);
          break;
        default:
          if (random() % 10 == 0) pack.bytes.resize(std::max<size_t>(at, kPackHeaderBytes + 1));
      }
    }
    auto scanner = pack.Scan();
    ASSERT_TRUE(scanner.ok());
    uint64_t end = kPackHeaderBytes;
    for (;;) {
      const auto record = scanner->Next();
      ASSERT_TRUE(record.ok());
      if (!record->has_value()) break;
      ASSERT_GE((*record)->offset, end);
      ASSERT_EQ(Crc32c((*record)->payload), (*record)->header.payload_crc);
      end = scanner->end_of_records();
    }
    ASSERT_LE(end, pack.bytes.size());
  }
}

}  // namespace
}  // namespace litefleet::format
