#include "controller/rpc/import_service.h"

#include "controller/rpc/import_reactor.h"

namespace litefleet::rpc {
namespace {

class ImportServiceImpl final : public v1::ImportService::CallbackService {
 public:
  ImportServiceImpl(imports::Imports& imports, Authenticator& authenticator, Executor& executor)
      : imports_(imports), authenticator_(authenticator), executor_(executor) {}

  grpc::ServerBidiReactor<v1::ImportSnapshotRequest, v1::ImportSnapshotResponse>* ImportSnapshot(
      grpc::CallbackServerContext* context) override {
    const auto caller = authenticator_.Authenticate(*context, "/litefleet.v1.ImportService/ImportSnapshot");
    return LaunchImport(context, caller, imports_, executor_);
  }

 private:
  imports::Imports& imports_;
  Authenticator& authenticator_;
  Executor& executor_;
};

}  // namespace

std::unique_ptr<v1::ImportService::CallbackService> MakeImportService(imports::Imports& imports, Authenticator& authenticator,
                                                                      Executor& executor) {
  return std::make_unique<ImportServiceImpl>(imports, authenticator, executor);
}

}  // namespace litefleet::rpc
