// The composition root of `litefleet-controller serve`: opens everything, listens, and takes it down in the right order.
//
// The only place of the controller that knows concrete classes. Thread safety: one thread starts, reloads and stops it.
// Errors of Start: those of the parts; kFailedPrecondition ALREADY_RUNNING, ADDRESS_IN_USE.
#ifndef LITEFLEET_CONTROLLER_SERVER_H_
#define LITEFLEET_CONTROLLER_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "controller/config/config.h"
#include "controller/data_directory.h"

namespace litefleet {

struct ServerOptions {
  DataDirectory data;
  config::ControllerConfig config;
  std::string ready_file;  // empty: none
  // Where `config` came from, for people; empty: no file.
  std::string config_file = {};
  // Reads it again; null: nothing can have changed.
  std::function<absl::StatusOr<config::ControllerConfig>()> read_config = nullptr;
};

class Server {
 public:
  // Serves when it returns; then the ready file is there.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);
  // Stops within `kGrace` and some: calls that are going on are cancelled, what was acknowledged is durable anyway.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // HOST:PORT with the port that was taken.
  const std::string& address() const;
  // Certificates and what is known of them, log level. Keeps what it had where the new is bad. What else has changed in `config` is
  // logged: it waits for a restart.
  absl::Status Reload(const config::ControllerConfig& config);
  // What is due by time: the server's own certificate, uploads nobody continued. Call it once a minute.
  void Maintain();

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);
  std::unique_ptr<Parts> parts_;
};

}  // namespace litefleet

#endif  // LITEFLEET_CONTROLLER_SERVER_H_
