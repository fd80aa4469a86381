// litefleet.v1.AdminService over gRPC: who calls is asked first, the work runs on an executor, its answer ends the call.
//
// What the calls do is in admin_handlers.h. Thread safety: gRPC calls the handlers from its own threads; none of them blocks.
// Ownership: what is given must outlive the server that this is registered with.
// Errors: what the handlers say, RESOURCE_EXHAUSTED OVERLOADED when the executor's queue is full.
#ifndef LITEFLEET_CONTROLLER_RPC_ADMIN_SERVICE_H_
#define LITEFLEET_CONTROLLER_RPC_ADMIN_SERVICE_H_

#include <memory>

#include "common/base/executor.h"
#include "controller/rpc/admin_handlers.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/admin_service.grpc.pb.h"

namespace litefleet::rpc {

// `work`: short calls on catalogs; `streams`: steps of downloads, so that many of them do not delay the others.
std::unique_ptr<v1::AdminService::CallbackService> MakeAdminService(const AdminHandlers& handlers, Authenticator& authenticator,
                                                                    Executor& work, Executor& streams);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_ADMIN_SERVICE_H_
