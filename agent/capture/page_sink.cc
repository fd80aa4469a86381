#include "agent/capture/page_sink.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "common/format/extent.h"
#include "fmt/format.h"

namespace litefleet::capture {
namespace {

constexpr int kCachePages = 16;
// What SQLite may keep back: its cache, and a few pages more.
constexpr uint32_t kKeptBack = kCachePages + 8;

sqlite3_vfs* SystemVfs() { return sqlite3_vfs_find(nullptr); }

}  // namespace

absl::StatusOr<std::unique_ptr<PageSink>> PageSink::Open() {
  std::unique_ptr<PageSink> sink(new PageSink());
  if (const int rc = sqlite3_vfs_register(&sink->vfs_, 0); rc != SQLITE_OK) return sqlite::ToStatus(rc, nullptr, "register the sink");
  LF_ASSIGN_OR_RETURN(sink->db_,
                      sqlite::Open("sink", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, sink->vfs_name_.c_str()));
  LF_RETURN_IF_ERROR(sqlite::Execute(sink->db_.get(), fmt::format("pragma journal_mode=off; pragma synchronous=off; pragma cache_size={};"
                                                                  "pragma temp_store=memory",
                                                                  kCachePages)));
  return sink;
}

PageSink::PageSink() {
  vfs_name_ = fmt::format("litefleet-sink-{}", static_cast<const void*>(this));
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(File);
  vfs_.mxPathname = 64;
  vfs_.zName = vfs_name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = [](sqlite3_vfs* vfs, const char*, sqlite3_file* file, int flags, int* out_flags) {
    auto* self = reinterpret_cast<File*>(file);
    self->base.pMethods = nullptr;
    if ((flags & SQLITE_OPEN_MAIN_DB) == 0) return SQLITE_CANTOPEN;  // no journal, no temporary file
    self->sink = static_cast<PageSink*>(vfs->pAppData);
    self->base.pMethods = Methods();
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  };
  vfs_.xDelete = [](sqlite3_vfs*, const char*, int) { return SQLITE_OK; };
  vfs_.xAccess = [](sqlite3_vfs*, const char*, int, int* result) {
    *result = 0;
    return SQLITE_OK;
  };
  vfs_.xFullPathname = [](sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
  };
  vfs_.xRandomness = [](sqlite3_vfs*, int size, char* out) { return SystemVfs()->xRandomness(SystemVfs(), size, out); };
  vfs_.xSleep = [](sqlite3_vfs*, int micros) { return SystemVfs()->xSleep(SystemVfs(), micros); };
  vfs_.xCurrentTime = [](sqlite3_vfs*, double* now) { return SystemVfs()->xCurrentTime(SystemVfs(), now); };
  vfs_.xGetLastError = [](sqlite3_vfs*, int, char*) { return 0; };
}

PageSink::~PageSink() {
  db_.reset();
  sqlite3_vfs_unregister(&vfs_);
}

const sqlite3_io_methods* PageSink::Methods() {
  static constexpr sqlite3_io_methods kMethods = [] {
    sqlite3_io_methods methods{};
    methods.iVersion = 1;
    methods.xClose = [](sqlite3_file*) { return SQLITE_OK; };
    methods.xRead = [](sqlite3_file* file, void* out, int size, sqlite3_int64 offset) {
      return reinterpret_cast<File*>(file)->sink->Read(static_cast<std::byte*>(out), static_cast<size_t>(size),
                                                       static_cast<uint64_t>(offset));
    };
    methods.xWrite = [](sqlite3_file* file, const void* data, int size, sqlite3_int64 offset) {
      return reinterpret_cast<File*>(file)->sink->Write(static_cast<const std::byte*>(data), static_cast<size_t>(size),
                                                        static_cast<uint64_t>(offset));
    };
    methods.xTruncate = [](sqlite3_file* file, sqlite3_int64 size) {
      reinterpret_cast<File*>(file)->sink->end_ = static_cast<uint64_t>(size);
      return SQLITE_OK;
    };
    methods.xSync = [](sqlite3_file*, int) { return SQLITE_OK; };
    methods.xFileSize = [](sqlite3_file* file, sqlite3_int64* size) {
      *size = static_cast<sqlite3_int64>(reinterpret_cast<File*>(file)->sink->end_);
      return SQLITE_OK;
    };
    methods.xLock = [](sqlite3_file*, int) { return SQLITE_OK; };
    methods.xUnlock = [](sqlite3_file*, int) { return SQLITE_OK; };
    methods.xCheckReservedLock = [](sqlite3_file*, int* result) {
      *result = 0;
      return SQLITE_OK;
    };
    methods.xFileControl = [](sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; };
    methods.xSectorSize = [](sqlite3_file*) { return 512; };
    // Or SQLite would read and write the neighbours of small pages.
    methods.xDeviceCharacteristics = [](sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; };
    return methods;
  }();
  return &kMethods;
}

void PageSink::Start(uint32_t page_size, uint32_t page_count, ByteView first_page) {
  page_size_ = page_size;
  page_count_ = page_count;
  extent_count_ = format::ExtentCount(page_size, page_count);
  const uint32_t per_extent = format::PagesPerExtent(page_size);
  step_ = std::max(1u, per_extent / 2);
  window_ = std::min(extent_count_, (kKeptBack + step_) / per_extent + 3);
  pages_.resize(static_cast<size_t>(window_) * format::kExtentBytes);
  filled_.assign(window_, 0);
  present_.assign(static_cast<size_t>(window_) * per_extent, false);
  for (uint32_t extent = 0; extent < window_; ++extent) Clear(extent);
  std::copy(first_page.begin(), first_page.end(), pages_.begin());
  present_[0] = true;
  ++filled_[0];
}

uint32_t PageSink::PagesIn(uint32_t extent) const { return format::PagesIn(page_size_, page_count_, extent); }

void PageSink::Clear(uint32_t extent) {
  const uint32_t per_extent = format::PagesPerExtent(page_size_);
  const size_t slot = Slot(extent);
  filled_[slot] = 0;
  std::fill_n(present_.begin() + static_cast<std::ptrdiff_t>(slot * per_extent), per_extent, false);
  const uint32_t lock_byte = format::LockBytePage(page_size_);
  if (lock_byte > page_count_ || (lock_byte - 1) / per_extent != extent) return;
  const size_t at = slot * per_extent + (lock_byte - 1) % per_extent;
  std::fill_n(pages_.begin() + static_cast<std::ptrdiff_t>(at * page_size_), page_size_, std::byte{0});
  present_[at] = true;
  ++filled_[slot];
}

ByteView PageSink::Front() const {
  return ByteView(pages_).subspan(Slot(front_) * format::kExtentBytes, static_cast<size_t>(PagesIn(front_)) * page_size_);
}

void PageSink::Pop() {
  ++front_;
  if (const uint32_t last = front_ + window_ - 1; last < extent_count_) Clear(last);
}

int PageSink::Refuse(std::string why) {
  if (failure_.empty()) failure_ = std::move(why);
  return SQLITE_IOERR_WRITE;
}

int PageSink::Write(const std::byte* data, size_t size, uint64_t offset) {
  if (page_size_ == 0 || size != page_size_ || offset % page_size_ != 0) {
    return Refuse(fmt::format("a write of {} bytes at {} is not a page of {}", size, offset, page_size_));
  }
  end_ = std::max(end_, offset + size);
  const uint64_t index = offset / page_size_;
  if (index == 0) {
    written_first_page_.assign(data, data + size);
    return SQLITE_OK;
  }
  const uint32_t per_extent = format::PagesPerExtent(page_size_);
  if (index + 1 == format::LockBytePage(page_size_)) return SQLITE_OK;
  const uint64_t extent = index / per_extent;
  if (index >= page_count_ || extent < front_ || extent >= uint64_t{front_} + window_) {
    return Refuse(fmt::format("page {} of {} came while extent {} was next", index + 1, page_count_, front_));
  }
  const size_t slot = Slot(static_cast<uint32_t>(extent));
  const size_t at = slot * per_extent + index % per_extent;
  std::memcpy(&pages_[at * page_size_], data, size);
  if (!present_[at]) {
    present_[at] = true;
    ++filled_[slot];
  }
  return SQLITE_OK;
}

int PageSink::Read(std::byte* out, size_t size, uint64_t offset) {
  std::fill_n(out, size, std::byte{0});
  if (offset >= end_) return SQLITE_IOERR_SHORT_READ;
  if (offset + size > written_first_page_.size()) return SQLITE_IOERR_READ;
  std::copy_n(written_first_page_.begin() + static_cast<std::ptrdiff_t>(offset), size, out);
  return SQLITE_OK;
}

}  // namespace litefleet::capture
