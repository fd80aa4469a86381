#include "controller/rpc/fetch_reactor.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "common/rpc/server_stream.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

constexpr size_t kMessagesAhead = 4;
constexpr size_t kMessageBytes = 512 << 10;  // a message is sent when it has this much
constexpr size_t kNameBytes = 64 << 10;
constexpr int kMaxRuns = 100'000;
constexpr size_t kMaxHaveBytes = 1 << 20;
constexpr int kDifferenceLevel = 3;  // of pages that differ: they are few, and worth more time

class Fetch final : public OutboundStream<grpc::ServerWriteReactor<v1::FetchResponse>, v1::FetchResponse> {
 public:
  Fetch(grpc::CallbackServerContext* context, const FetchDeps& deps, const Caller& caller, const v1::FetchRequest& request)
      : OutboundStream(context, StreamLimits{.max_messages = kMessagesAhead, .max_bytes = 4 << 20}),
        deps_(deps),
        caller_(caller),
        request_(request) {
    KeepUntilDone(caller.live_call);
  }

  void Begin() { Continue(); }

 private:
  // At most one Produce is queued or running: it is posted at the beginning, and then only by what follows its end: OnRoom after a refused
  // push, or the turn of its device after one that was charged.
  void Continue() {
    if (deps_.executor->TryPost([self = shared_from_this(), this] { Produce(); })) return;
    End(Error(absl::StatusCode::kResourceExhausted, "OVERLOADED", "the controller has too many fetches waiting", "try again later"));
  }
  void OnRoom() override { Continue(); }
  void LetGo() {
    reader_.reset();
    names_.reset();
  }

  // After a refused push nothing of this may be touched: the next run may have begun.
  void Produce() {
    for (;;) {
      if (ended()) return LetGo();
      if (!next_.has_value()) {
        absl::StatusOr<std::optional<v1::FetchResponse>> step = Step();
        if (!step.ok() || !step->has_value()) {
          LetGo();
          return End(step.status());
        }
        next_ = **std::move(step);
      }
      const auto keep = shared_from_this();
      const bool limited = deps_.rate != nullptr && deps_.rate->limited();
      const int64_t bytes = limited ? static_cast<int64_t>(next_->ByteSizeLong()) : 0;
      if (!TryPush(*next_)) return;
      next_.reset();
      if (!limited) continue;
      return deps_.rate->Charge(caller_.device.value(), bytes, [weak = weak_from_this()] {
        if (const auto self = std::static_pointer_cast<Fetch>(weak.lock()); self != nullptr) self->Continue();
      });
    }
  }

  absl::StatusOr<std::optional<v1::FetchResponse>> Step() {
    v1::FetchResponse message;
    if (reader_ == nullptr && names_ == nullptr) {
      LF_RETURN_IF_ERROR(Open());
      const restore::SnapshotGeometry& geometry = reader_ != nullptr ? reader_->geometry() : names_->geometry();
      v1::FetchHeader& header = *message.mutable_header();
      header.set_page_size(geometry.page_size);
      header.set_page_count(geometry.page_count);
      header.set_root_digest(std::string(geometry.root.AsString()));
      header.set_root_version(format::kRootVersion);
      return message;
    }
    if (names_ != nullptr) return Names();
    size_t bytes = 0;
    while (bytes < kMessageBytes) {
      LF_ASSIGN_OR_RETURN(std::optional<restore::StoredChunk> chunk, reader_->Next());
      if (!chunk.has_value()) break;
      LF_RETURN_IF_ERROR(restore::Pack(*chunk, compressor_));
      bytes += chunk->data.size();
      v1::FetchedChunk& out = *message.mutable_chunks()->add_chunks();
      out.mutable_chunk()->set_name(std::string(chunk->name.AsString()));
      out.mutable_chunk()->set_codec(static_cast<v1::Codec>(chunk->codec));
      out.mutable_chunk()->set_raw_bytes(chunk->raw_bytes);
      out.mutable_chunk()->set_data(std::move(chunk->data));
      if (chunk->runs.empty()) chunk->runs.push_back({.first_page = chunk->first_page, .page_count = chunk->page_count});
      for (const restore::WantedRun& pages : chunk->runs) {
        v1::PageRun& run = *out.add_runs();
        run.set_first_page(pages.first_page);
        run.set_page_count(pages.page_count);
      }
    }
    if (message.chunks().chunks_size() == 0) return std::optional<v1::FetchResponse>();
    return message;
  }

  absl::StatusOr<std::optional<v1::FetchResponse>> Names() {
    v1::FetchResponse message;
    v1::FetchNames& out = *message.mutable_names();
    out.set_first_extent(named_);
    while (out.names().size() < kNameBytes) {
      LF_ASSIGN_OR_RETURN(const std::vector<format::ChunkName> names, names_->Next());
      if (names.empty()) break;
      for (const format::ChunkName& name : names) out.mutable_names()->append(name.AsString());
      named_ += static_cast<uint32_t>(names.size());
    }
    if (out.names().empty()) return std::optional<v1::FetchResponse>();
    return message;
  }

  absl::Status Open() {
    const SnapshotId snapshot(request_.snapshot_id());
    LF_ASSIGN_OR_RETURN(const bool may, deps_.fleet->MayFetch(caller_.device, OperationId(request_.operation_id()), snapshot));
    if (!may) {
      return Error(absl::StatusCode::kNotFound, "ORDER_NOT_FOUND",
                   fmt::format("no restore order {} of this device names snapshot {}", request_.operation_id(), request_.snapshot_id()));
    }
    if (request_.runs_size() > kMaxRuns) {
      return Error(absl::StatusCode::kInvalidArgument, "RUNS_INVALID",
                   fmt::format("{} runs, at most {} are allowed", request_.runs_size(), kMaxRuns));
    }
    if (request_.have().size() > kMaxHaveBytes || (request_.names_only() && request_.runs_size() > 0)) {
      return Error(absl::StatusCode::kInvalidArgument, "RUNS_INVALID", "too many digests for one call, or pages and names at once");
    }
    if (request_.names_only()) {
      LF_ASSIGN_OR_RETURN(names_, deps_.readers->OpenNames(snapshot));
      return absl::OkStatus();
    }
    std::vector<restore::WantedRun> wanted;
    wanted.reserve(static_cast<size_t>(request_.runs_size()));
    for (const v1::PageRun& run : request_.runs()) wanted.push_back({.first_page = run.first_page(), .page_count = run.page_count()});
    if (request_.have().empty()) {
      LF_ASSIGN_OR_RETURN(reader_, deps_.readers->Open(snapshot, wanted));
      return absl::OkStatus();
    }
    compressor_ = format::ChunkCompressor(kDifferenceLevel);
    LF_ASSIGN_OR_RETURN(reader_, deps_.readers->OpenDifferent(snapshot, wanted, request_.have()));
    return absl::OkStatus();
  }

  const FetchDeps deps_;
  const Caller caller_;
  const v1::FetchRequest request_;
  // The running Produce's.
  std::unique_ptr<restore::SnapshotReader> reader_;
  std::unique_ptr<restore::NameReader> names_;
  uint32_t named_ = 0;
  std::optional<v1::FetchResponse> next_;
  format::ChunkCompressor compressor_{1};
};

}  // namespace

grpc::ServerWriteReactor<v1::FetchResponse>* NewFetchReactor(grpc::CallbackServerContext* context, const FetchDeps& deps,
                                                             const Caller& caller, const v1::FetchRequest& request) {
  return LaunchStream<Fetch>(context, deps, caller, request);
}

}  // namespace litefleet::rpc
