// A program that takes connections and does not answer in a useful time: it says nothing, or little by little.
#ifndef LITEFLEET_TESTS_FAKES_HANGING_LISTENER_H_
#define LITEFLEET_TESTS_FAKES_HANGING_LISTENER_H_

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/io/file.h"

namespace litefleet::fakes {

// Thread safety: none.
class HangingListener {
 public:
  // The first bytes of a handshake message of TLS that is 16 KiB long.
  static std::string BeginOfHandshake() { return std::string("\x16\x03\x03\x40\x00\x02\x00\x3f\xfc", 9); }

  // Listens on a port of 127.0.0.1 that the kernel gives. Each connection is told a byte of `says` every `each`, then zeros, and ends after
  // `bytes` of them; where `bytes` is 0 it is told nothing and does not end.
  explicit HangingListener(std::string says = {}, int bytes = 0, std::chrono::milliseconds each = std::chrono::milliseconds(50))
      : says_(std::move(says)), bytes_(bytes), each_(each), listens_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(listens_.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(getsockname(listens_.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
    EXPECT_EQ(listen(listens_.get(), 16), 0);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~HangingListener() {
    stopped_ = true;
    thread_.join();
  }
  HangingListener(const HangingListener&) = delete;
  HangingListener& operator=(const HangingListener&) = delete;

  uint16_t port() const { return port_; }

 private:
  struct Peer {
    io::UniqueFd fd;
    int told = 0;
  };

  void Serve() {
    std::vector<Peer> peers;
    while (!stopped_) {
      pollfd one{listens_.get(), POLLIN, 0};
      poll(&one, 1, static_cast<int>(each_.count()));
      if (io::UniqueFd fd(accept4(listens_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)); fd.valid())
        peers.push_back({std::move(fd)});
      if (bytes_ == 0) continue;
      for (Peer& peer : peers) {
        const char byte = static_cast<size_t>(peer.told) < says_.size() ? says_[static_cast<size_t>(peer.told)] : '\0';
        if (send(peer.fd.get(), &byte, 1, MSG_NOSIGNAL) != 1 || ++peer.told == bytes_) peer.told = -1;
      }
      std::erase_if(peers, [](const Peer& peer) { return peer.told < 0; });
    }
  }

  const std::string says_;
  const int bytes_;
  const std::chrono::milliseconds each_;
  const io::UniqueFd listens_;
  uint16_t port_ = 0;
  std::atomic<bool> stopped_{false};
  std::thread thread_;
};

}  // namespace litefleet::fakes

#endif  // LITEFLEET_TESTS_FAKES_HANGING_LISTENER_H_
