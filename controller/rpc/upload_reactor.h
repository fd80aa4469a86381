// Upload: one stream of a device's backup, over the state machine in controller/ingest.
//
// Where all places for uploads are taken (FairSlots), nothing is read before there is one; after a while the stream ends with
// TOO_MANY_UPLOADS. Reactions only hand work to the executor: one task at a time handles the message that was read, then asks for the next;
// not asking is the backpressure, also where the total rate (FairRate) lets it wait for its device's turn. Whatever ends the stream, the
// session's End runs once, after the task that may be running, so that what was received is made durable. Bounds: one message of at most 1
// MiB here, what the session says there, and 1,024 answers that the device has not read (beyond that the stream ends).
#ifndef LITEFLEET_CONTROLLER_RPC_UPLOAD_REACTOR_H_
#define LITEFLEET_CONTROLLER_RPC_UPLOAD_REACTOR_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include "common/base/executor.h"
#include "controller/flow/fair_rate.h"
#include "controller/flow/fair_slots.h"
#include "controller/ingest/ingest.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet::rpc {

// They outlive the server.
struct UploadDeps {
  ingest::Ingest* ingest = nullptr;
  Executor* executor = nullptr;    // the session executor of IngestDeps
  flow::FairRate* rate = nullptr;  // of all uploads together; null: no limit
  // Uploads at once; null: who comes when the ingest takes no more is refused.
  flow::FairSlots* slots = nullptr;
};

// Deletes itself in OnDone.
grpc::ServerBidiReactor<v1::UploadRequest, v1::UploadResponse>* NewUploadReactor(grpc::CallbackServerContext* context,
                                                                                 const UploadDeps& deps, const Caller& caller);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_UPLOAD_REACTOR_H_
