#include "tests/unit/agent/hostile/hostile_images.h"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "fmt/format.h"

namespace litefleet::hostile {
namespace {

constexpr std::string_view kRows =
    "create table t(id integer primary key, x blob, n text); create index i on t(n, id);"
    "with recursive c(i) as (select 1 union all select i + 1 from c where i < 160) insert into t select i, randomblob(i % 9 * i % 1500), "
    "'row ' || i from c;"
    "create table w(a text, b int, c blob, primary key(a, b)) without rowid; insert into w select n, id % 7, x from t where id < 60;"
    "create table gone(x); insert into gone select randomblob(700) from t; drop table gone;";

// Without a look at what it says: the image is a real one.
int Run(const std::string& path, const std::string& sql) {
  sqlite3* db = nullptr;
  int rc = sqlite3_open(path.c_str(), &db);
  if (rc == SQLITE_OK) {
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 0, nullptr);
    rc = sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr);
  }
  sqlite3_close(db);
  return rc;
}

std::vector<uint32_t> PagesOf(const std::string& path, const std::string& where) {
  std::vector<uint32_t> pages;
  sqlite3* db = nullptr;
  sqlite3_open(path.c_str(), &db);
  sqlite3_stmt* statement = nullptr;
  const std::string sql = "select pageno from dbstat where " + where + " order by pageno";
  if (sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr) == SQLITE_OK) {
    while (sqlite3_step(statement) == SQLITE_ROW) pages.push_back(static_cast<uint32_t>(sqlite3_column_int64(statement, 0)));
  }
  sqlite3_finalize(statement);
  sqlite3_close(db);
  return pages;
}

Bytes ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string content{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  const ByteView view = AsBytes(content);
  return Bytes(view.begin(), view.end());
}

}  // namespace

const std::vector<HostileImages::Kind>& HostileImages::Kinds() {
  static const std::vector<Kind> kinds = {
      {"flipped bits", &HostileImages::FlipBits, false},
      {"cut", &HostileImages::Cut, false},
      {"grown", &HostileImages::Grow, false},
      {"header", &HostileImages::Header, false},
      {"tree header", &HostileImages::TreeHeader, false},
      {"cell pointers", &HostileImages::CellPointers, false},
      {"cells", &HostileImages::Cells, false},
      {"children", &HostileImages::Children, false},
      {"free list", &HostileImages::FreeList, false},
      {"overflow chain", &HostileImages::OverflowChain, false},
      {"swapped pages", &HostileImages::SwapPages, false},
      {"zeroed pages", &HostileImages::ZeroPages, false},
      {"schema text", &HostileImages::SchemaText, true},
      {"schema rows", &HostileImages::SchemaRows, true},
  };
  return kinds;
}

HostileImages::HostileImages(const std::string& directory, uint32_t seed) : directory_(directory), random_(seed) {
  AddBase("plain", fmt::format("pragma page_size=512; {}", kRows));
  AddBase("vacuum", fmt::format("pragma page_size=1024; pragma auto_vacuum=incremental; {}", kRows));
  AddBase("wal", fmt::format("pragma page_size=4096; pragma journal_mode=wal; {}", kRows));
  AddBase("utf16",
          fmt::format("pragma page_size=1024; pragma encoding='UTF-16le'; {} create view v as select * from t;"
                      "create table g(a int check (a > 0), b int generated always as (a * 2) stored, r references t(id)) strict;"
                      "insert into g(a, r) select id, id from t where id < 50; create trigger r after insert on g begin delete from w; end;"
                      "create index e on g(a + b) where a > 3",
                      kRows));
  AddBase("virtual",
          fmt::format(
              "pragma page_size=2048; {} create virtual table f using fts5(body); insert into f select n || hex(x) from t where id < 80;"
              "create virtual table b using rtree(id, x0, x1); insert into b select id, id, id + 1 from t; analyze",
              kRows));
}

int HostileImages::Combinations() const { return static_cast<int>(Kinds().size() * bases_.size()); }

void HostileImages::AddBase(const std::string& name, const std::string& sql) {
  Base base;
  base.name = name;
  base.path = directory_ + "/" + name + ".db";
  // A build of SQLite without a module makes the rest.
  Run(base.path, sql);
  base.trees = PagesOf(base.path, "pagetype <> 'overflow'");
  base.overflow = PagesOf(base.path, "pagetype = 'overflow'");
  base.bytes = ReadBytes(base.path);
  const uint32_t raw = LoadBigEndian<uint16_t>(base.bytes.data() + 16);
  base.page_size = raw == 1 ? 65536 : raw;
  bases_.push_back(std::move(base));
}

HostileImage HostileImages::Next() {
  const int number = next_++;
  const Kind& kind = Kinds()[static_cast<size_t>(number) % Kinds().size()];
  const Base& base = bases_[static_cast<size_t>(number) / Kinds().size() % bases_.size()];
  HostileImage image{fmt::format("{} of {}, number {}", kind.name, base.name, number), kind.name, base.bytes, kind.schema};
  (this->*kind.damage)(base, image.bytes);
  return image;
}

uint32_t HostileImages::OddNumber(const Base& base) {
  const auto pages = static_cast<uint32_t>(base.bytes.size() / base.page_size);
  switch (Random(8)) {
    case 0:
      return 0;
    case 1:
      return 1;
    case 2:
      return pages;
    case 3:
      return pages + 1;
    case 4:
      return 0x7fffffff;
    case 5:
      return 0xffffffff;
    case 6:
      return Random(pages) + 1;
    default:
      return static_cast<uint32_t>(random_());
  }
}

void HostileImages::Put32(Bytes& image, size_t offset, uint32_t value) {
  for (size_t i = 0; i < 4 && offset + i < image.size(); ++i) image[offset + i] = static_cast<std::byte>(value >> (24 - 8 * i));
}
void HostileImages::Put16(Bytes& image, size_t offset, uint32_t value) {
  for (size_t i = 0; i < 2 && offset + i < image.size(); ++i) image[offset + i] = static_cast<std::byte>(value >> (8 - 8 * i));
}

void HostileImages::FlipBits(const Base&, Bytes& image) {
  for (uint32_t i = Random(12) + 1; i > 0; --i)
    image[Random(static_cast<uint32_t>(image.size()))] ^= static_cast<std::byte>(1u << Random(8));
}

void HostileImages::Cut(const Base& base, Bytes& image) {
  const auto pages = static_cast<uint32_t>(image.size() / base.page_size);
  image.resize(size_t{Random(pages)} * base.page_size + (Random(2) == 0 ? 0 : Random(base.page_size)));
}

void HostileImages::Grow(const Base& base, Bytes& image) {
  for (uint32_t i = Random(3 * base.page_size) + 1; i > 0; --i) image.push_back(static_cast<std::byte>(random_()));
  if (Random(2) == 0) Put32(image, 28, static_cast<uint32_t>(image.size() / base.page_size) + Random(3));
}

void HostileImages::Header(const Base& base, Bytes& image) {
  static constexpr std::array<size_t, 18> kFields = {16, 18, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60, 64, 72, 88, 92, 96};
  for (uint32_t i = Random(3) + 1; i > 0; --i) Put32(image, kFields[Random(kFields.size())], OddNumber(base));
}

void HostileImages::TreeHeader(const Base& base, Bytes& image) {
  const uint32_t page = base.trees[Random(static_cast<uint32_t>(base.trees.size()))];
  const size_t at = (page == 1 ? 100 : 0) + size_t{page - 1} * base.page_size;
  switch (Random(5)) {
    case 0:
      image[at] = static_cast<std::byte>(std::array{0, 2, 5, 10, 13, 255}[Random(6)]);
      break;
    case 1:
      Put16(image, at + 1, random_());  // first free block
      break;
    case 2:
      Put16(image, at + 3, random_());  // number of cells
      break;
    case 3:
      Put16(image, at + 5, random_());  // begin of the cells
      break;
    default:
      image[at + 7] = static_cast<std::byte>(random_());
  }
}

void HostileImages::CellPointers(const Base& base, Bytes& image) {
  const uint32_t page = base.trees[Random(static_cast<uint32_t>(base.trees.size()))];
  const size_t at = (page == 1 ? 100 : 0) + size_t{page - 1} * base.page_size;
  for (uint32_t i = Random(4) + 1; i > 0; --i) Put16(image, at + 8 + size_t{Random(12)} * 2, random_());
}

void HostileImages::Cells(const Base& base, Bytes& image) {
  const uint32_t page = base.trees[Random(static_cast<uint32_t>(base.trees.size()))];
  const size_t at = size_t{page - 1} * base.page_size;
  for (uint32_t i = Random(20) + 1; i > 0; --i) image[at + base.page_size / 2 + Random(base.page_size / 2)] = std::byte{0xff};
}

// Trees that contain themselves, or each other.
void HostileImages::Children(const Base& base, Bytes& image) {
  std::vector<uint32_t> inner;
  for (const uint32_t page : base.trees) {
    const size_t at = (page == 1 ? 100 : 0) + size_t{page - 1} * base.page_size;
    if (image[at] == std::byte{2} || image[at] == std::byte{5}) inner.push_back(page);
  }
  if (inner.empty()) return FlipBits(base, image);
  const uint32_t page = inner[Random(static_cast<uint32_t>(inner.size()))];
  const size_t begin = size_t{page - 1} * base.page_size;
  const size_t at = begin + (page == 1 ? 100 : 0);
  const uint32_t target = Random(2) == 0 ? page : OddNumber(base);
  if (Random(2) == 0) return Put32(image, at + 8, target);
  Put32(image, begin + LoadBigEndian<uint16_t>(image.data() + at + 12), target);
}

void HostileImages::FreeList(const Base& base, Bytes& image) {
  const uint32_t trunk = LoadBigEndian<uint32_t>(image.data() + 32);
  const size_t at = size_t{trunk - 1} * base.page_size;
  switch (trunk == 0 || at + 8 > image.size() ? 0 : Random(4)) {
    case 0:
      Put32(image, 32, OddNumber(base));
      break;
    case 1:
      Put32(image, at, Random(2) == 0 ? trunk : OddNumber(base));
      break;
    case 2:
      Put32(image, at + 4, OddNumber(base));
      break;
    default:
      Put32(image, at + 8, OddNumber(base));
  }
  if (Random(2) == 0) Put32(image, 36, OddNumber(base));
}

void HostileImages::OverflowChain(const Base& base, Bytes& image) {
  if (base.overflow.empty()) return FlipBits(base, image);
  for (uint32_t i = Random(3) + 1; i > 0; --i) {
    const uint32_t page = base.overflow[Random(static_cast<uint32_t>(base.overflow.size()))];
    Put32(image, size_t{page - 1} * base.page_size, Random(2) == 0 ? page : OddNumber(base));
  }
}

void HostileImages::SwapPages(const Base& base, Bytes& image) {
  const auto pages = static_cast<uint32_t>(image.size() / base.page_size);
  const auto at = [&](uint32_t page) { return image.begin() + static_cast<std::ptrdiff_t>(size_t{page} * base.page_size); };
  for (uint32_t i = Random(3) + 1; i > 0; --i) {
    const uint32_t a = 1 + Random(pages - 1), b = 1 + Random(pages - 1);
    if (Random(2) == 0 && a != b) {
      std::swap_ranges(at(a), at(a + 1), at(b));
    } else {
      std::copy(at(a), at(a + 1), at(b));
    }
  }
}

void HostileImages::ZeroPages(const Base& base, Bytes& image) {
  const auto pages = static_cast<uint32_t>(image.size() / base.page_size);
  const uint32_t page = Random(4) == 0 ? 0 : Random(pages);
  const size_t at = size_t{page} * base.page_size + (page == 0 ? 100 : 0);
  std::fill(image.begin() + static_cast<std::ptrdiff_t>(at), image.begin() + static_cast<std::ptrdiff_t>(size_t{page + 1} * base.page_size),
            static_cast<std::byte>(Random(2) * 0xff));
}

void HostileImages::SchemaText(const Base& base, Bytes& image) {
  static constexpr std::array<std::string_view, 6> kWords = {"CREATE ", "create ", "table ", "index ", "primary key", "select "};
  static constexpr std::array<std::string_view, 6> kOther = {"((((((((", "''''''''", "/*/*/*/*", "x'zzzzzz", "; drop t", "-- -- --"};
  const std::string_view text = AsText(image);
  std::vector<size_t> found;
  for (const std::string_view word : kWords) {
    for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) found.push_back(at);
  }
  if (found.empty()) return FlipBits(base, image);  // UTF-16
  for (uint32_t i = Random(3) + 1; i > 0; --i) {
    const size_t at = found[Random(static_cast<uint32_t>(found.size()))] + Random(12);
    const std::string_view other = kOther[Random(kOther.size())];
    for (size_t c = 0; c < other.size() && at + c < image.size(); ++c)
      image[at + c] = Random(4) == 0 ? static_cast<std::byte>(random_()) : static_cast<std::byte>(other[c]);
  }
}

void HostileImages::SchemaRows(const Base& base, Bytes& image) {
  static constexpr std::array<std::string_view, 16> kRewrites = {
      "update sqlite_schema set rootpage = 1 where name = 't'",
      "update sqlite_schema set rootpage = 0 where name = 't'",
      "update sqlite_schema set rootpage = 99999999 where name = 'i'",
      "update sqlite_schema set rootpage = (select rootpage from sqlite_schema where name = 'i') where name = 't'",
      "update sqlite_schema set sql = null where name = 't'",
      "update sqlite_schema set sql = 'create table t(id integer primary key, x blob check (length(randomblob(900000000)) > 1), n)' where "
      "name = 't'",
      "update sqlite_schema set sql = 'create table t(id, x, n as (x) , m as (n))' where name = 't'",
      "update sqlite_schema set sql = 'create table t(' || replace(hex(zeroblob(3000)), '00', 'c' || abs(random()) || ',') || 'z)' where "
      "name = 't'",
      "update sqlite_schema set sql = replace(sql, 'create', 'create' || char(0)) where name = 't'",
      "update sqlite_schema set name = 'sqlite_sequence', tbl_name = 'sqlite_sequence' where name = 't'",
      "insert into sqlite_schema values ('view', 'a', 'a', 0, 'create view a as select * from b'), ('view', 'b', 'b', 0, 'create view b as "
      "select * from a')",
      "insert into sqlite_schema values ('trigger', 'x', 't', 0, 'create trigger x after insert on t begin select load_extension(''/x''); "
      "end')",
      "insert into sqlite_schema values ('table', 'vt', 'vt', 0, 'create virtual table vt using fts5(a, tokenize=nobody)')",
      "insert into sqlite_schema values ('table', 'vu', 'vu', 0, 'create virtual table vu using nothing(/etc/passwd)')",
      "insert into sqlite_schema select type, name || '2', tbl_name, rootpage, sql from sqlite_schema",
      "insert into sqlite_schema values ('index', 'bad', 't', 2, 'create index bad on t(missing(x))'), (x'00', 1.5, null, 'two', 7)",
  };
  const std::string path = directory_ + "/rewritten.db";
  std::filesystem::copy_file(base.path, path, std::filesystem::copy_options::overwrite_existing);
  Run(path, fmt::format("pragma writable_schema=on; {}", kRewrites[Random(kRewrites.size())]));
  image = ReadBytes(path);
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) std::filesystem::remove(path + suffix);
}

}  // namespace litefleet::hostile
