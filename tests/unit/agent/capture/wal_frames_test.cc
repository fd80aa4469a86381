#include "agent/capture/wal_frames.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "agent/capture/pinned_read.h"
#include "agent/capture/user_database.h"
#include "agent/capture/wal_end.h"
#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/unit/agent/capture/capture_fixture.h"

namespace litefleet::capture {
namespace {

class WalFramesTest : public CaptureTest {
 protected:
  // A database with `commits` transactions in its WAL, and another process that keeps it there.
  std::unique_ptr<Child> Make(const std::string& path, uint32_t page_size, int commits) {
    Sql(path, fmt::format("pragma page_size={}; pragma journal_mode=wal; create table t(id integer primary key, v)", page_size));
    return std::make_unique<Child>([=](const auto& ready, const auto& asked_to_stop) {
      Connection connection(path);
      connection.Run("pragma wal_autocheckpoint=0");
      for (int i = 0; i < commits; ++i) connection.Run(fmt::format("insert into t values(null, randomblob({}))", page_size * 2));
      ready();
      while (!asked_to_stop()) usleep(1000);
      return 0;
    });
  }
  void Pin(const std::string& path) {
    auto database = UserDatabase::Open({path});
    ASSERT_TRUE(database.ok()) << database.status();
    database_ = *std::move(database);
    auto read = PinnedRead::Begin(*database_);
    ASSERT_TRUE(read.ok()) << read.status();
    read_ = *std::move(read);
    place_ = PlaceOf(read_->wal_state());
  }
  void Unpin() {
    read_.reset();
    database_.reset();
  }

  std::unique_ptr<UserDatabase> database_;
  std::unique_ptr<PinnedRead> read_;
  WalPlace place_;
};

TEST_F(WalFramesTest, AllFramesOfEveryPageSizeAreProvenUpToTheHeadersCommit) {
  for (uint32_t page_size = 512; page_size <= 65536; page_size *= 2) {
    SCOPED_TRACE(page_size);
    const std::string path = Path(fmt::format("{}.db", page_size));
    const auto holder = Make(path, page_size, 6);
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    WalPlace before;
    before.salts = place_.salts;
    auto frames = WalFrames::Open(database_->wal_file(), before, place_);
    ASSERT_TRUE(frames.ok()) << frames.status();
    int commits = 0;
    while (!frames->done()) {
      const auto frame = frames->Next();
      ASSERT_TRUE(frame.ok()) << frame.status();
      if (frame->commit_pages != 0) ++commits;
      Bytes page(page_size), through(page_size);
      ASSERT_TRUE(frames->ReadPage(frame->number, page).ok());
      const auto last = read_->wal_index()->FindFrame(frame->page, read_->wal_state());
      ASSERT_TRUE(last.ok());
      ASSERT_GE(*last, frame->number);
      if (*last != frame->number) continue;
      const auto found = read_->wal_index()->ReadPage(frame->page, read_->wal_state(), through);
      ASSERT_TRUE(found.ok() && *found);
      EXPECT_EQ(page, through);
    }
    EXPECT_EQ(commits, 6);
    EXPECT_EQ(frames->bytes_read() + kWalHeaderBytes, WalBytes(page_size, place_.frame));
    Unpin();
  }
}

TEST_F(WalFramesTest, GoesOnFromAnyCommitThatTheIndexNamed) {
  const std::string path = Path("x.db");
  Sql(path, "pragma journal_mode=wal; create table t(id integer primary key, v)");
  Connection writer(path);
  writer.Run("pragma wal_autocheckpoint=0");
  std::vector<WalPlace> places;
  for (int i = 0; i < 5; ++i) {
    writer.Run("insert into t values(null, randomblob(9000))");
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    places.push_back(place_);
    read_.reset();
  }
  ASSERT_NO_FATAL_FAILURE(Pin(path));
  for (const WalPlace& from : places) {
    auto frames = WalFrames::Open(database_->wal_file(), from, place_);
    ASSERT_TRUE(frames.ok()) << frames.status();
    uint32_t number = from.frame;
    while (!frames->done()) {
      const auto frame = frames->Next();
      ASSERT_TRUE(frame.ok()) << frame.status();
      EXPECT_EQ(frame->number, ++number);
    }
    EXPECT_EQ(number, place_.frame);
    WalPlace wrong = from;
    wrong.checksum[1] ^= 1;
    auto refused = WalFrames::Open(database_->wal_file(), wrong, place_);
    ASSERT_TRUE(refused.ok());
    if (!refused->done()) {
      EXPECT_EQ(ReasonOf(refused->Next().status()), "FRAME_DAMAGED");
    }
  }
  // A commit that the header does not name.
  WalPlace other = place_;
  other.page_count += 1;
  auto frames = WalFrames::Open(database_->wal_file(), places[3], other);
  ASSERT_TRUE(frames.ok());
  absl::Status last;
  while (!frames->done() && last.ok()) last = frames->Next().status();
  EXPECT_EQ(ReasonOf(last), "FRAME_DAMAGED");
  Unpin();
}

TEST_F(WalFramesTest, ABitThatFlipsInTheCommittedPartIsFound) {
  const std::string path = Path("x.db");
  const auto holder = Make(path, 1024, 4);
  ASSERT_NO_FATAL_FAILURE(Pin(path));
  WalPlace before;
  before.salts = place_.salts;
  const auto bytes = WalBytes(1024, place_.frame);
  // By another process: a descriptor that is closed here would drop the locks of this one.
  const auto flip = [&](uint64_t at) {
    Child other([&](const auto&, const auto&) {
      const int fd = open((path + "-wal").c_str(), O_RDWR | O_CLOEXEC);
      char byte = 0;
      if (pread(fd, &byte, 1, static_cast<off_t>(at)) != 1) return 1;
      byte = static_cast<char>(byte ^ 4);
      return pwrite(fd, &byte, 1, static_cast<off_t>(at)) == 1 ? 0 : 1;
    });
    return other.Stop();
  };
  // The file's header and the first frame's byte by byte, then here and there.
  for (uint64_t at = 0; at < bytes; at += at < kWalHeaderBytes + kWalFrameHeaderBytes ? 1 : 397) {
    ASSERT_EQ(flip(at), 0);
    auto frames = WalFrames::Open(database_->wal_file(), before, place_);
    absl::Status last = frames.status();
    while (last.ok() && !frames->done()) last = frames->Next().status();
    EXPECT_EQ(ReasonOf(last), "FRAME_DAMAGED") << "byte " << at;
    ASSERT_EQ(flip(at), 0);
  }
  Unpin();
}

TEST_F(WalFramesTest, TheEndOfAGenerationIsFoundAfterTheWalWasStartedOver) {
  for (const uint32_t page_size : {512u, 4096u}) {
    SCOPED_TRACE(page_size);
    const std::string path = Path(fmt::format("end{}.db", page_size));
    Sql(path, fmt::format("pragma page_size={}; pragma journal_mode=wal; create table t(id integer primary key, v)", page_size));
    Connection writer(path);
    writer.Run("pragma wal_autocheckpoint=0");
    const auto insert = [&](int commits) {
      for (int i = 0; i < commits; ++i) writer.Run(fmt::format("insert into t values(null, randomblob({}))", page_size * 2));
    };
    // One generation to leave something of its own behind the ends of those that follow.
    insert(20);
    writer.Run("pragma wal_checkpoint(passive)");
    insert(4);
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    const WalPlace from = place_;
    Unpin();
    insert(3);
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    const WalPlace wanted = place_;
    Unpin();
    writer.Run("pragma wal_checkpoint(passive)");
    insert(1);
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    ASSERT_NE(place_.salts, from.salts) << "it was started over";
    const auto end = EndOfGeneration(database_->wal_file(), from);
    ASSERT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(*end, wanted);
    const auto none = EndOfGeneration(database_->wal_file(), wanted);
    ASSERT_TRUE(none.ok()) << none.status();
    EXPECT_EQ(*none, wanted);
    Unpin();
    // A bit of the end is damaged: nobody can say that it is not the end any more.
    const auto flip = [&] {
      const uint64_t at = WalBytes(page_size, wanted.frame) - 100;
      return Shell(
          fmt::format("python3 -c \"f=open('{}-wal','r+b');f.seek({});b=f.read(1);f.seek({});f.write(bytes([b[0]^1]))\"", path, at, at));
    };
    ASSERT_EQ(flip(), 0);
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    EXPECT_EQ(ReasonOf(EndOfGeneration(database_->wal_file(), from).status()), "FRAME_DAMAGED") << "a bit of it";
    Unpin();
    ASSERT_EQ(flip(), 0);
    // The next generation has come to the place that is known, and what is behind it is still there.
    writer.Run("begin immediate");
    const std::string kept = path + "-kept";
    ASSERT_EQ(Shell(fmt::format("cp '{}-wal' '{}'", path, kept)), 0);
    const uint64_t known = WalBytes(page_size, from.frame) - page_size - kWalFrameHeaderBytes;
    ASSERT_EQ(Shell(fmt::format("python3 -c \"f=open('{}-wal','r+b');f.seek({});f.write(bytes(24))\"", path, known)), 0);
    ASSERT_NO_FATAL_FAILURE(Pin(path));
    EXPECT_EQ(ReasonOf(EndOfGeneration(database_->wal_file(), from).status()), "FRAME_DAMAGED") << "overwritten";
    EXPECT_EQ(ReasonOf(EndOfGeneration(database_->wal_file(), WalPlace{.salts = from.salts, .page_size = page_size}).status()),
              "FRAME_DAMAGED");
    Unpin();
    ASSERT_EQ(Shell(fmt::format("cat '{}' > '{}-wal'", kept, path)), 0);
    writer.Run("rollback");
    // A limit of the journal's size cuts the file off, also just between two commits.
    for (const uint64_t bytes :
         {WalBytes(page_size, wanted.frame), WalBytes(page_size, wanted.frame) - 100, WalBytes(page_size, from.frame) + 100}) {
      std::filesystem::resize_file(path + "-wal", bytes);
      ASSERT_NO_FATAL_FAILURE(Pin(path));
      EXPECT_EQ(ReasonOf(EndOfGeneration(database_->wal_file(), from).status()), "FRAME_DAMAGED") << bytes;
      Unpin();
    }
  }
}

TEST_F(WalFramesTest, ChecksumsOfTheOtherByteOrder) {
  const std::string path = Path("x.db");
  Sql(path, "pragma page_size=512; pragma journal_mode=wal; create table t(v)");
  {
    const auto holder = Make(Path("y.db"), 512, 3);
    // The WAL of a machine of the other byte order, as SQLite takes it over: header and frames with checksums made anew.
    ASSERT_EQ(Shell(fmt::format("cp {0}/y.db {0}/z.db && cp {0}/y.db-wal {0}/z.db-wal", directory())), 0);
  }
  ASSERT_EQ(Shell(fmt::format(R"(python3 - <<'EOF_PY'
import struct
name = "{}/z.db-wal"
w = bytearray(open(name, "rb").read())
def add(data, s):
    a, b = s
    for i in range(0, len(data), 8):
        x, y = struct.unpack_from(">II", data, i)
        a = (a + x + b) & 0xffffffff
        b = (b + y + a) & 0xffffffff
    return a, b
struct.pack_into(">I", w, 0, 0x377f0683)
s = add(w[:24], (0, 0))
struct.pack_into(">II", w, 24, *s)
size = struct.unpack_from(">I", w, 8)[0]
at = 32
while at + 24 + size <= len(w):
    s = add(w[at + 24:at + 24 + size], add(w[at:at + 8], s))
    struct.pack_into(">II", w, at + 16, *s)
    at += 24 + size
open(name, "wb").write(w)
EOF_PY
)",
                              directory())),
            0);
  ASSERT_NO_FATAL_FAILURE(Pin(Path("z.db")));
  EXPECT_TRUE(place_.big_endian);
  WalPlace before;
  before.salts = place_.salts;
  auto frames = WalFrames::Open(database_->wal_file(), before, place_);
  ASSERT_TRUE(frames.ok()) << frames.status();
  int commits = 0;
  while (!frames->done()) {
    const auto frame = frames->Next();
    ASSERT_TRUE(frame.ok()) << frame.status();
    if (frame->commit_pages != 0) ++commits;
  }
  EXPECT_EQ(commits, 3);
  Unpin();
}

}  // namespace
}  // namespace litefleet::capture
