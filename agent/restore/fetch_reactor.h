// Fetch streams over gRPC. Thread safety: any thread. Source: pitfalls 1 and 4 of style.md.
#ifndef LITEFLEET_AGENT_RESTORE_FETCH_REACTOR_H_
#define LITEFLEET_AGENT_RESTORE_FETCH_REACTOR_H_

#include <memory>

#include "agent/restore/fetch_stream.h"

namespace litefleet::rpc {
class ChannelHub;
}

namespace litefleet::restore {

// `hub` outlives the transport and its streams.
std::unique_ptr<FetchTransport> MakeGrpcFetchTransport(rpc::ChannelHub& hub);

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_FETCH_REACTOR_H_
