#include "tests/fuzz/targets.h"

#include <sqlite3.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "agent/capture/database_header.h"
#include "agent/capture/wal_frames.h"
#include "agent/capture/wal_index.h"
#include "agent/config/config.h"
#include "agent/restore/files_tree.h"
#include "agent/spool/spool_file.h"
#include "common/archive/unpack.h"
#include "common/config/toml_reader.h"
#include "common/crypto/token.h"
#include "common/crypto/x509.h"
#include "common/files/entry.h"
#include "common/files/rules.h"
#include "common/format/catalog_backup.h"
#include "common/format/chunk_codec.h"
#include "common/format/extent.h"
#include "common/format/pack_record.h"
#include "common/format/segment.h"
#include "common/format/store_names.h"
#include "common/rpc/address.h"
#include "common/rpc/identity_file.h"
#include "controller/config/config.h"
#include "controller/imports/foreign_file.h"
#include "controller/retention/policy.h"
#include "litefleet/storage/v1/records.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::fuzz {

void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "not as it must be: %s\n", what);
  std::abort();
}

namespace {

// A whole pack; where its header is sound the records are walked.
void Pack(ByteView input) {
  const auto read = [input](uint64_t offset, std::span<std::byte> out) -> absl::StatusOr<size_t> {
    if (offset >= input.size()) return size_t{0};
    const size_t n = std::min<size_t>(out.size(), input.size() - offset);
    std::memcpy(out.data(), input.data() + offset, n);
    return n;
  };
  auto scanner = format::PackScanner::Open(read, input.size());
  if (!scanner.ok()) return;
  uint64_t last = 0;
  for (;;) {
    const auto record = scanner->Next();
    Require(record.ok(), "only errors of the file are errors");
    if (!record->has_value()) break;
    Require((*record)->offset > last || last == 0, "records come in order");
    last = (*record)->offset;
    Require((*record)->payload.size() == (*record)->header.stored_bytes, "a payload is whole");
    Require(format::CheckPayload((*record)->header, (*record)->payload).ok(), "a payload is checked");
  }
  Require(scanner->end_of_records() <= input.size(), "nothing is read behind the end");
}

// The same with right checksums: what only a sound header reaches.
void PackRecord(ByteView input) {
  if (input.size() < format::kRecordHeaderBytes) return;
  const auto direct = format::DecodeRecordHeader(input, LoadLittleEndian<uint64_t>(input.data() + 8));
  if (!direct.ok()) return;
  std::array<std::byte, format::kRecordHeaderBytes> again{};
  format::EncodeRecordHeader(*direct, LoadLittleEndian<uint64_t>(input.data() + 8), again);
  Require(std::equal(again.begin(), again.end(), input.begin()), "a header that is accepted is written the same way");
}

void ChunkFrame(ByteView input) {
  if (input.size() < 8) return;
  static format::ChunkDecompressor decompressor;
  const uint32_t raw = LoadLittleEndian<uint32_t>(input.data()) % (format::kExtentBytes + 2);
  Bytes out;
  const auto codec = static_cast<format::Codec>(LoadLittleEndian<uint32_t>(input.data() + 4) % 4);
  if (decompressor.Decompress(codec, input.subspan(8), raw, out).ok()) Require(out.size() == raw, "exactly as many bytes as said");
}

// Pages of content that is not a database: what is accepted is as long as its headers say.
void Segments(ByteView input) {
  for (const format::Content content : {format::Content::kSql, format::Content::kFiles}) {
    format::SegmentReader reader(content);
    size_t text = 0;
    const absl::Status read = reader.Add(input, [&](ByteView piece) {
      text += piece.size();
      return absl::OkStatus();
    });
    Require(text <= input.size() && static_cast<int64_t>(text) == reader.text_bytes(), "no more text than pages");
    if (read.ok() && reader.Finish().ok()) Require(input.size() % format::kContentPageBytes == 0, "content is whole pages");
  }
}

template <class Message>
void Reparse(ByteView input) {
  Message message;
  if (!message.ParseFromArray(input.data(), static_cast<int>(input.size()))) return;
  Message again;
  Require(again.ParseFromString(message.SerializeAsString()), "what was read can be written and read");
}

void Records(ByteView input) {
  Reparse<storage::v1::ManifestPart>(input);
  Reparse<storage::v1::SnapshotRecord>(input);
  Reparse<storage::v1::DeviceRecord>(input);
  Reparse<storage::v1::DatabaseRecord>(input);
  Reparse<storage::v1::OperatorRecord>(input);
  Reparse<storage::v1::SnapshotMarksRecord>(input);
  Reparse<storage::v1::PolicyRecord>(input);
  Reparse<storage::v1::RetentionHoldRecord>(input);
  Reparse<storage::v1::CatalogGenerationRecord>(input);
  Reparse<storage::v1::GapRecord>(input);
  Reparse<storage::v1::PackFooter>(input);
}

void CatalogBackup(ByteView input) {
  const auto read = [input](uint64_t offset, std::span<std::byte> out) -> absl::StatusOr<size_t> {
    if (offset >= input.size()) return size_t{0};
    const size_t n = std::min<size_t>(out.size(), input.size() - offset);
    std::memcpy(out.data(), input.data() + offset, n);
    return n;
  };
  const auto header = format::ReadCatalogBackup(read, [](ByteView block) {
    Require(!block.empty() && block.size() <= format::kCatalogBlockBytes, "a block is neither empty nor larger than a block");
    return absl::OkStatus();
  });
  if (header.ok()) Require(format::ReadCatalogBackupHeader(read).ok(), "the header of what is whole can be read");
}

void Text(ByteView input) {
  const std::string_view text = AsText(input);
  if (const auto token = crypto::ParseToken(text); token.ok()) {
    const auto again = crypto::ParseToken(crypto::FormatToken(*token));
    Require(again.ok() && again->secret == token->secret, "a token is written as it was read");
  }
  if (const auto address = rpc::ParseAddress(text); address.ok())
    Require(rpc::ParseAddress(address->Text()).ok(), "an address reads its own text");
  rpc::ParseListenAddress(text).status().IgnoreError();
  config::ParseDuration(text).status().IgnoreError();
  config::ParseSize(text).status().IgnoreError();
  if (const auto name = format::ParsePackFileName(text); name.has_value())
    Require(format::MakePackFileName(name->id, name->sealed) == text, "a file's name is made as it was parsed");
  if (const auto name = format::ParseCatalogBackupName(text); name.has_value())
    Require(format::MakeCatalogBackupName(name->id, name->finished) == text, "so is that of a backup of the catalog");
  static_cast<void>(crypto::FromBase64Url(text));
  static_cast<void>(FromHex(text));
}

void Toml(ByteView input) {
  const std::string_view text = AsText(input);
  config::ParseConfig(text, "agent.toml").status().IgnoreError();
  config::ParseControllerConfig(text, "controller.toml").status().IgnoreError();
  retention::ParsePolicy(text, "policy.toml").status().IgnoreError();
}

void Keys(ByteView input) {
  const std::string_view text = AsText(input);
  crypto::KeyOfSigningRequest(text).status().IgnoreError();
  crypto::CertificateFromDer(text).status().IgnoreError();
  if (const auto chain = crypto::CertificatesFromPem(text); chain.ok()) {
    for (const auto& certificate : *chain) {
      static_cast<void>(crypto::UriOf(*certificate));
      static_cast<void>(crypto::NamesOf(*certificate));
      static_cast<void>(crypto::NotAfter(*certificate));
      static_cast<void>(crypto::SerialOf(*certificate));
    }
  }
  rpc::ParseIdentity(text).status().IgnoreError();
  crypto::KeyFromPem(text).status().IgnoreError();
}

// SQLite's first page, as a device's own file may hold it.
void DatabaseHeader(ByteView input) {
  static_cast<void>(capture::HasMagic(input));
  static_cast<void>(capture::ParseHeader(input));
  if (input.size() >= 512) static_cast<void>(capture::InspectFirstPage(input.first(512), 7));
}

void ForeignFile(ByteView input) {
  const auto file = imports::Recognise(input.first(std::min(input.size(), imports::kHeadBytes)), input.size());
  if (!file.ok() || file->sql) return;
  Require(format::IsPageSize(file->page_size), "the page size is one");
  Require(format::DatabaseBytes(file->page_size, file->page_count) <= input.size(), "the pages are in the file");
}

// A wal-index and a WAL made of the input: two regions of 32 KiB, then the file.
struct FakeShm {
  sqlite3_file base{};
  ByteView file;
  std::array<std::vector<std::byte>, 4> regions;
};

const sqlite3_io_methods& FakeMethods() {
  static const sqlite3_io_methods methods = [] {
    sqlite3_io_methods m{};
    m.iVersion = 2;
    m.xRead = [](sqlite3_file* f, void* out, int n, sqlite3_int64 at) -> int {
      const ByteView file = reinterpret_cast<FakeShm*>(f)->file;
      if (at < 0 || static_cast<uint64_t>(at) + static_cast<uint64_t>(n) > file.size()) return SQLITE_IOERR_SHORT_READ;
      std::memcpy(out, file.data() + at, static_cast<size_t>(n));
      return SQLITE_OK;
    };
    m.xFileSize = [](sqlite3_file* f, sqlite3_int64* size) -> int {
      *size = static_cast<sqlite3_int64>(reinterpret_cast<FakeShm*>(f)->file.size());
      return SQLITE_OK;
    };
    m.xShmMap = [](sqlite3_file* f, int number, int, int, void volatile** out) -> int {
      auto& regions = reinterpret_cast<FakeShm*>(f)->regions;
      *out = number >= 0 && static_cast<size_t>(number) < regions.size() ? regions[static_cast<size_t>(number)].data() : nullptr;
      return SQLITE_OK;
    };
    m.xShmBarrier = [](sqlite3_file*) {};
    m.xShmLock = [](sqlite3_file*, int, int, int) -> int { return SQLITE_OK; };
    return m;
  }();
  return methods;
}

void WalIndex(ByteView input) {
  constexpr size_t kRegion = 32768;
  FakeShm shm;
  shm.base.pMethods = &FakeMethods();
  for (size_t i = 0; i < shm.regions.size(); ++i) {
    shm.regions[i].resize(kRegion);
    const size_t from = std::min(input.size(), i * 512);
    const ByteView part = input.subspan(from, std::min(kRegion, input.size() - from));
    std::ranges::copy(part, shm.regions[i].begin());
  }
  // A header that checks: version, initialised, checksum, both copies equal. Else nothing behind it would ever be read.
  std::byte* const header = shm.regions[0].data();
  const uint32_t version = 3007000;
  std::memcpy(header, &version, sizeof version);
  header[12] = std::byte{1};
  uint32_t sums[2] = {0, 0};
  for (size_t i = 0; i < 40; i += 8) {
    uint32_t words[2];
    std::memcpy(words, header + i, sizeof words);
    sums[0] += words[0] + sums[1];
    sums[1] += words[1] + sums[0];
  }
  std::memcpy(header + 40, sums, sizeof sums);
  std::memcpy(header + 48, header, 48);
  shm.file = input;
  const capture::WalIndex index(&shm.base, &shm.base);
  const auto read = index.ReadState();
  Require(read.ok(), "a header that checks is read");
  const capture::WalState& state = *read;
  if (state.page_size < 512 || state.page_size > 65536) return;
  Bytes page(state.page_size);
  for (const uint32_t number : {1U, 2U, 77U, 4096U}) {
    const auto frame = index.FindFrame(number, state);
    if (frame.ok()) Require(*frame <= state.max_frame, "no frame behind the last committed one");
    index.ReadPage(number, state, page).status().IgnoreError();
  }
}

// A WAL file; what the wal-index would say of it is made from its header, and with right checksums of the first frame, so that both ways of
// beginning and the end are reached.
void WalFrames(ByteView input) {
  if (input.size() < capture::kWalHeaderBytes) return;
  FakeShm shm;
  shm.base.pMethods = &FakeMethods();
  shm.file = input;
  capture::WalPlace to;
  to.big_endian = LoadBigEndian<uint32_t>(input.data()) == 0x377f0683;
  to.page_size = LoadBigEndian<uint32_t>(&input[8]);
  std::copy_n(&input[16], to.salts.size(), to.salts.begin());
  to.page_count = 5;
  for (const uint32_t last : {1U, 3U, 50U}) {
    to.frame = last;
    for (const uint32_t first : {0U, 1U}) {
      capture::WalPlace from = to;
      from.frame = first;
      from.checksum = {1, 2};
      auto frames = capture::WalFrames::Open(&shm.base, from, to);
      if (!frames.ok()) continue;
      uint32_t before = first;
      while (!frames->done()) {
        const auto frame = frames->Next();
        if (!frame.ok()) break;
        Require(frame->number == before + 1 && frame->page != 0, "frames come in order, and name a page");
        before = frame->number;
        Bytes page(frames->page_size());
        Require(frames->ReadPage(frame->number, page).ok(), "a frame that was proven can be read");
      }
      Require(frames->bytes_read() <= input.size(), "nothing is read behind the end");
    }
  }
}

// A whole spooled snapshot; where its ends are sound the chunks are walked.
void Spooled(ByteView input) {
  const io::UniqueFd file(memfd_create("spooled", MFD_CLOEXEC));
  Require(file.valid() && io::PwriteAll(file.get(), input, 0, "memory").ok(), "there is memory");
  const auto reader = spool::SpoolFileReader::Open("/proc/self/fd/" + std::to_string(file.get()));
  if (!reader.ok()) return;
  Bytes pages;
  for (uint32_t last = 0;;) {
    const auto chunk = (*reader)->Next();
    if (!chunk.ok() || !chunk->has_value()) return;
    Require((*chunk)->runs.front().first_page > last, "pages ascend");
    last = (*chunk)->last_page();
    Require(last <= (*reader)->header().page_count(), "pages are of the database");
    if ((*reader)->Unpack(**chunk, pages, nullptr).ok()) Require(pages.size() == (*chunk)->raw_bytes, "a chunk is whole");
  }
}

// An archive of files, as the helper reads it, and what the agent takes of its frames.
void FilesArchive(ByteView input) {
  std::string_view left = AsText(input);
  files::FrameReader reader;
  bool nonsense = false, ended = false;
  uint64_t content = 0;
  const files::Rules rules{.include = {"**"}, .exclude = {"private"}, .max_file_bytes = 1 << 20, .max_bytes = 1 << 20, .max_files = 100};
  restore::ArchiveJudge judge(rules);
  absl::Status judged;
  std::string last;
  const auto read = [&](std::string_view& piece) {
    piece = left.substr(0, 1000);
    left.remove_prefix(piece.size());
    return true;
  };
  const std::string problem = archive::Unpack(read, [&](std::string_view frame) {
    reader.Add(frame);
    while (const auto next = reader.Take(nonsense)) {
      Require(!ended, "nothing follows the end");
      ended = next->type == 'Z';
      if (next->type == 'E') judged = judge.Check(next->entry);
      if (next->type == 'E' && judged.ok()) {
        Require(files::IsEntryName(next->entry.name) && (last.empty() || files::ComesBefore(last, next->entry.name)),
                "names are names, in order");
        last = next->entry.name;
      }
      if (next->type == 'D') content += next->data.size();
    }
    Require(!nonsense && reader.empty(), "our own frames are frames");
    // As the agent, which ends it there; a sparse file could go on for long.
    return judged.ok();
  });
  Require(ended == problem.empty(), "an archive is whole or has a problem");
  Require(content <= (1 << 20), "no more comes than was allowed");
}

// What comes from the helper, whoever has made it say so.
void FilesFrames(ByteView input) {
  files::FrameReader reader;
  bool nonsense = false;
  for (size_t at = 0; at < input.size() && !nonsense; at += 100) {
    reader.Add(AsText(input.subspan(at, std::min<size_t>(100, input.size() - at))));
    while (const auto frame = reader.Take(nonsense)) {
      Require(frame->data.size() <= 2 * files::kMostName + files::kMostFrameData, "frames are bounded");
      if (frame->type == 'E' && files::IsEntryName(frame->entry.name))
        static_cast<void>(files::StaysInside(frame->entry.name, frame->entry.link));
    }
  }
}

}  // namespace

const std::vector<Target>& Targets() {
  static const std::vector<Target> targets = [] {
    std::vector<Target> all = {
        {"pack", Pack},
        {"pack_record", PackRecord},
        {"chunk", ChunkFrame},
        {"records", Records},
        {"text", Text},
        {"toml", Toml},
        {"keys", Keys},
        {"database_header", DatabaseHeader},
        {"foreign_file", ForeignFile},
        {"wal_index", WalIndex},
        {"wal_frames", WalFrames},
        {"catalog_backup", CatalogBackup},
        {"spooled", Spooled},
        {"segments", Segments},
        {"files_archive", FilesArchive},
        {"files_frames", FilesFrames},
    };
    AddStoreTargets(all);
    AddLedgerTarget(all);
    return all;
  }();
  return targets;
}

}  // namespace litefleet::fuzz
