#include "common/rpc/address.h"

#include <gtest/gtest.h>

#include "common/base/status.h"

namespace litefleet::rpc {
namespace {

TEST(AddressTest, TakesHostsAddressesAndSockets) {
  struct Case {
    const char *text, *host, *path, *target;
    int port;
  };
  for (const Case& each :
       {Case{"backup.example:1234", "backup.example", "", "dns:///backup.example:1234", 1234},
        Case{"backup.example", "backup.example", "", "dns:///backup.example:8742", 8742},
        Case{"192.0.2.1:1", "192.0.2.1", "", "dns:///192.0.2.1:1", 1},
        Case{"[2001:DB8:0:0::1]:65535", "2001:db8::1", "", "dns:///[2001:db8::1]:65535", 65535},
        Case{"[::1]", "::1", "", "dns:///[::1]:8742", 8742},
        Case{"unix:/a b/admin.sock", "", "/a b/admin.sock", "unix:/a%20b/admin.sock", 0}, Case{"unix:///a", "", "/a", "unix:/a", 0}}) {
    const auto address = ParseAddress(each.text);
    ASSERT_TRUE(address.ok()) << each.text << ": " << address.status();
    EXPECT_EQ(address->host, each.host);
    EXPECT_EQ(address->path, each.path);
    EXPECT_EQ(address->Target(), each.target);
    EXPECT_EQ(address->port, each.port);
    EXPECT_EQ(*ParseAddress(address->Text()), *address);
  }
}

TEST(AddressTest, SaysWhatIsWrong) {
  for (const char* bad : {"", ":1", "host:", "host:0", "host:65536", "host:+1", "host:1x", "::1", "::1:8742", "[::1", "[::1]8742",
                          "[host]:1", "a b:1", "-a:1", "a..b:1", "1.2.3:4", "999.1.1.1:1", "unix:", "http://host:1"}) {
    const auto address = ParseAddress(bad);
    EXPECT_FALSE(address.ok()) << bad;
    EXPECT_EQ(ReasonOf(address.status()), "ADDRESS_INVALID");
    EXPECT_FALSE(HintOf(address.status()).empty());
  }
  EXPECT_EQ(HintOf(ParseAddress("2001:db8::1").status()), "write [2001:db8::1]:8742");
}

TEST(AddressTest, ListensOnFreePortsAndAllInterfaces) {
  EXPECT_EQ(ParseListenAddress("127.0.0.1:0")->port, 0);
  EXPECT_EQ(ParseListenAddress(":8742")->Text(), "[::]:8742");
  EXPECT_EQ(ParseListenAddress("*:8742")->host, "::");
  EXPECT_EQ(ParseListenAddress("0.0.0.0:1")->host, "0.0.0.0");
}

}  // namespace
}  // namespace litefleet::rpc
