// SendWanted over gRPC. Thread safety: any thread.
#ifndef LITEFLEET_AGENT_HEAL_HEAL_CLIENT_H_
#define LITEFLEET_AGENT_HEAL_HEAL_CLIENT_H_

#include <memory>

#include "agent/heal/healer.h"

namespace litefleet::rpc {
class ChannelHub;
}

namespace litefleet::heal {

// `hub` outlives the sender.
std::unique_ptr<WantedSender> MakeGrpcSender(rpc::ChannelHub& hub);

}  // namespace litefleet::heal

#endif  // LITEFLEET_AGENT_HEAL_HEAL_CLIENT_H_
