// Fetch: the chunks of a snapshot for the device whose restore order names it, read and verified on an executor.
//
// Bounds: four messages of at most 768 KiB wait to be written. The right to fetch is asked once, at the beginning; a cancelled order
// ends the fetch on the device's side, a revoked device's calls are cancelled. An error ends the stream, and nothing that was sent
// before it was unverified. Under a total rate (FairRate) the next message is made when the device's turn has come.
#ifndef LITEFLEET_CONTROLLER_RPC_FETCH_REACTOR_H_
#define LITEFLEET_CONTROLLER_RPC_FETCH_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "common/base/executor.h"
#include "controller/fleet/fleet.h"
#include "controller/flow/fair_rate.h"
#include "controller/restore/snapshot_reader.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::rpc {

// All outlive the server.
struct FetchDeps {
  restore::SnapshotReaderFactory* readers = nullptr;
  fleet::Fleet* fleet = nullptr;
  Executor* executor = nullptr;
  flow::FairRate* rate = nullptr;  // of all fetches together; null: no limit
};

// Deletes itself in OnDone.
grpc::ServerWriteReactor<v1::FetchResponse>* NewFetchReactor(grpc::CallbackServerContext* context, const FetchDeps& deps,
                                                             const Caller& caller, const v1::FetchRequest& request);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_FETCH_REACTOR_H_
