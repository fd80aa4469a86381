// What a server stream may take: messages that wait to be written, and the time of a write.
#ifndef LITEFLEET_COMMON_RPC_STREAM_LIMITS_H_
#define LITEFLEET_COMMON_RPC_STREAM_LIMITS_H_

#include <chrono>
#include <cstddef>

namespace litefleet::rpc {

struct StreamLimits {
  size_t max_messages = 256;
  size_t max_bytes = 4 << 20;  // a message that is larger is taken when nothing else waits
  // A write that has not completed after this long ends the call: the peer is connected and does not read (PEER_STALLED).
  std::chrono::milliseconds write_timeout{60'000};
};

}  // namespace litefleet::rpc

#endif  // LITEFLEET_COMMON_RPC_STREAM_LIMITS_H_
