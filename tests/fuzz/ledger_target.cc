// The page ledger: base and log, as a disk, an older or a later agent, or somebody else may have left them.
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/ledger/ledger.h"
#include "agent/ledger/ledger_format.h"
#include "agent/ledger/page_index.h"
#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/format/crc32c.h"
#include "tests/fuzz/targets.h"

namespace litefleet::fuzz {
namespace {

namespace fs = std::filesystem;
using ledger::kBaseHeaderBytes;
using ledger::kLogHeaderBytes;
using ledger::kRecordHeadBytes;
using ledger::Ledger;

// Where the files lie; in memory where that can be, since they are synced.
class Folder {
 public:
  Folder() {
    std::string name =
        fs::is_directory("/dev/shm") ? "/dev/shm/litefleet-fuzz-XXXXXX" : fs::temp_directory_path() / "litefleet-fuzz-XXXXXX";
    Require(mkdtemp(name.data()) != nullptr, "there is a directory");
    path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string base() const { return path_ / "main.ledger"; }
  std::string log() const { return base() + "-log"; }

 private:
  fs::path path_;
};

void Write(const std::string& path, ByteView bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  Require(file.good(), "there is room");
}

struct Files {
  Bytes base, log;
};

// Checksums, identity and generation as they would be if somebody had meant it: else next to nothing behind the headers would be read.
void Mend(Files& files, const std::array<std::byte, 32>& identity) {
  Bytes& base = files.base;
  Bytes& log = files.log;
  if (base.size() >= kBaseHeaderBytes) {
    std::copy(identity.begin(), identity.end(), base.begin() + 40);
    const uint32_t pages = LoadLittleEndian<uint32_t>(&base[36]);
    if (base.size() == ledger::BaseBytes(pages)) {
      for (uint32_t block = 0; block < ledger::BlockCount(pages); ++block) {
        const uint32_t count = std::min(ledger::kBlockPages, pages - block * ledger::kBlockPages);
        const size_t at = kBaseHeaderBytes + size_t{block} * ledger::kBlockPages * format::kDigestBytes;
        const ByteView digests = ByteView(base).subspan(at, size_t{count} * format::kDigestBytes);
        StoreLittleEndian<uint32_t>(format::Crc32c(digests), &base[ledger::ChecksumsAt(pages) + size_t{block} * 4]);
      }
    }
    StoreLittleEndian<uint32_t>(format::Crc32c(ByteView(base).first(252)), &base[252]);
    if (log.size() >= kLogHeaderBytes) std::copy_n(base.begin() + 24, 8, log.begin() + 16);
  }
  if (log.size() < kLogHeaderBytes) return;
  StoreLittleEndian<uint32_t>(format::Crc32c(ByteView(log).first(28)), &log[28]);
  for (size_t at = kLogHeaderBytes; log.size() - at >= kRecordHeadBytes;) {
    const uint32_t size = LoadLittleEndian<uint32_t>(&log[at + 4]);
    if (size > log.size() - at - kRecordHeadBytes) break;
    const Bytes record = ledger::EncodeRecord(LoadLittleEndian<uint32_t>(&log[at]), ByteView(log).subspan(at + kRecordHeadBytes, size));
    std::ranges::copy(record, log.begin() + static_cast<std::ptrdiff_t>(at));
    at += record.size();
  }
}

bool IsDamage(const absl::Status& status) { return status.ok() || ReasonOf(status) == "LEDGER_DAMAGED"; }

std::vector<format::PageDigest> Digests(uint32_t count) {
  std::vector<format::PageDigest> digests(count);
  for (uint32_t i = 0; i < count; ++i) std::memcpy(digests[i].bytes.data(), &i, sizeof i);
  return digests;
}

// Every page, and those that an index of it finds.
void ReadAll(Ledger& opened) {
  const uint32_t pages = opened.state()->page_count;
  // More groups are read in the same way, and take their time.
  constexpr uint32_t kMost = 4 * Ledger::kGroupPages;
  std::vector<format::PageDigest> digests;
  for (uint32_t first = 1; first <= std::min(pages, kMost); first += Ledger::kGroupPages) {
    digests.resize(std::min(Ledger::kGroupPages, pages - first + 1));
    Require(IsDamage(opened.Read(first, digests)), "a page is read, or the ledger is damaged");
  }
  if (pages == 0) return;
  Require(IsDamage(opened.ReadAside(pages).status()), "the last page is read, or the ledger is damaged");
  if (pages > kMost) return;
  const auto index = ledger::PageIndex::Build(opened, 16);
  Require(IsDamage(index.status()), "an index is made, or the ledger is damaged");
}

// Opens what is there and reads it; then a backup of `kind` goes on from it, after which the ledger stands for that one.
void OpenAndGoOn(const Folder& folder, const Files& files, Ledger::Kind kind) {
  static const std::string kSnapshot = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
  const auto identity = ledger::LedgerIdentity("device", "main", "/srv/main.db");
  Write(folder.base(), files.base);
  Write(folder.log(), files.log);
  const std::vector<format::PageDigest> pages = Digests(70);
  {
    const auto opened = Ledger::Open(folder.base(), identity);
    Require(opened.ok(), "whatever stands in the files, the ledger can be opened");
    Ledger& it = **opened;
    Require(it.state().has_value() == it.problem().empty(), "it has a state, or a problem");
    if (it.state().has_value()) ReadAll(it);
    if (!it.state().has_value()) kind = Ledger::kAll;
    const uint32_t page_size = kind == Ledger::kAll ? 4096 : it.state()->page_size;
    Require(it.Begin(page_size, static_cast<uint32_t>(pages.size()), kind).ok(), "a backup begins");
    Require(it.Put(1, pages).ok(), "it gathers");
    // Folding reads what was there before; where that is damaged it is left.
    Require(it.Commit(kSnapshot, format::RootDigest{}).ok(), "it is acknowledged");
  }
  const auto again = Ledger::Open(folder.base(), identity);
  Require(again.ok() && (*again)->state().has_value() && (*again)->state()->snapshot_id == kSnapshot, "it stands for the backup");
  std::vector<format::PageDigest> read(pages.size());
  const absl::Status status = (*again)->Read(1, read);
  Require(kind == Ledger::kAll ? status.ok() : IsDamage(status), "it can be read");
  if (status.ok()) Require(read == pages, "it has the pages of the backup");
}

// Size of the base (4), base, log.
void LedgerFiles(ByteView input) {
  if (input.size() < 4) return;
  static const Folder folder;
  const size_t size = std::min<size_t>(LoadLittleEndian<uint32_t>(input.data()), input.size() - 4);
  const ByteView base = input.subspan(4, size);
  const ByteView log = input.subspan(4 + size);
  Files files{Bytes(base.begin(), base.end()), Bytes(log.begin(), log.end())};
  OpenAndGoOn(folder, files, Ledger::kAll);
  Mend(files, ledger::LedgerIdentity("device", "main", "/srv/main.db"));
  OpenAndGoOn(folder, files, Ledger::kAll);
  OpenAndGoOn(folder, files, Ledger::kChanges);
}

}  // namespace

void AddLedgerTarget(std::vector<Target>& targets) { targets.push_back({"ledger", LedgerFiles, 24}); }

}  // namespace litefleet::fuzz
