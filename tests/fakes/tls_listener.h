// A server that carries TLS handshakes out and knows no call.
#ifndef LITEFLEET_TESTS_FAKES_TLS_LISTENER_H_
#define LITEFLEET_TESTS_FAKES_TLS_LISTENER_H_

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>

#include "common/rpc/address.h"
#include "common/rpc/server_credentials.h"
#include "fmt/format.h"

namespace litefleet::fakes {

// Thread safety: none.
class TlsListener {
 public:
  ~TlsListener() { Stop(); }

  // What is shown and whom it takes; may change while it listens.
  rpc::ServerCertificates& certificates() { return certificates_; }
  // Puts where it listens into `address`: a port of 127.0.0.1 that the kernel gives. REQUIRES: certificates were set.
  void Start(rpc::Address& address) {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", rpc::TlsCredentials(certificates_), &port);
    builder.RegisterCallbackGenericService(&service_);  // any: its threads carry the handshakes out
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address = *rpc::ParseAddress(fmt::format("127.0.0.1:{}", port));
  }
  void Stop() {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now());
    server_->Wait();
    server_.reset();
  }

 private:
  rpc::ServerCertificates certificates_;
  grpc::CallbackGenericService service_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_TLS_LISTENER_H_
