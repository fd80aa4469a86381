// google.protobuf.Timestamp and Duration <-> our types, to the millisecond. Pure functions; any input is safe.
#ifndef LITEFLEET_COMMON_BASE_PROTO_TIME_H_
#define LITEFLEET_COMMON_BASE_PROTO_TIME_H_

#include <google/protobuf/duration.pb.h>
#include <google/protobuf/timestamp.pb.h>

#include <algorithm>
#include <chrono>

#include "common/base/clock.h"

namespace litefleet {

// What a Timestamp may hold: the years 1 to 9999. Others are clamped, since they come from a peer.
inline constexpr int64_t kMinTimestampSeconds = -62'135'596'800;
inline constexpr int64_t kMaxTimestampSeconds = 253'402'300'799;

inline int64_t TimestampMillis(const google::protobuf::Timestamp& time) {
  return std::clamp<int64_t>(time.seconds(), kMinTimestampSeconds, kMaxTimestampSeconds) * 1000 +
         std::clamp<int64_t>(time.nanos(), 0, 999'999'999) / 1'000'000;
}

inline google::protobuf::Timestamp MillisTimestamp(int64_t millis) {
  int64_t seconds = millis / 1000;
  int64_t rest = millis % 1000;
  if (rest < 0) {
    rest += 1000;
    --seconds;
  }
  google::protobuf::Timestamp time;
  time.set_seconds(seconds);
  time.set_nanos(static_cast<int32_t>(rest * 1'000'000));
  return time;
}

// A SystemTime counts nanoseconds, so it spans the years 1678 to 2262: what is outside is clamped to 1900 to 2200.
inline SystemTime FromProtoTime(const google::protobuf::Timestamp& time) {
  return FromUnixMillis(std::clamp<int64_t>(TimestampMillis(time), -2'208'988'800'000, 7'258'118'400'000));
}

inline google::protobuf::Timestamp ToProtoTime(SystemTime time) { return MillisTimestamp(ToUnixMillis(time)); }

inline google::protobuf::Duration ToProtoDuration(std::chrono::milliseconds duration) {
  google::protobuf::Duration result;
  result.set_seconds(duration.count() / 1000);
  result.set_nanos(static_cast<int32_t>(duration.count() % 1000) * 1'000'000);
  return result;
}

}  // namespace litefleet

#endif  // LITEFLEET_COMMON_BASE_PROTO_TIME_H_
