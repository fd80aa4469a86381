// A few hundred damaged databases: no crash, no hang, no growth of memory; copied exactly where they can be read; SQLite's own words about
// them.
//
// LITEFLEET_HOSTILE_IMAGES says how many (ctest's label nightly has the long form), LITEFLEET_HOSTILE_SEED which.
#include <fcntl.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>

#include "agent/capture/dump_source.h"
#include "agent/capture/file_source.h"
#include "common/base/sanitizer.h"
#include "common/base/status.h"
#include "common/check/checker.h"
#include "common/io/file.h"
#include "fmt/format.h"
#include "fmt/ranges.h"
#include "tests/unit/agent/capture/capture_fixture.h"
#include "tests/unit/agent/hostile/hostile_images.h"

namespace litefleet::capture {
namespace {

int FromEnvironment(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

int64_t ResidentKiB() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::atoll(line.c_str() + 6);
  }
  return 0;
}

class HostileImagesTest : public CaptureTest {
 protected:
  Copy ByFile(const std::string& path) const {
    FileOptions options;
    options.database = Options(path);
    options.scratch = directory();
    options.may_share = false;
    const auto taken = FileCopy::Take(options);
    if (!taken.ok()) return {.status = taken.status(), .info = {}, .damage = {}, .bytes = {}};
    auto source = (*taken)->Open();
    Copy copy;
    copy.info = (*source)->info();
    copy.damage = (*source)->damage();
    for (;;) {
      const auto next = (*source)->Next();
      copy.status = next.status();
      if (!next.ok() || !next->has_value()) return copy;
      copy.bytes.insert(copy.bytes.end(), (*next)->data.begin(), (*next)->data.end());
    }
  }

  // Nobody has anything open here when they are called.
  std::string Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(directory()))
      names.push_back(fmt::format("{} {}", entry.path().filename().string(), entry.file_size()));
    std::sort(names.begin(), names.end());
    return fmt::format("{}", fmt::join(names, ", "));
  }
  static Bytes Content(const std::string& path) {
    Bytes bytes(std::filesystem::file_size(path));
    std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }

  // How a dump ended: a reason, or nothing.
  std::string ByDump(const std::string& path) const {
    dump::HelperOptions helper;
    helper.time = std::chrono::seconds(20);
    auto source = OpenDumpSource(Options(path), {}, helper);
    if (!source.ok()) return ReasonOf(source.status());
    for (;;) {
      const auto piece = (*source)->Next();
      if (!piece.ok()) return ReasonOf(piece.status());
      if (piece->empty()) return "";
    }
  }

  // What SQLite says of it here, one sentence a line.
  static std::string OwnWords(const std::string& path) {
    sqlite3* db = nullptr;
    std::string words;
    int rc = sqlite3_open_v2(path.c_str(), &db, SQLITE_OPEN_READONLY, nullptr);
    for (const char* sql : {"pragma integrity_check", "select * from sqlite_schema"}) {
      sqlite3_stmt* statement = nullptr;
      rc = sqlite3_prepare_v2(db, sql, -1, &statement, nullptr);
      while (rc == SQLITE_OK && sqlite3_step(statement) == SQLITE_ROW) {
        const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
        words += text == nullptr ? "" : std::string(text) + "\n";
      }
      sqlite3_finalize(statement);
      words += std::string(sqlite3_errmsg(db)) + "\n";
    }
    sqlite3_close(db);
    return words;
  }

  check::CheckResult ByCheck(const std::string& path) const {
    check::Checker::Options options;
    options.limits.time = std::chrono::seconds(20);
    const auto fd = io::Open(path, O_RDONLY);
    return check::Checker(options).Check(fd->get(), {});
  }
};

TEST_F(HostileImagesTest, AreCopiedExactlyOrRefusedAndNamed) {
  const auto seed = static_cast<uint32_t>(FromEnvironment("LITEFLEET_HOSTILE_SEED", 5));
  hostile::HostileImages images(directory(), seed);
  const int count = FromEnvironment("LITEFLEET_HOSTILE_IMAGES", 4 * images.Combinations());
  std::map<std::string, int> copied, refused, damaged, in_words;
  int64_t resident = 0;
  for (int i = 0; i < count; ++i) {
    const hostile::HostileImage image = images.Next();
    SCOPED_TRACE(fmt::format("{} (LITEFLEET_HOSTILE_SEED={})", image.name, seed));
    const std::string path = Store(image.bytes, "image.db");
    const std::string before = Names();
    const Copy online = Backup(path);
    const Copy file = ByFile(path);
    ASSERT_EQ(Names(), before);
    ASSERT_TRUE(Content(path) == image.bytes);
    ASSERT_EQ(ReasonOf(file.status), ReasonOf(online.status)) << file.status << "\n" << online.status;
    if (i == images.Combinations()) resident = ResidentKiB();
    if (!online.status.ok()) {
      ASSERT_TRUE(ReasonOf(online.status) == "DATABASE_DAMAGED" || ReasonOf(online.status) == "NOT_A_DATABASE") << online.status;
      EXPECT_NE(HintOf(online.status), "");
      ++refused[image.kind];
      continue;
    }
    ++copied[image.kind];
    ASSERT_TRUE(file.bytes == online.bytes);
    ASSERT_EQ(file.damage, online.damage);
    const size_t both = std::min(online.bytes.size(), image.bytes.size());
    ASSERT_TRUE(std::equal(online.bytes.begin(), online.bytes.begin() + static_cast<std::ptrdiff_t>(both), image.bytes.begin()));
    ASSERT_TRUE(std::all_of(online.bytes.begin() + static_cast<std::ptrdiff_t>(both), online.bytes.end(),
                            [](std::byte b) { return b == std::byte{0}; }));
    if (online.bytes.empty()) continue;

    const std::string copy = Store(online.bytes, "copy.db");
    const check::CheckResult checked = ByCheck(copy);
    ASSERT_TRUE(checked.status.ok()) << checked.status;
    if (checked.verdict.state == check::State::kDamaged) {
      ++damaged[image.kind];
      ASSERT_FALSE(checked.verdict.messages.empty());
      if (!image.schema) {
        const std::string own = OwnWords(copy);
        in_words[image.kind] += std::any_of(checked.verdict.messages.begin(), checked.verdict.messages.end(),
                                            [&](const std::string& message) { return own.find(message) != std::string::npos; });
      }
    }
    const std::string dumped = ByDump(path);
    EXPECT_TRUE(dumped.empty() || dumped == "DATABASE_DAMAGED" || dumped == "DUMP_REFUSED" || dumped == "DUMP_FAILED") << dumped;
  }
  int said = 0, damages = 0;
  for (const auto& [kind, n] : damaged) {
    damages += n;
    fmt::print("{}: {} copied, {} refused, {} damaged by SQLite's verdict\n", kind, copied[kind], refused[kind], n);
  }
  for (const auto& [kind, n] : in_words) said += n;
  fmt::print("{} images, {} of the verdicts in the words of a connection here\n", count, said);
  if (count < images.Combinations()) return;
  EXPECT_GT(damages, count / 3);
  // Grown images, and those of a free list that nobody follows, may be whole.
  for (const char* kind : {"tree header", "cell pointers", "children", "overflow chain", "zeroed pages", "swapped pages", "free list"})
    EXPECT_GT(damaged[kind], 0) << kind;
  EXPECT_GT(said, damages / 3);
  if (!kSanitized) {
    EXPECT_LT(ResidentKiB() - resident, 16 << 10);
  }
}

}  // namespace
}  // namespace litefleet::capture
