// ImportService over controller/imports. Thread safety: gRPC's. Ownership: borrows everything, which must outlive it.
#ifndef LITEFLEET_CONTROLLER_RPC_IMPORT_SERVICE_H_
#define LITEFLEET_CONTROLLER_RPC_IMPORT_SERVICE_H_

#include <memory>

#include "common/base/executor.h"
#include "controller/imports/imports.h"
#include "controller/rpc/auth.h"
#include "litefleet/v1/admin_import.grpc.pb.h"

namespace litefleet::rpc {

// `executor`: for the disk.
std::unique_ptr<v1::ImportService::CallbackService> MakeImportService(imports::Imports& imports, Authenticator& authenticator,
                                                                      Executor& executor);

}  // namespace litefleet::rpc

#endif  // LITEFLEET_CONTROLLER_RPC_IMPORT_SERVICE_H_
