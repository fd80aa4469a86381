#include "common/archive/unpack.h"
#include "tests/fakes/tar_text.h"

#include <archive.h>
#include <archive_entry.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "common/files/entry.h"

namespace litefleet::archive {
namespace {

using ::testing::HasSubstr;

struct Result {
  std::string problem;
  std::string types;
  uint64_t bytes = 0;
};

Result Read(std::string_view archive, size_t step = 512) {
  Result result;
  files::FrameReader reader;
  result.problem = Unpack(
      [&](std::string_view& piece) {
        piece = archive.substr(0, step);
        archive.remove_prefix(piece.size());
        return true;
      },
      [&](std::string_view frame) {
        reader.Add(frame);
        bool nonsense = false;
        while (const auto next = reader.Take(nonsense)) {
          if (next->type != 'D') result.types += next->type;
          if (next->type == 'D') result.bytes += next->data.size();
        }
        return !nonsense;
      });
  return result;
}

std::string Made(const std::function<void(archive_entry*)>& change, const std::string& content = "hello", bool ustar = false) {
  fakes::TarText tar(!ustar);
  archive_entry* const entry = archive_entry_new();
  archive_entry_set_pathname(entry, "name");
  archive_entry_set_mode(entry, AE_IFREG | 0644);
  archive_entry_set_size(entry, static_cast<la_int64_t>(content.size()));
  change(entry);
  tar.Add(entry, content);
  return tar.Finish();
}

TEST(Unpack, AnArchive) {
  const std::string archive = Made([](archive_entry*) {});
  for (const size_t step : {1, 7, 512, 65536}) {
    const Result result = Read(archive, step);
    EXPECT_EQ(result.problem, "");
    EXPECT_EQ(result.types, "EZ");
    EXPECT_EQ(result.bytes, 5U);
  }
}

TEST(Unpack, OneThatIsCutShortAnywhereHasAProblem) {
  const std::string archive = Made([](archive_entry*) {}, std::string(3000, 'x'));
  for (size_t at = 1; at < archive.size() - 1024; at += 97) EXPECT_NE(Read(std::string_view(archive).substr(0, at)).problem, "") << at;
}

TEST(Unpack, OnlyFilesDirectoriesAndLinks) {
  const struct {
    std::function<void(archive_entry*)> change;
    const char* problem;
  } cases[] = {
      {[](archive_entry* e) { archive_entry_set_hardlink(e, "/etc/passwd"), archive_entry_set_size(e, 0); }, "neither"},
      {[](archive_entry* e) { archive_entry_set_filetype(e, AE_IFCHR), archive_entry_set_rdev(e, 0x101), archive_entry_set_size(e, 0); },
       "neither"},
      {[](archive_entry* e) { archive_entry_set_filetype(e, AE_IFBLK), archive_entry_set_size(e, 0); }, "neither"},
      {[](archive_entry* e) { archive_entry_set_filetype(e, AE_IFIFO), archive_entry_set_size(e, 0); }, "neither"},
      {[](archive_entry* e) { archive_entry_set_uid(e, int64_t{1} << 40); }, "makes no sense"},
      {[](archive_entry* e) { archive_entry_set_pathname(e, (std::string(5000, 'a') + "/b").c_str()); }, "makes no sense"},
      {[](archive_entry* e) { archive_entry_sparse_add_entry(e, 0, 1), archive_entry_set_size(e, int64_t{1} << 40); }, ""},
  };
  for (const auto& each : cases) {
    const Result result = Read(Made(each.change));
    EXPECT_NE(result.problem, "");
    EXPECT_THAT(result.problem, HasSubstr(each.problem));
    EXPECT_EQ(result.types, "");
  }
}

// What is compressed, or another kind of archive, is none, however good it is.
TEST(Unpack, OtherFormats) {
  EXPECT_NE(Read("PK\x03\x04 a zip file").problem, "");
  EXPECT_NE(Read("\x1f\x8b\x08 gzip").problem, "");
  EXPECT_NE(Read(std::string(4096, 'x')).problem, "");
  std::string archive = Made([](archive_entry*) {});
  archive[200] = static_cast<char>(archive[200] ^ 1);  // the checksum of a header
  EXPECT_NE(Read(archive).problem, "");
}

TEST(Unpack, ASourceThatFailsAndATakerThatStops) {
  const std::string archive = Made([](archive_entry*) {});
  EXPECT_NE(Unpack([](std::string_view&) { return false; }, [](std::string_view) { return true; }), "");
  bool given = false;
  EXPECT_NE(Unpack(
                [&](std::string_view& piece) {
                  piece = given ? std::string_view() : archive;
                  return given = true;
                },
                [](std::string_view) { return false; }),
            "");
}

}  // namespace
}  // namespace litefleet::archive
