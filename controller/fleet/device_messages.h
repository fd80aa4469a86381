// What devices send, cut to what is believed of it, and what is sent to them. Pure functions.
#ifndef LITEFLEET_CONTROLLER_FLEET_DEVICE_MESSAGES_H_
#define LITEFLEET_CONTROLLER_FLEET_DEVICE_MESSAGES_H_

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/ids.h"
#include "litefleet/v1/admin_service.pb.h"

namespace litefleet::fleet {

// kInvalidArgument BAD_MESSAGE: the stream ends.
absl::Status BadMessage(std::string_view what);

// Protocol version and sizes. Errors: kFailedPrecondition PROTOCOL_VERSION, kResourceExhausted TOO_MANY_OPERATIONS.
absl::Status CheckHello(const v1::Hello& hello, int max_operations);
// Hello without lists, texts cut. Of its databases one without a name is left where snapshots wait on the device: how many.
v1::Hello CutHello(const v1::Hello& hello);
// Without databases of invalid or repeated names; texts cut. Errors: kResourceExhausted TOO_MANY_DATABASES.
absl::StatusOr<std::vector<v1::DatabaseHealth>> CheckedDatabases(const google::protobuf::RepeatedPtrField<v1::DatabaseHealth>& databases,
                                                                 int most);

// The same number for the same databases, as the configuration of the device has them: what changes by itself does not count.
size_t ConfiguredAs(std::span<const v1::DatabaseHealth> databases);
// A few short ones are left.
void CutSentences(google::protobuf::RepeatedPtrField<std::string>& sentences);
// The same text for the same answer to a policy.
std::string PolicyAnswer(int64_t version, const google::protobuf::RepeatedPtrField<std::string>& problems);
// The gap with its times within [0, one day after `now`], its texts cut. Errors: BadMessage.
absl::StatusOr<v1::CoverageGap> CheckedGap(const v1::CoverageGap& gap, SystemTime now);

v1::ControlResponse OrderMessage(const v1::Order& order);
v1::ControlResponse CancelMessage(const std::string& operation);
v1::ControlResponse RecordedMessage(const std::string& operation);
v1::ControlResponse GapRecordedMessage(const std::string& gap);

}  // namespace litefleet::fleet

#endif  // LITEFLEET_CONTROLLER_FLEET_DEVICE_MESSAGES_H_
