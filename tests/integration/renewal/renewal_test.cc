// A renewal that gets no answer, and an agent that is told to end meanwhile.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>

#include "agent/enroll/enroll.h"
#include "common/base/status.h"
#include "common/crypto/x509.h"
#include "common/io/file.h"
#include "controller/identity/authority.h"
#include "fmt/format.h"

namespace litefleet::enroll {
namespace {

// Takes connections and says nothing.
class SilentController {
 public:
  SilentController() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(listen(fd_.get(), 16), 0);
    EXPECT_EQ(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    port_ = ntohs(address.sin_port);
  }
  std::string address() const { return fmt::format("127.0.0.1:{}", port_); }

 private:
  const io::UniqueFd fd_;
  uint16_t port_ = 0;
};

TEST(RenewalTest, ACancelEndsTheWaitForAnAnswer) {
  std::string folder = testing::TempDir() + "lf-renewal-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const SystemTime now = RealClock().Now();
  ASSERT_TRUE(identity::Authority::Create(folder + "/ca", {"127.0.0.1"}, now).ok());
  const auto authority = identity::Authority::Open(folder + "/ca");
  ASSERT_TRUE(authority.ok()) << authority.status();
  const crypto::Key key = *crypto::GenerateKey();
  state::DeviceIdentity device;
  device.device = DeviceId("11111111-1111-4111-8111-111111111111");
  device.name = "pump-1";
  device.private_key = *crypto::KeyToPem(*key);
  device.certificate_chain = (*authority)->IssueDevice(device.device, *key, now)->certificate_chain;
  device.ca_certificate = (*authority)->root_pem();
  const std::string before = device.certificate_chain;

  const SilentController controller;
  for (const SystemTime when : {now, now + std::chrono::hours(24 * 365)}) {  // by its certificate, and by the proof of its key
    CancelToken cancel;
    std::thread ends([&] { cancel.Interrupt(); });
    const auto renewed = Renew(folder, controller.address(), when, Renewal::kNow, std::chrono::hours(1), device, cancel);
    EXPECT_EQ(ReasonOf(renewed.status()), "CANCELLED") << renewed.status();
    ends.join();
  }
  EXPECT_EQ(device.certificate_chain, before);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace litefleet::enroll
