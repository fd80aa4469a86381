#include "controller/imports/local_upload.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "common/base/bytes.h"
#include "common/base/clock.h"
#include "common/base/mutex.h"
#include "common/base/status.h"
#include "common/format/chunk_codec.h"
#include "common/format/digest.h"
#include "common/format/extent.h"
#include "common/io/file.h"
#include "controller/ingest/ingest.h"
#include "controller/ingest/upload_session.h"

namespace litefleet::imports {
namespace {

using Code = absl::StatusCode;

constexpr int kLevel = 3;
constexpr std::chrono::minutes kPatience{2};

// What the session answers. Offers and the commit are answered while they are handled, marks whenever they are made.
class Answers final : public ingest::UploadSink {
 public:
  explicit Answers(std::string provenance) : provenance_(std::move(provenance)) {}
  std::string provenance() const override { return provenance_; }

  void Send(const v1::UploadResponse& response) override {
    MutexLock lock(mu_);
    if (response.has_accepted()) window_ = response.accepted().window_bytes();
    if (response.has_missing()) wanted_ = response.missing().positions_size() > 0;
    if (response.has_durable()) durable_ = response.durable().durable_bytes();
    if (response.has_committed()) snapshot_ = SnapshotId(response.committed().snapshot_id());
    changed_.SignalAll();
  }
  void Close(const absl::Status& status) override {
    MutexLock lock(mu_);
    if (!status.ok() && status_.ok()) status_ = status;
    changed_.SignalAll();
  }

  bool wanted() const {
    MutexLock lock(mu_);
    return wanted_;
  }
  absl::StatusOr<SnapshotId> snapshot() const {
    MutexLock lock(mu_);
    LF_RETURN_IF_ERROR(status_);
    if (snapshot_.has_value()) return *snapshot_;
    return Error(Code::kInternal, "STORE_FAILED", "the commit was not answered");
  }
  // Until `bytes` more may be sent.
  absl::Status WaitForRoom(int64_t sent, int64_t bytes, const std::function<bool()>& cancelled) {
    const RealClock clock;
    const SteadyTime deadline = clock.Steady() + kPatience;
    MutexLock lock(mu_);
    while (status_.ok() && sent > durable_ && sent + bytes - durable_ > window_) {
      if (clock.Steady() >= deadline)
        return Error(Code::kDeadlineExceeded, "STORE_STALLED", "the store has made nothing durable for two minutes");
      if (cancelled()) return Error(Code::kCancelled, "CANCELLED", "the import was cancelled");
      changed_.WaitUntil(mu_, clock.Steady() + std::chrono::milliseconds(200));
    }
    return status_;
  }

 private:
  const std::string provenance_;

  mutable Mutex mu_;
  CondVar changed_;
  int64_t window_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t durable_ ABSL_GUARDED_BY(mu_) = 0;
  bool wanted_ ABSL_GUARDED_BY(mu_) = false;
  std::optional<SnapshotId> snapshot_ ABSL_GUARDED_BY(mu_);
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

absl::StatusOr<SnapshotId> StoreDatabase(ingest::Ingest& ingest, const LocalUpload& upload, const std::function<bool()>& cancelled,
                                         const std::function<void(int64_t)>& progress) {
  const uint32_t page_size = upload.begin.page_size();
  const auto answers = std::make_shared<Answers>(upload.provenance);
  LF_ASSIGN_OR_RETURN(const std::shared_ptr<ingest::UploadSession> session, ingest.NewUpload(upload.device, answers));
  const absl::Cleanup end = [&session] { session->End(); };
  v1::UploadRequest request;
  *request.mutable_begin() = upload.begin;
  request.mutable_begin()->set_page_count(upload.page_count);
  request.mutable_begin()->set_content(v1::SNAPSHOT_CONTENT_DATABASE);
  LF_RETURN_IF_ERROR(session->Handle(request));

  format::RootBuilder root(page_size, upload.page_count);
  format::ChunkCompressor compressor(kLevel);
  Bytes pages;
  int64_t sent = 0;
  uint32_t pages_sent = 0;
  const uint32_t extents = format::ExtentCount(page_size, upload.page_count);
  for (uint32_t extent = 0; extent < extents; ++extent) {
    if (cancelled()) return Error(Code::kCancelled, "CANCELLED", "the import was cancelled");
    const uint32_t first = format::FirstPageOf(page_size, extent);
    const uint32_t count = format::PagesIn(page_size, upload.page_count, extent);
    pages.resize(size_t{count} * page_size);
    LF_RETURN_IF_ERROR(io::PreadAll(upload.fd, pages, uint64_t{extent} * format::kExtentBytes, upload.name));
    if (const uint32_t lock = format::LockBytePage(page_size); lock >= first && lock < first + count)
      std::fill_n(pages.begin() + static_cast<ptrdiff_t>(size_t{lock - first} * page_size), page_size, std::byte{0});
    const format::ChunkName name = format::NameChunkOf(page_size, pages);
    root.Add(name);
    request.Clear();
    request.mutable_offer()->set_offer_id(uint64_t{extent} + 1);
    v1::ChunkOffer& offer = *request.mutable_offer()->add_chunks();
    offer.set_name(std::string(name.AsString()));
    offer.add_runs()->set_first_page(first);
    offer.mutable_runs(0)->set_page_count(count);
    LF_RETURN_IF_ERROR(session->Handle(request));
    if (answers->wanted()) {
      request.Clear();
      v1::ChunkData& chunk = *request.mutable_chunks()->add_chunks();
      LF_ASSIGN_OR_RETURN(const format::Codec codec, compressor.Compress(pages, *chunk.mutable_data()));
      chunk.set_name(std::string(name.AsString()));
      chunk.set_codec(static_cast<v1::Codec>(codec));
      chunk.set_raw_bytes(static_cast<uint32_t>(pages.size()));
      const auto bytes = static_cast<int64_t>(chunk.data().size());
      LF_RETURN_IF_ERROR(answers->WaitForRoom(sent, bytes, cancelled));
      LF_RETURN_IF_ERROR(session->Handle(request));
      sent += bytes;
      pages_sent += count;
    }
    progress(static_cast<int64_t>(format::DatabaseBytes(page_size, first - 1 + count)));
  }
  request.Clear();
  v1::UploadCommit& commit = *request.mutable_commit();
  commit = upload.commit;
  commit.set_page_size(page_size);
  commit.set_page_count(upload.page_count);
  commit.set_root_digest(std::string(root.Finish().AsString()));
  commit.set_root_version(format::kRootVersion);
  commit.set_pages_sent(pages_sent);
  commit.set_read_bytes(static_cast<int64_t>(format::DatabaseBytes(page_size, upload.page_count)));
  // It is new to the controller, whatever its own time.
  commit.mutable_age();
  LF_RETURN_IF_ERROR(session->Handle(request));
  return answers->snapshot();
}

}  // namespace litefleet::imports
