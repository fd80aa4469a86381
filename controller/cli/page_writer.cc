#include "controller/cli/page_writer.h"

#include <utility>

#include "common/base/status.h"

namespace litefleet::cli {
namespace {

constexpr size_t kAhead = 8;

}  // namespace

PageWriter::PageWriter(RootVerifier verifier, Write write)
    : verifier_(std::move(verifier)), write_(std::move(write)), thread_([this] { Run(); }) {}

PageWriter::~PageWriter() {
  if (!thread_.joinable()) return;
  {
    MutexLock lock(mu_);
    complete_ = true;
    waiting_.clear();
  }
  changed_.SignalAll();
  thread_.join();
}

absl::Status PageWriter::Add(v1::DownloadPages pages) {
  MutexLock lock(mu_);
  while (status_.ok() && waiting_.size() >= kAhead) changed_.Wait(mu_);
  LF_RETURN_IF_ERROR(status_);
  waiting_.push_back(std::move(pages));
  changed_.SignalAll();
  return absl::OkStatus();
}

absl::Status PageWriter::Finish() {
  {
    MutexLock lock(mu_);
    complete_ = true;
  }
  changed_.SignalAll();
  thread_.join();
  MutexLock lock(mu_);
  LF_RETURN_IF_ERROR(status_);
  return verifier_.Finish();
}

void PageWriter::Run() {
  for (;;) {
    v1::DownloadPages pages;
    {
      MutexLock lock(mu_);
      while (waiting_.empty() && !complete_) changed_.Wait(mu_);
      if (waiting_.empty()) return;
      pages = std::move(waiting_.front());
      waiting_.pop_front();
    }
    changed_.SignalAll();
    absl::Status status = Handle(pages);
    if (status.ok()) continue;
    {
      MutexLock lock(mu_);
      status_ = std::move(status);
      waiting_.clear();
    }
    changed_.SignalAll();
    return;
  }
}

absl::Status PageWriter::Handle(const v1::DownloadPages& pages) {
  LF_RETURN_IF_ERROR(decompressor_.Decompress(static_cast<format::Codec>(pages.codec()), AsBytes(pages.data()), pages.raw_bytes(), raw_));
  LF_RETURN_IF_ERROR(verifier_.Add(raw_));
  LF_RETURN_IF_ERROR(write_(raw_));
  bytes_ += static_cast<int64_t>(raw_.size());
  return absl::OkStatus();
}

}  // namespace litefleet::cli
