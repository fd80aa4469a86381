// A place for plain files, and archives of them.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_RESTORE_FILES_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_RESTORE_FILES_FIXTURE_H_

#include <archive_entry.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "agent/restore/files_session.h"
#include "common/format/segment.h"
#include "tests/fakes/tar_text.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {

namespace fs = std::filesystem;

struct Item {
  std::string name;
  std::string content;
  mode_t mode = 0640;
  mode_t type = AE_IFREG;
  std::string link = {};
  int64_t size = -1;  // that the archive claims
  uid_t owner = geteuid();
};

inline Item Folder(const std::string& name, mode_t mode = 0750) { return {name, "", mode, AE_IFDIR, {}, -1}; }
inline Item Link(const std::string& name, const std::string& link) { return {name, "", 0777, AE_IFLNK, link, -1}; }

class FilesRestoreTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    data_ = fs::canonical(data_).string();
    target_.database = "conf";
    target_.path = data_;
    target_.files.emplace();
    target_.files->include = {"**"};
    target_.files->exclude = {"private/**"};
  }
  static std::string Archive(const std::vector<Item>& items) {
    fakes::TarText tar;
    for (const Item& item : items) {
      archive_entry* const entry = archive_entry_new();
      archive_entry_set_pathname(entry, item.name.c_str());
      archive_entry_set_mode(entry, item.type | item.mode);
      archive_entry_set_uid(entry, item.owner);
      archive_entry_set_gid(entry, getegid());
      archive_entry_set_mtime(entry, 1'600'000'000, 123'456'789);
      archive_entry_set_size(entry, item.size >= 0 ? item.size : static_cast<int64_t>(item.content.size()));
      if (!item.link.empty() && item.type == AE_IFLNK) archive_entry_set_symlink(entry, item.link.c_str());
      if (!item.link.empty() && item.type == AE_IFREG) archive_entry_set_hardlink(entry, item.link.c_str());
      tar.Add(entry, item.content);
    }
    return tar.Finish();
  }
  void MakeFilesSnapshot(const std::string& archive) {
    format::SegmentWriter writer(format::Content::kFiles);
    ASSERT_TRUE(writer.Add(AsBytes(archive)).ok());
    ASSERT_TRUE(writer.Finish().ok());
    std::ofstream file(fetcher_.path, std::ios::binary | std::ios::trunc);
    while (std::optional<format::SegmentWriter::Segment> segment = writer.Take()) file << AsText(segment->pages);
    file.close();
    order_.Clear();
    order_.set_database("conf");
    order_.set_snapshot_id("01JD00000000000000000000S1");
    order_.set_content(v1::SNAPSHOT_CONTENT_FILES);
    order_.set_page_size(512);
    order_.set_page_count(writer.page_count());
    order_.set_root_version(format::kRootVersion);
    order_.set_root_digest(std::string(writer.Root().AsString()));
    order_.set_new_timeline(2);
    order_.set_check_state(v1::CHECK_STATE_CANNOT_TELL);
  }
  void Write(const std::string& name, const std::string& content) const { std::ofstream(data_ + "/" + name, std::ios::binary) << content; }
  std::string Read(const std::string& name) const { return io::ReadFile(data_ + "/" + name).value_or("nothing"); }
  // Runs in a process that has lost some of its rights before. The reason of its end.
  std::string InAnother(const std::function<void()>& lose) {
    const std::string said = folder_ + "/said";
    const pid_t pid = fork();
    if (pid == 0) {
      lose();
      const Outcome outcome = Run();
      std::ofstream(said) << ReasonOf(outcome.status);
      _exit(0);
    }
    waitpid(pid, nullptr, 0);
    return io::ReadFile(said).value_or("it did not end");
  }
  // Fresh, with a file that is replaced and one that is not in the snapshot.
  void Begin() {
    fs::remove_all(folder_ + "/state");
    fs::remove_all(data_);
    fs::create_directory(data_);
    Write("a.conf", "old");
    Write("other", "stays");
  }
  Outcome RunArchive(const std::vector<Item>& items) {
    Begin();
    MakeFilesSnapshot(Archive(items));
    return Run();
  }
  void ExpectUntouched() const {
    EXPECT_EQ(Read("a.conf"), "old");
    EXPECT_EQ(Read("other"), "stays");
    EXPECT_EQ(std::distance(fs::directory_iterator(data_), fs::directory_iterator()), 2);
  }
  static std::vector<Item> Whole() {
    return {{"a.conf", "new"},
            Folder("sub"),
            {"sub/-rf", "option", 0600},
            {"sub/large", std::string(2 << 20, 'l')},
            Link("sub/link", "../a.conf")};
  }
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_TESTS_UNIT_AGENT_RESTORE_FILES_FIXTURE_H_
