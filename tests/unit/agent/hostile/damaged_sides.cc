#include "tests/unit/agent/hostile/damaged_sides.h"

#include <algorithm>
#include <array>
#include <functional>
#include <string_view>
#include <utility>

#include "agent/capture/wal_frames.h"
#include "fmt/format.h"

namespace litefleet::hostile {
namespace {

constexpr size_t kWalHeader = capture::kWalHeaderBytes;
constexpr size_t kFrameHeader = capture::kWalFrameHeaderBytes;
constexpr std::string_view kJournalMagic = "\xd9\xd5\x05\xf9\x20\xa1\x63\xd7";

uint32_t Get32(const Bytes& bytes, size_t at) { return LoadBigEndian<uint32_t>(&bytes[at]); }
void Put32(Bytes& bytes, size_t at, uint32_t value) {
  for (size_t i = 0; i < 4; ++i) bytes[at + i] = static_cast<std::byte>(value >> (24 - 8 * i));
}
void Append(Bytes& bytes, ByteView more) { bytes.insert(bytes.end(), more.begin(), more.end()); }
Bytes Garbage(size_t size) {
  std::mt19937 random(7);
  Bytes bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// A WAL whose fields can be changed.
struct Wal {
  explicit Wal(Bytes& wal) : bytes(wal), page_size(Get32(wal, 8)), frames((wal.size() - kWalHeader) / (kFrameHeader + page_size)) {
    for (size_t i = 0; i < frames; ++i) {
      if (Get32(bytes, At(i) + 4) != 0) commits.push_back(i);
    }
  }
  size_t At(size_t frame) const { return kWalHeader + frame * (kFrameHeader + page_size); }
  size_t Page(size_t frame) const { return At(frame) + kFrameHeader; }
  // The last frame with that page.
  size_t FrameOf(uint32_t page) const {
    size_t frame = frames - 1;
    while (frame > 0 && Get32(bytes, At(frame)) != page) --frame;
    return frame;
  }
  void Seal() {
    const bool big_endian = (Get32(bytes, 0) & 1) != 0;
    std::array<uint32_t, 2> sum{};
    const auto put = [&](size_t at) {
      Put32(bytes, at, sum[0]);
      Put32(bytes, at + 4, sum[1]);
    };
    capture::AddToWalChecksum(big_endian, ByteView(bytes).first(24), sum);
    put(24);
    for (size_t i = 0; i < frames; ++i) {
      capture::AddToWalChecksum(big_endian, ByteView(bytes).subspan(At(i), 8), sum);
      capture::AddToWalChecksum(big_endian, ByteView(bytes).subspan(Page(i), page_size), sum);
      put(At(i) + 16);
    }
  }
  Bytes& bytes;
  const size_t page_size;
  const size_t frames;
  std::vector<size_t> commits;
};

// The first segment of a journal.
struct Journal {
  explicit Journal(Bytes& journal)
      : bytes(journal), records(Get32(journal, 8)), sector(Get32(journal, 20)), page_size(Get32(journal, 24)) {}
  size_t At(size_t record) const { return sector + record * (page_size + 8); }
  size_t Page(size_t record) const { return At(record) + 4; }
  // That of the next segment.
  size_t NextHeader() const { return (At(records) + sector - 1) / sector * sector; }
  size_t RecordOf(uint32_t page) const {
    size_t record = 0;
    while (record + 1 < records && Get32(bytes, At(record)) != page) ++record;
    return record;
  }
  void Seal(size_t record) {
    uint32_t sum = Get32(bytes, 12);
    for (size_t i = page_size - 200; i > 0 && i < page_size; i -= 200) sum += std::to_integer<uint32_t>(bytes[Page(record) + i]);
    Put32(bytes, Page(record) + page_size, sum);
  }
  Bytes& bytes;
  const size_t records;
  const size_t sector;
  const size_t page_size;
};

Bytes SuperRecord(uint32_t page_size, const std::string& name, bool right = true) {
  Bytes record(4);
  Put32(record, 0, 0x40000000u / page_size + 1);
  Append(record, AsBytes(name));
  uint32_t sum = right ? 0 : 1;
  for (const char c : name) sum += static_cast<uint32_t>(static_cast<signed char>(c));
  record.resize(record.size() + 8);
  Put32(record, record.size() - 8, static_cast<uint32_t>(name.size()));
  Put32(record, record.size() - 4, sum);
  Append(record, AsBytes(kJournalMagic));
  return record;
}

}  // namespace

std::vector<DamagedSides> DamagedWals(const Sides& left, const Sides& other, const Sides& coarse) {
  std::vector<DamagedSides> all;
  const auto add = [&](const std::string& name, const std::function<void(Sides&, Wal&)>& damage) {
    Sides files = left;
    Wal wal(*files.wal);
    damage(files, wal);
    all.push_back({name, std::move(files)});
  };
  // With wrong checksums, and with right ones.
  const auto both = [&](const std::string& name, const std::function<void(Wal&)>& damage) {
    add(name, [&](Sides&, Wal& wal) { damage(wal); });
    add(name + ", sealed", [&](Sides&, Wal& wal) {
      damage(wal);
      wal.Seal();
    });
  };
  add("whole", [](Sides&, Wal&) {});
  both("magic", [](Wal& wal) { wal.bytes[1] ^= std::byte{0x40}; });
  both("byte order", [](Wal& wal) { wal.bytes[3] ^= std::byte{1}; });
  both("version", [](Wal& wal) { wal.bytes[7] ^= std::byte{1}; });
  for (const uint32_t size : {0u, 256u, 512u, 2048u, 65536u, 131072u, 1000u, 0xffffffffu})
    both(fmt::format("page size {}", size), [=](Wal& wal) { Put32(wal.bytes, 8, size); });
  both("checkpoint number", [](Wal& wal) { wal.bytes[15] ^= std::byte{1}; });
  both("salt 1", [](Wal& wal) { wal.bytes[18] ^= std::byte{1}; });
  both("salt 2", [](Wal& wal) { wal.bytes[20] ^= std::byte{1}; });
  add("header's checksum", [](Sides&, Wal& wal) { wal.bytes[30] ^= std::byte{1}; });
  Bytes whole = *left.wal;
  const Wal as_left(whole);
  const size_t frames = as_left.frames;
  const auto of_frame = [&](const std::string& where, size_t frame) {
    for (const uint32_t page : {0u, 2u, 0x1000u, 0x7fffffffu, 0xffffffffu})
      both(fmt::format("{} frame, page {}", where, page), [=](Wal& wal) { Put32(wal.bytes, wal.At(frame), page); });
    for (const uint32_t pages : {0u, 1u, 2u, 0x200u})
      both(fmt::format("{} frame, {} pages", where, pages), [=](Wal& wal) { Put32(wal.bytes, wal.At(frame) + 4, pages); });
    both(where + " frame, salt", [=](Wal& wal) { wal.bytes[wal.At(frame) + 9] ^= std::byte{1}; });
    add(where + " frame, checksum", [&](Sides&, Wal& wal) { wal.bytes[wal.At(frame) + 17] ^= std::byte{1}; });
    both(where + " frame, content", [=](Wal& wal) { wal.bytes[wal.Page(frame) + wal.page_size - 5] ^= std::byte{1}; });
    add(where + " frame cut in its header", [&](Sides&, Wal& wal) { wal.bytes.resize(wal.At(frame) + 10); });
    add(where + " frame cut in its page", [&](Sides&, Wal& wal) { wal.bytes.resize(wal.Page(frame) + 300); });
    add(where + " frame cut off", [&](Sides&, Wal& wal) { wal.bytes.resize(wal.At(frame)); });
  };
  of_frame("first", 0);
  of_frame("middle", frames / 2);
  of_frame("last", frames - 1);
  // Page 1 as no database has it.
  const auto page1 = [&](const std::string& name, size_t at, std::byte value) {
    both("page 1, " + name, [=](Wal& wal) { wal.bytes[wal.Page(wal.FrameOf(1)) + at] = value; });
  };
  page1("magic", 3, std::byte{'x'});
  page1("page size", 16, std::byte{0x33});
  page1("other page size", 16, std::byte{8});
  page1("read version", 19, std::byte{77});
  page1("rollback mode", 19, std::byte{1});
  page1("reserved bytes", 20, std::byte{200});
  page1("fractions", 21, std::byte{1});
  page1("change counter", 27, std::byte{0x77});
  page1("page count", 30, std::byte{0x77});
  page1("schema format", 47, std::byte{9});
  page1("root type", 100, std::byte{7});
  add("cut to nothing", [](Sides&, Wal& wal) { wal.bytes.clear(); });
  add("cut in its header", [](Sides&, Wal& wal) { wal.bytes.resize(20); });
  add("cut to its header", [](Sides&, Wal& wal) { wal.bytes.resize(kWalHeader); });
  for (size_t i = 0; i < as_left.commits.size(); ++i)
    add(fmt::format("cut after commit {}", i), [=](Sides&, Wal& wal) { wal.bytes.resize(wal.At(wal.commits[i] + 1)); });
  add("a byte more", [](Sides&, Wal& wal) { wal.bytes.push_back(std::byte{1}); });
  add("garbage after the end", [](Sides&, Wal& wal) { Append(wal.bytes, Garbage(3 * (kFrameHeader + wal.page_size))); });
  add("frames of before after the end", [](Sides&, Wal& wal) {
    Bytes frames_before(wal.bytes.begin() + static_cast<std::ptrdiff_t>(kWalHeader), wal.bytes.end());
    for (size_t i = 0; i < wal.frames; ++i) frames_before[i * (kFrameHeader + wal.page_size) + 11] ^= std::byte{1};
    Append(wal.bytes, frames_before);
  });
  add("zeros", [](Sides&, Wal& wal) { std::fill(wal.bytes.begin(), wal.bytes.end(), std::byte{0}); });
  add("garbage", [](Sides&, Wal& wal) { wal.bytes = Garbage(wal.bytes.size()); });
  add("of another database", [&](Sides& files, Wal&) { files.wal = other.wal; });
  add("of another database, cut after a commit", [&](Sides& files, Wal&) {
    files.wal = other.wal;
    const Wal wal(*files.wal);
    files.wal->resize(wal.At(wal.commits.front() + 1));
  });
  add("of another database with other pages", [&](Sides& files, Wal&) { files.wal = coarse.wal; });
  add("beside a database in rollback mode", [&](Sides& files, Wal&) { files.database[18] = files.database[19] = std::byte{1}; });
  add("of another database, beside one in rollback mode", [&](Sides& files, Wal&) {
    files.wal = other.wal;
    files.database[18] = files.database[19] = std::byte{1};
  });
  add("of one with other pages, beside one in rollback mode", [&](Sides& files, Wal&) {
    files.wal = coarse.wal;
    files.database[18] = files.database[19] = std::byte{1};
  });
  add("beside a database whose page size is damaged", [](Sides& files, Wal&) { files.database[16] ^= std::byte{0x30}; });
  add("beside an empty database", [](Sides& files, Wal&) { files.database.clear(); });
  add("beside a database that is cut", [](Sides& files, Wal&) { files.database.resize(files.database.size() / 2); });
  add("beside a database that ends within a page", [](Sides& files, Wal&) { files.database.resize(files.database.size() - 100); });
  add("beside a journal that is none", [](Sides& files, Wal&) { files.journal = Garbage(700); });
  return all;
}

std::vector<DamagedSides> DamagedJournals(const Sides& left, const Sides& other, const Sides& coarse, const std::string& super) {
  std::vector<DamagedSides> all;
  const auto add = [&](const std::string& name, const std::function<void(Sides&, Journal&)>& damage) {
    Sides files = left;
    Journal journal(*files.journal);
    damage(files, journal);
    all.push_back({name, std::move(files)});
  };
  const auto field = [&](const std::string& name, size_t at, uint32_t value) {
    add(fmt::format("{} {:#x}", name, value), [=](Sides&, Journal& journal) { Put32(journal.bytes, at, value); });
  };
  add("whole", [](Sides&, Journal&) {});
  for (size_t at = 0; at < 28; ++at)
    add(fmt::format("byte {}", at), [=](Sides&, Journal& journal) { journal.bytes[at] ^= std::byte{0xff}; });
  add("first byte 0", [](Sides&, Journal& journal) { journal.bytes[0] = std::byte{0}; });
  add("header zeroed", [](Sides&, Journal& journal) { std::fill_n(journal.bytes.begin(), 28, std::byte{0}); });
  Bytes whole = *left.journal;
  const auto records = static_cast<uint32_t>(Journal(whole).records);
  for (const uint32_t count : {0u, 1u, records - 1, records + 1, 0x7fffffffu, 0xfffffffeu, 0xffffffffu}) field("records", 8, count);
  const uint32_t pages = Get32(left.journal.value(), 16);
  for (const uint32_t count : {0u, 1u, 2u, pages - 1, pages + 1, pages + 2000, 0x7fffffffu, 0xffffffffu}) field("original size", 16, count);
  for (const uint32_t size : {0u, 16u, 32u, 500u, 1024u, 4096u, 65536u, 131072u, 0x80000000u}) field("sector size", 20, size);
  for (const uint32_t size : {0u, 256u, 512u, 1000u, 2048u, 8192u, 65536u, 131072u, 0x80000000u}) field("page size", 24, size);
  const auto of_record = [&](const std::string& where, size_t record) {
    const uint32_t lock_byte = 0x40000000u / Get32(left.journal.value(), 24) + 1;
    for (const uint32_t page : {0u, 1u, 2u, pages, pages + 1, 0x7fffffffu, 0xffffffffu, lock_byte})
      add(fmt::format("{} record, page {}", where, page),
          [=](Sides&, Journal& journal) { Put32(journal.bytes, journal.At(record), page); });
    // 200 bytes before the end is one that the checksum sees.
    add(where + " record, content",
        [=](Sides&, Journal& journal) { journal.bytes[journal.Page(record) + journal.page_size - 200] ^= std::byte{1}; });
    add(where + " record, unseen content", [=](Sides&, Journal& journal) { journal.bytes[journal.Page(record) + 150] ^= std::byte{1}; });
    add(where + " record, checksum", [=](Sides&, Journal& journal) { journal.bytes[journal.At(record + 1) - 1] ^= std::byte{1}; });
    add(where + " record cut", [=](Sides&, Journal& journal) { journal.bytes.resize(journal.Page(record) + 100); });
    add(where + " record cut off", [=](Sides&, Journal& journal) { journal.bytes.resize(journal.At(record)); });
    add(where + " record without its checksum", [=](Sides&, Journal& journal) { journal.bytes.resize(journal.At(record + 1) - 4); });
    // Page 1 as no database has it.
    const auto page1 = [&](const std::string& name, size_t at, int value) {
      add(fmt::format("{} record is a page 1, sealed, {}", where, name), [=](Sides& files, Journal& journal) {
        Put32(journal.bytes, journal.At(record), 1);
        std::copy_n(files.database.begin(), journal.page_size, journal.bytes.begin() + static_cast<std::ptrdiff_t>(journal.Page(record)));
        journal.bytes[journal.Page(record) + at] = static_cast<std::byte>(value);
        journal.Seal(record);
      });
    };
    page1("magic", 3, 'x');
    page1("page size", 16, 0x33);
    page1("read version", 19, 77);
    page1("WAL mode", 19, 2);
    page1("reserved bytes", 20, 200);
    page1("page count", 30, 0x77);
    page1("root type", 100, 7);
  };
  of_record("first", 0);
  of_record("middle", records / 2);
  of_record("last", records - 1);
  add("second header's magic", [](Sides&, Journal& journal) { journal.bytes[journal.NextHeader()] ^= std::byte{1}; });
  for (const uint32_t count : {0u, 1u, 0x7fffffffu, 0xffffffffu})
    add(fmt::format("second header, records {}", count),
        [=](Sides&, Journal& journal) { Put32(journal.bytes, journal.NextHeader() + 8, count); });
  add("second header's nonce", [](Sides&, Journal& journal) { journal.bytes[journal.NextHeader() + 12] ^= std::byte{1}; });
  add("second header's sizes",
      [](Sides&, Journal& journal) { std::fill_n(&journal.bytes[journal.NextHeader() + 16], 12, std::byte{0x11}); });
  add("cut before the second header", [](Sides&, Journal& journal) { journal.bytes.resize(journal.NextHeader()); });
  add("cut in the second header", [](Sides&, Journal& journal) { journal.bytes.resize(journal.NextHeader() + 20); });
  add("cut to nothing", [](Sides&, Journal& journal) { journal.bytes.clear(); });
  add("cut to a byte", [](Sides&, Journal& journal) { journal.bytes.resize(1); });
  add("cut in its header", [](Sides&, Journal& journal) { journal.bytes.resize(20); });
  add("cut in its first sector", [](Sides&, Journal& journal) { journal.bytes.resize(400); });
  add("cut to its first sector", [](Sides&, Journal& journal) { journal.bytes.resize(journal.sector); });
  add("garbage after the end", [](Sides&, Journal& journal) { Append(journal.bytes, Garbage(5000)); });
  add("garbage", [](Sides&, Journal& journal) { journal.bytes = Garbage(journal.bytes.size()); });
  add("zeros", [](Sides&, Journal& journal) { std::fill(journal.bytes.begin(), journal.bytes.end(), std::byte{0}); });
  const auto named = [&](const std::string& name, const std::string& path, bool right = true) {
    add("super-journal, " + name,
        [=](Sides&, Journal& journal) { Append(journal.bytes, SuperRecord(static_cast<uint32_t>(journal.page_size), path, right)); });
  };
  named("there", super);
  named("gone", super + "-gone");
  named("wrong sum", super + "-gone", false);
  named("no path", "there");
  named("long", "/" + std::string(520, 'x'));
  named("none", "");
  add("super-journal, length", [&](Sides&, Journal& journal) {
    Append(journal.bytes, SuperRecord(static_cast<uint32_t>(journal.page_size), super + "-gone"));
    Put32(journal.bytes, journal.bytes.size() - 16, 0x7fffffff);
  });
  add("of another database", [&](Sides& files, Journal&) { files.journal = other.journal; });
  add("of another database with other pages", [&](Sides& files, Journal&) { files.journal = coarse.journal; });
  add("beside an empty database", [](Sides& files, Journal&) { files.database.clear(); });
  add("beside a database that is cut", [](Sides& files, Journal&) { files.database.resize(files.database.size() / 2); });
  add("beside a database that ends within a page", [](Sides& files, Journal&) { files.database.resize(files.database.size() - 100); });
  add("beside a database in WAL mode", [](Sides& files, Journal&) { files.database[18] = files.database[19] = std::byte{2}; });
  add("beside a WAL that is none", [](Sides& files, Journal&) { files.wal = Garbage(700); });
  return all;
}

Sides DamagedAnywhere(const Sides& left, std::mt19937& random) {
  Sides files = left;
  Bytes& bytes = files.wal.has_value() ? *files.wal : *files.journal;
  const size_t page_size = files.wal.has_value() ? Wal(bytes).page_size : Journal(bytes).page_size;
  const size_t header = files.wal.has_value() ? kWalHeader : Journal(bytes).sector;
  const size_t record = page_size + (files.wal.has_value() ? kFrameHeader : 8);
  for (uint32_t i = random() % 3 + 1; i > 0; --i) {
    size_t at = random() % bytes.size();
    const uint32_t where = random() % 3;
    if (where == 0) at = random() % 32;
    if (where == 1) at = std::min(bytes.size() - 1, header + random() % (bytes.size() / record) * record + random() % kFrameHeader);
    bytes[at] = random() % 2 == 0 ? bytes[at] ^ std::byte{1} << random() % 8 : static_cast<std::byte>(random());
  }
  if (random() % 4 == 0) bytes.resize(random() % bytes.size());
  return files;
}

}  // namespace litefleet::hostile
