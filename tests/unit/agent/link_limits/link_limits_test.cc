#include "agent/link_limits.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <time.h>

#include <optional>
#include <string>

namespace litefleet {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;

constexpr int64_t kPlain = 1 << 20;
constexpr int64_t kDay = 64 << 10;
constexpr int64_t kNight = 8 << 20;

class LinkLimitsTest : public testing::Test {
 protected:
  LinkLimitsTest() {
    if (const char* zone = getenv("TZ"); zone != nullptr) zone_ = zone;
    SetZone("UTC0");
  }
  ~LinkLimitsTest() override {
    if (zone_.has_value()) {
      SetZone(zone_->c_str());
    } else {
      unsetenv("TZ");
      tzset();
    }
  }
  static void SetZone(const char* zone) {
    setenv("TZ", zone, 1);
    tzset();
  }
  // The device's clock goes on to this time of the day, of this or the next day, in UTC.
  void GoTo(std::chrono::milliseconds of_day) {
    const auto now = std::chrono::milliseconds(ToUnixMillis(clock_.Now())) % hours(24);
    clock_.Advance((of_day - now + hours(24)) % hours(24));
    Follow();
  }
  void Follow() { limits_.Follow(config_); }

  std::optional<std::string> zone_;
  FakeClock clock_;
  RateLimit up_{0};
  RateLimit down_{0};
  LinkLimits limits_{clock_, up_, down_};
  config::AgentConfig config_;
};

TEST_F(LinkLimitsTest, WithoutWindowsThePlainLimitsHold) {
  Follow();
  EXPECT_EQ(up_.rate(), 0);
  EXPECT_EQ(down_.rate(), 0);
  config_.upload_bytes_per_second = kPlain;
  config_.download_bytes_per_second = kPlain * 2;
  Follow();
  EXPECT_EQ(up_.rate(), kPlain);
  EXPECT_EQ(down_.rate(), kPlain * 2);
}

TEST_F(LinkLimitsTest, AWindowOpensAndCloses) {
  config_.upload_bytes_per_second = kPlain;
  config_.upload_windows = {{.from = hours(8), .to = hours(18), .days = {}, .bytes_per_second = kDay}};
  config_.download_windows = {{.from = hours(12), .to = hours(13), .days = {}, .bytes_per_second = kDay * 2}};
  GoTo(hours(8) - seconds(1));
  EXPECT_EQ(up_.rate(), kPlain);
  EXPECT_EQ(down_.rate(), 0);
  for (int day = 0; day < 2; ++day) {
    GoTo(hours(8));
    EXPECT_EQ(up_.rate(), kDay) << day;
    EXPECT_EQ(down_.rate(), 0) << day;
    GoTo(hours(12));
    EXPECT_EQ(up_.rate(), kDay) << day;
    EXPECT_EQ(down_.rate(), kDay * 2) << day;
    GoTo(hours(13));
    EXPECT_EQ(down_.rate(), 0) << day;
    GoTo(hours(18) - seconds(1));
    EXPECT_EQ(up_.rate(), kDay) << day;
    GoTo(hours(18));
    EXPECT_EQ(up_.rate(), kPlain) << day;
  }
}

TEST_F(LinkLimitsTest, OneOverMidnightBelongsToTheDayOnWhichItBegins) {
  // The fake clock begins on a Friday.
  config_.download_bytes_per_second = kPlain;
  config_.download_windows = {{.from = hours(22), .to = hours(6), .days = 1 << 5, .bytes_per_second = kNight}};
  GoTo(hours(22) - seconds(1));
  EXPECT_EQ(down_.rate(), kPlain);
  GoTo(hours(22));
  EXPECT_EQ(down_.rate(), kNight);
  GoTo(hours(0));
  EXPECT_EQ(down_.rate(), kNight) << "Saturday, of Friday's window";
  GoTo(hours(6));
  EXPECT_EQ(down_.rate(), kPlain);
  GoTo(hours(23));
  EXPECT_EQ(down_.rate(), kPlain) << "none begins on Saturday";
  GoTo(hours(1));
  EXPECT_EQ(down_.rate(), kPlain);
  EXPECT_EQ(up_.rate(), 0) << "what downloads may take is theirs";
}

TEST_F(LinkLimitsTest, TimesAreTheDevicesOwn) {
  SetZone("EAST-9");  // nine hours ahead
  config_.upload_windows = {{.from = hours(8), .to = hours(18), .days = {}, .bytes_per_second = kDay}};
  GoTo(hours(23) - seconds(1));
  EXPECT_EQ(up_.rate(), 0);
  GoTo(hours(23));
  EXPECT_EQ(up_.rate(), kDay);
  GoTo(hours(9));
  EXPECT_EQ(up_.rate(), 0);
}

TEST_F(LinkLimitsTest, AClockThatIsSetAndAConfigurationThatChangesAreFollowed) {
  config_.upload_windows = {{.from = hours(8), .to = hours(18), .days = {}, .bytes_per_second = kDay}};
  GoTo(hours(10));
  EXPECT_EQ(up_.rate(), kDay);
  clock_.JumpSystem(hours(12));
  Follow();
  EXPECT_EQ(up_.rate(), 0);
  clock_.JumpSystem(-hours(12));
  Follow();
  EXPECT_EQ(up_.rate(), kDay);
  config_.upload_windows.clear();
  Follow();
  EXPECT_EQ(up_.rate(), 0);
}

TEST_F(LinkLimitsTest, ALimitThatStaysKeepsWhatWasSavedUp) {
  config_.upload_bytes_per_second = kPlain;
  Follow();
  up_.Budget(clock_.Steady());
  clock_.Advance(minutes(1));
  EXPECT_EQ(up_.Budget(clock_.Steady()), kPlain / 4);
  Follow();
  EXPECT_EQ(up_.Budget(clock_.Steady()), kPlain / 4);
}

}  // namespace
}  // namespace litefleet
