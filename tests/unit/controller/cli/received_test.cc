// What a download does with what it receives.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "controller/cli/download.h"
#include "controller/cli/page_writer.h"

namespace litefleet::cli {
namespace {

class Received : public testing::Test {
 protected:
  Received() {
    char name[] = "/tmp/litefleet-cli-XXXXXX";
    directory_ = mkdtemp(name);
  }
  ~Received() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  size_t Files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(directory_), std::filesystem::directory_iterator()));
  }
  std::string directory_;
};

std::string RootOf(uint32_t page_size, const std::string& data) {
  const auto pages = static_cast<uint32_t>(data.size() / page_size);
  format::RootBuilder root(page_size, pages);
  for (size_t at = 0; at < data.size(); at += format::kExtentBytes)
    root.Add(format::NameChunkOf(page_size, AsBytes(data).subspan(at, std::min<size_t>(format::kExtentBytes, data.size() - at))));
  return std::string(root.Finish().AsString());
}

TEST_F(Received, TheRootIsComparedWhateverThePieces) {
  std::string data(700'416, 'x');  // two extents and a part of one
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 2654435761U >> 13);
  const auto pages = static_cast<uint32_t>(data.size() / 4096);
  const std::string root = RootOf(4096, data);
  for (const size_t piece : {data.size(), size_t{262'144}, size_t{524'288}, size_t{4096}, size_t{1000}}) {
    auto verifier = RootVerifier::Make(4096, pages, root);
    ASSERT_TRUE(verifier.ok());
    for (size_t at = 0; at < data.size(); at += piece)
      ASSERT_TRUE(verifier->Add(AsBytes(data).subspan(at, std::min(piece, data.size() - at))).ok());
    EXPECT_TRUE(verifier->Finish().ok()) << piece;
  }
  auto flipped = RootVerifier::Make(4096, pages, root).value();
  data[data.size() - 1] ^= 1;
  ASSERT_TRUE(flipped.Add(AsBytes(data)).ok());
  EXPECT_EQ(ReasonOf(flipped.Finish()), "ROOT_MISMATCH");
  auto cut = RootVerifier::Make(4096, pages, root).value();
  ASSERT_TRUE(cut.Add(AsBytes(data).first(data.size() - 4096)).ok());
  EXPECT_EQ(ReasonOf(cut.Finish()), "TRUNCATED");
  auto longer = RootVerifier::Make(4096, pages, root).value();
  EXPECT_EQ(ReasonOf(longer.Add(AsBytes(data + "x"))), "TOO_MUCH_DATA");
}

TEST_F(Received, AnEmptySnapshotHasARootToo) {
  auto verifier = RootVerifier::Make(4096, 0, RootOf(4096, ""));
  ASSERT_TRUE(verifier.ok());
  EXPECT_TRUE(verifier->Finish().ok());
  EXPECT_EQ(ReasonOf(RootVerifier::Make(1000, 1, RootOf(4096, "")).status()), "GEOMETRY_INVALID");
  EXPECT_EQ(ReasonOf(RootVerifier::Make(4096, 1, "short").status()), "GEOMETRY_INVALID");
}

TEST_F(Received, AFileGetsItsNameAtTheEndOnly) {
  {
    auto file = NewFile::Make(Path("a.db"), false);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(AsBytes("hello")).ok());
    EXPECT_FALSE(io::Exists(Path("a.db")));
    ASSERT_TRUE(file->Finish().ok());
  }
  EXPECT_EQ(io::ReadFile(Path("a.db")).value(), "hello");
  struct stat info = {};
  ASSERT_EQ(stat(Path("a.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
  EXPECT_EQ(Files(), 1U) << "nothing else is left";
}

TEST_F(Received, AFileThatIsNotFinishedLeavesNothing) {
  {
    auto file = NewFile::Make(Path("a.db"), false);
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE(file->Write(AsBytes("hello")).ok());
  }
  EXPECT_EQ(Files(), 0U);
}

TEST_F(Received, AJournalOrWalThatStandsThereIsNotAppliedToIt) {
  for (const std::string suffix : {"-wal", "-journal", "-shm"}) {
    ASSERT_TRUE(io::WriteFileAtomic(Path("a.db" + suffix), "of another database").ok());
    for (const bool replace : {false, true}) {
      EXPECT_EQ(ReasonOf(NewFile::Make(Path("a.db"), replace).status()), "LEFT_OVER_FILES") << suffix;
    }
    ASSERT_TRUE(io::RemoveFile(Path("a.db" + suffix)).ok());
  }
  auto file = NewFile::Make(Path("a.db"), false);
  ASSERT_TRUE(file.ok());
  ASSERT_TRUE(io::WriteFileAtomic(Path("a.db-wal"), "of another database").ok());
  EXPECT_EQ(ReasonOf(file->Finish()), "LEFT_OVER_FILES");
  EXPECT_FALSE(io::Exists(Path("a.db")));
}

TEST_F(Received, AnExistingFileStaysUnlessForced) {
  ASSERT_TRUE(io::WriteFileAtomic(Path("a.db"), "mine").ok());
  EXPECT_EQ(ReasonOf(NewFile::Make(Path("a.db"), false).status()), "FILE_EXISTS");
  EXPECT_EQ(ReasonOf(NewFile::Make(directory_, true).status()), "IS_A_DIRECTORY");
  {
    // It comes into being while the download runs.
    auto file = NewFile::Make(Path("b.db"), false).value();
    ASSERT_TRUE(io::WriteFileAtomic(Path("b.db"), "theirs").ok());
    EXPECT_EQ(ReasonOf(file.Finish()), "FILE_EXISTS");
  }
  EXPECT_EQ(io::ReadFile(Path("b.db")).value(), "theirs");
  auto forced = NewFile::Make(Path("a.db"), true).value();
  ASSERT_TRUE(forced.Write(AsBytes("new")).ok());
  ASSERT_TRUE(forced.Finish().ok());
  EXPECT_EQ(io::ReadFile(Path("a.db")).value(), "new");
  EXPECT_EQ(Files(), 2U);
}

std::vector<v1::DownloadPages> MessagesOf(const std::string& data) {
  std::vector<v1::DownloadPages> messages;
  format::ChunkCompressor compressor(1);
  for (size_t at = 0; at < data.size(); at += format::kExtentBytes) {
    const std::string piece = data.substr(at, format::kExtentBytes);
    v1::DownloadPages& message = messages.emplace_back();
    message.set_raw_bytes(static_cast<uint32_t>(piece.size()));
    message.set_codec(static_cast<v1::Codec>(compressor.Compress(AsBytes(piece), *message.mutable_data()).value()));
  }
  return messages;
}

std::string SomePages(uint32_t pages) {
  std::string data(size_t{pages} * 4096, 'x');
  for (size_t i = 0; i < data.size(); i += 3) data[i] = static_cast<char>(i * 2654435761U >> 13);
  return data;
}

TEST(PageWriter, WritesInOrderAndComparesTheRoot) {
  const std::string data = SomePages(2000);
  std::string written;
  PageWriter writer(RootVerifier::Make(4096, 2000, RootOf(4096, data)).value(), [&](ByteView bytes) {
    written += AsText(bytes);
    return absl::OkStatus();
  });
  for (auto& message : MessagesOf(data)) ASSERT_TRUE(writer.Add(message).ok());
  EXPECT_TRUE(writer.Finish().ok());
  EXPECT_EQ(writer.bytes(), static_cast<int64_t>(data.size()));
  EXPECT_EQ(written, data);
}

TEST(PageWriter, AnotherRootIsFoundAtTheEnd) {
  const std::string data = SomePages(100);
  PageWriter writer(RootVerifier::Make(4096, 100, RootOf(4096, std::string(409'600, 'y'))).value(),
                    [](ByteView) { return absl::OkStatus(); });
  for (auto& message : MessagesOf(data)) ASSERT_TRUE(writer.Add(message).ok());
  EXPECT_EQ(ReasonOf(writer.Finish()), "ROOT_MISMATCH");
}

TEST(PageWriter, TheFirstErrorEndsIt) {
  const std::string data = SomePages(64 * 40);
  PageWriter writer(RootVerifier::Make(4096, 64 * 40, RootOf(4096, data)).value(), [wrote = 0](ByteView) mutable {
    return ++wrote == 3 ? Error(absl::StatusCode::kResourceExhausted, "DISK_FULL", "no space") : absl::OkStatus();
  });
  // A caller who goes on is told, since no more than eight messages wait.
  absl::Status status = absl::OkStatus();
  for (auto& message : MessagesOf(data)) {
    if (status.ok()) status = writer.Add(message);
  }
  EXPECT_EQ(ReasonOf(status), "DISK_FULL");
  EXPECT_EQ(ReasonOf(writer.Finish()), "DISK_FULL");
  EXPECT_EQ(writer.bytes(), 2 * 262'144);
}

TEST(PageWriter, DamagedBytesAreAnError) {
  const std::string data = SomePages(64);
  std::vector<v1::DownloadPages> messages = MessagesOf(data);
  messages[0].set_raw_bytes(1 << 30);
  PageWriter writer(RootVerifier::Make(4096, 64, RootOf(4096, data)).value(), [](ByteView) { return absl::OkStatus(); });
  ASSERT_TRUE(writer.Add(messages[0]).ok());
  EXPECT_EQ(ReasonOf(writer.Finish()), "CHUNK_DAMAGED");
}

TEST(PageWriter, GivenUpWithoutFinish) {
  const std::string data = SomePages(64 * 8);
  PageWriter writer(RootVerifier::Make(4096, 64 * 8, RootOf(4096, data)).value(), [](ByteView) { return absl::OkStatus(); });
  for (auto& message : MessagesOf(data)) ASSERT_TRUE(writer.Add(message).ok());
}

}  // namespace
}  // namespace litefleet::cli
