#include "controller/rpc/download_reactor.h"

#include <memory>
#include <optional>
#include <utility>

#include "common/base/bytes.h"
#include "common/base/status.h"
#include "common/rpc/server_stream.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr size_t kMessagesAhead = 8;

class Download final : public OutboundStream<grpc::ServerWriteReactor<v1::DownloadSnapshotResponse>, v1::DownloadSnapshotResponse> {
 public:
  Download(grpc::CallbackServerContext* context, absl::Status caller, const AdminHandlers& handlers, Executor& executor,
           std::string snapshot)
      : OutboundStream(context, StreamLimits{.max_messages = kMessagesAhead}),
        caller_(std::move(caller)),
        handlers_(handlers),
        executor_(executor),
        reference_(std::move(snapshot)),
        local_(context->peer().rfind("unix:", 0) == 0) {}

  void Begin() {
    if (!caller_.ok()) return End(caller_);
    Continue();
  }

 private:
  // At most one Produce is queued or running: it is posted here at the beginning, and then only by OnRoom, which follows a refused push.
  void Continue() {
    if (!executor_.TryPost([self = shared_from_this(), this] { Produce(); })) {
      End(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too many downloads waiting",
                "try again in a moment"));
    }
  }
  void OnRoom() override { Continue(); }

  // The executor's. After a refused push nothing of this may be touched: the next run may have begun.
  void Produce() {
    for (;;) {
      if (ended()) return reader_.reset();
      if (!next_.has_value()) {
        absl::StatusOr<std::optional<v1::DownloadSnapshotResponse>> step = Step();
        if (!step.ok()) return Stop(step.status());
        if (!step->has_value()) return Stop(absl::OkStatus());
        next_ = **std::move(step);
      }
      const auto keep = shared_from_this();
      if (!TryPush(*next_)) return;
      next_.reset();
    }
  }

  // Lets go of the snapshot, then ends.
  void Stop(const absl::Status& status) {
    reader_.reset();
    End(status);
  }

  // The next message; nothing at the end, when the root digest has been compared.
  absl::StatusOr<std::optional<v1::DownloadSnapshotResponse>> Step() {
    v1::DownloadSnapshotResponse message;
    if (reader_ == nullptr) {
      const AdminDependencies& parts = handlers_.dependencies();
      LF_ASSIGN_OR_RETURN(const v1::Snapshot snapshot, parts.snapshots->Resolve(reference_));
      LF_ASSIGN_OR_RETURN(reader_, parts.readers->Open(SnapshotId(snapshot.id()), {}));
      *message.mutable_header()->mutable_snapshot() = snapshot;
      return message;
    }
    LF_ASSIGN_OR_RETURN(std::optional<restore::StoredChunk> chunk, reader_->Next());
    const restore::SnapshotGeometry& geometry = reader_->geometry();
    if (!chunk.has_value()) {
      if (next_page_ != uint64_t{geometry.page_count} + 1) return Hole("the end", next_page_);
      return std::optional<v1::DownloadSnapshotResponse>();
    }
    if (local_ && chunk->data.empty()) {
      // Nothing is gained by compressing what goes from memory to memory.
      chunk->data.assign(AsText(chunk->raw));
      chunk->codec = format::Codec::kRaw;
    }
    LF_RETURN_IF_ERROR(restore::Pack(*chunk, compressor_));
    if (chunk->first_page != next_page_) return Hole(fmt::format("page {}", chunk->first_page), next_page_);
    next_page_ += chunk->page_count;
    // As stored: its checksum was compared here, its content is by the client, with the root digest.
    v1::DownloadPages& pages = *message.mutable_pages();
    pages.set_codec(static_cast<v1::Codec>(chunk->codec));
    pages.set_raw_bytes(chunk->raw_bytes);
    pages.set_data(std::move(chunk->data));
    return message;
  }

  static absl::Status Hole(std::string_view got, uint64_t expected) {
    return Error(absl::StatusCode::kDataLoss, "MANIFEST_DAMAGED",
                 fmt::format("the snapshot's manifest has {} where page {} is expected", got, expected));
  }

  const absl::Status caller_;
  const AdminHandlers& handlers_;
  Executor& executor_;
  const std::string reference_;
  const bool local_;  // within this machine
  // The running Produce's.
  std::unique_ptr<restore::SnapshotReader> reader_;
  std::optional<v1::DownloadSnapshotResponse> next_;
  uint64_t next_page_ = 1;
  format::ChunkCompressor compressor_{1};
};

}  // namespace

grpc::ServerWriteReactor<v1::DownloadSnapshotResponse>* LaunchDownload(grpc::CallbackServerContext* context, const absl::Status& caller,
                                                                       const AdminHandlers& handlers, Executor& executor,
                                                                       const std::string& snapshot) {
  return LaunchStream<Download>(context, caller, handlers, executor, snapshot);
}

}  // namespace litefleet::rpc
