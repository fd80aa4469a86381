// Upload streams over gRPC. Thread safety: any thread. Source: pitfalls 3 to 5 of style.md.
#ifndef LITEFLEET_AGENT_UPLOAD_UPLOAD_REACTOR_H_
#define LITEFLEET_AGENT_UPLOAD_UPLOAD_REACTOR_H_

#include <memory>

#include "agent/upload/transport.h"

namespace litefleet::rpc {
class ChannelHub;
}

namespace litefleet::upload {

// `hub` outlives the transport and its streams.
std::unique_ptr<UploadTransport> MakeGrpcTransport(rpc::ChannelHub& hub);

}  // namespace litefleet::upload

#endif  // LITEFLEET_AGENT_UPLOAD_UPLOAD_REACTOR_H_
