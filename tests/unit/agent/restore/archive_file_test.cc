// An archive of files that lies on the device, as the source of a restore.
#include "agent/restore/archive_file.h"

#include <sys/stat.h>

#include <random>

#include "common/format/extent.h"
#include "tests/unit/agent/restore/files_fixture.h"

namespace litefleet::restore {
namespace {

class ArchiveFileTest : public FilesRestoreTest {
 protected:
  std::string Place(const std::string& content) const {
    std::ofstream(path(), std::ios::binary | std::ios::trunc) << content;
    return path();
  }
  std::string path() const { return folder_ + "/carried.tar"; }
  std::string Reason(const std::string& path) const { return ReasonOf(ArchiveFile::Open(path, cancel_).status()); }
  // More than an extent, in segments of which some cross the end of an extent.
  static std::string Large() {
    std::mt19937 random(3);
    std::vector<Item> items;
    for (int i = 0; i < 20; ++i) {
      std::string content(100'000, ' ');
      for (char& c : content) c = static_cast<char>(random());
      items.push_back({"file" + std::to_string(10 + i), content});
    }
    return Archive(items);
  }
};

TEST_F(ArchiveFileTest, TheRootIsTheSnapshots) {
  const std::string archive = Large();
  MakeFilesSnapshot(archive);
  const auto file = ArchiveFile::Open(Place(archive), cancel_);
  ASSERT_TRUE(file.ok()) << file.status();
  const v1::RestoreOrder order = (*file)->Order();
  EXPECT_EQ(order.root_digest(), order_.root_digest());
  EXPECT_EQ(order.page_count(), order_.page_count());
  EXPECT_EQ(order.content(), v1::SNAPSHOT_CONTENT_FILES);
  // From any extent on the pages are those of the snapshot.
  const std::string pages = *io::ReadFile(fetcher_.path);
  const uint32_t extents = format::ExtentCount(order.page_size(), order.page_count());
  ASSERT_GT(extents, 4U);
  for (const uint32_t first : {0U, 1U, extents - 1}) {
    uint32_t next = first;
    std::string got;
    ASSERT_TRUE((*file)
                    ->Fetch("", order, first, cancel_,
                            [&](const FetchedExtent& extent) {
                              EXPECT_EQ(extent.extent, next++);
                              EXPECT_EQ(extent.name, format::NameChunkOf(512, extent.pages));
                              got += AsText(extent.pages);
                              return absl::OkStatus();
                            })
                    .ok());
    EXPECT_EQ(next, extents);
    EXPECT_TRUE(got == pages.substr(size_t{first} * format::kExtentBytes)) << first;
  }
}

TEST_F(ArchiveFileTest, IsRestoredAsASnapshotIs) {
  Begin();
  const auto file = ArchiveFile::Open(Place(Archive(Whole())), cancel_);
  ASSERT_TRUE(file.ok()) << file.status();
  order_ = (*file)->Order();
  order_.set_database("conf");
  RestorerOptions options;
  options.state_folder = folder_ + "/state";
  const auto restorer = LocalRestorer::Open(options, **file);
  ASSERT_TRUE(restorer.ok()) << restorer.status();
  const Outcome outcome = (*restorer)->Run(kOperation, order_, target_, cancel_, [](const v1::Progress&) {});
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Read("a.conf"), "new");
  EXPECT_EQ(Read("sub/-rf"), "option");
  EXPECT_EQ(Read("other"), "stays");
}

TEST_F(ArchiveFileTest, OneThatChangesMeanwhileIsRefused) {
  Begin();
  const auto file = ArchiveFile::Open(Place(Archive(Whole())), cancel_);
  ASSERT_TRUE(file.ok()) << file.status();
  order_ = (*file)->Order();
  order_.set_database("conf");
  std::string other = Archive(Whole());
  other[600] ^= 1;
  Place(other);
  RestorerOptions options;
  options.state_folder = folder_ + "/state";
  const auto restorer = LocalRestorer::Open(options, **file);
  const Outcome outcome = (*restorer)->Run(kOperation, order_, target_, cancel_, [](const v1::Progress&) {});
  EXPECT_EQ(ReasonOf(outcome.status), "ROOT_MISMATCH");
  ExpectUntouched();
}

TEST_F(ArchiveFileTest, WhatIsNoneIsToldSo) {
  EXPECT_EQ(Reason(folder_ + "/none"), "FILE_NOT_FOUND");
  EXPECT_EQ(Reason(folder_), "NOT_REGULAR_FILE");
  ASSERT_EQ(mkfifo((folder_ + "/pipe").c_str(), 0600), 0);
  EXPECT_EQ(Reason(folder_ + "/pipe"), "NOT_REGULAR_FILE") << "and is not waited for";
  for (const std::string& content :
       {std::string(), std::string("short"), std::string(5000, 'x'), std::string("\x1f\x8b", 2) + std::string(5000, 'x')})
    EXPECT_EQ(Reason(Place(content)), "NOT_AN_ARCHIVE");
  cancel_.Cancel();
  EXPECT_EQ(Reason(Place(Archive(Whole()))), "CANCELLED");
}

}  // namespace
}  // namespace litefleet::restore
