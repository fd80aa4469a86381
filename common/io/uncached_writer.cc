#include "common/io/uncached_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "common/base/status.h"
#include "common/io/file.h"
#include "fmt/format.h"

namespace litefleet::io {
namespace {

constexpr size_t kBlockBytes = 1 << 20;
constexpr size_t kAlignment = 4096;  // of memory, offset and length; what a file system wants beyond that it refuses

bool SetUncached(int fd, bool on) {
  const int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

}  // namespace

UncachedWriter::UncachedWriter(int fd, std::string path)
    : fd_(fd), path_(std::move(path)), uncached_(SetUncached(fd, true)), thread_([this] { Run(); }) {}

UncachedWriter::~UncachedWriter() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(mu_);
    stop_ = true;
    given_ = std::min(given_, done_ + 1);
  }
  changed_.SignalAll();
  thread_.join();
}

absl::Status UncachedWriter::Write(ByteView data) {
  while (!data.empty()) {
    Block* block = nullptr;
    {
      MutexLock lock(mu_);
      while (status_.ok() && given_ - done_ == kBlocks) changed_.Wait(mu_);
      LF_RETURN_IF_ERROR(status_);
      block = &blocks_[given_ % kBlocks];
    }
    if (block->data == nullptr) {
      block->data.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, kBlockBytes)));
      if (block->data == nullptr) return ErrnoError(ENOMEM, "write " + path_);
    }
    const size_t take = std::min(data.size(), kBlockBytes - filled_);
    std::memcpy(block->data.get() + filled_, data.data(), take);
    filled_ += take;
    data = data.subspan(take);
    if (filled_ < kBlockBytes) continue;
    MutexLock lock(mu_);
    HandOver();
  }
  return absl::OkStatus();
}

absl::Status UncachedWriter::Finish() {
  {
    MutexLock lock(mu_);
    if (filled_ > 0) HandOver();
    while (status_.ok() && done_ < given_) changed_.Wait(mu_);
    stop_ = true;
  }
  changed_.SignalAll();
  thread_.join();
  // Whoever gets the file is not to find it in a mode that he did not ask for.
  if (uncached_) SetUncached(fd_, false);
  LF_RETURN_IF_ERROR(writeback_.status(path_));
  MutexLock lock(mu_);
  return status_;
}

void UncachedWriter::HandOver() {
  blocks_[given_ % kBlocks].size = std::exchange(filled_, 0);
  ++given_;
  changed_.SignalAll();
}

void UncachedWriter::Run() {
  for (;;) {
    ByteView data;
    {
      MutexLock lock(mu_);
      while (done_ == given_ && !stop_) changed_.Wait(mu_);
      if (done_ == given_ || !status_.ok()) return;
      const Block& block = blocks_[done_ % kBlocks];
      data = ByteView(block.data.get(), block.size);
    }
    absl::Status status = WriteBlock(data);
    MutexLock lock(mu_);
    ++done_;
    status_ = std::move(status);
    changed_.SignalAll();
    if (!status_.ok()) return;
  }
}

absl::Status UncachedWriter::WriteBlock(ByteView data) {
  while (!data.empty()) {
    const size_t whole = data.size() / kAlignment * kAlignment;
    // Only the last block has a rest that is no multiple.
    if (uncached_ && whole == 0) uncached_ = !SetUncached(fd_, false);
    const size_t size = uncached_ ? whole : data.size();
    const ssize_t n = pwrite(fd_, data.data(), size, static_cast<off_t>(written_));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && uncached_) {
      uncached_ = !SetUncached(fd_, false);
      if (!uncached_) continue;
      errno = EINVAL;
    }
    if (n < 0) return ErrnoError(errno, fmt::format("write {}", path_));
    data = data.subspan(static_cast<size_t>(n));
    written_ += static_cast<uint64_t>(n);
    if (!uncached_) writeback_.Wrote(fd_, written_);
  }
  return absl::OkStatus();
}

}  // namespace litefleet::io
