// The doctor's call: what it finds at the controller, then what the fleet suffers from.
#include "common/base/proto_time.h"
#include "common/base/status.h"
#include "controller/rpc/admin_handlers.h"
#include "fmt/format.h"

namespace litefleet::rpc {
namespace {

using std::chrono::hours;

void LookAtFleet(const v1::GetStatusResponse& status, SystemTime now, doctor::Findings& findings) {
  if (status.databases() == 0) {
    findings.Ok("proof", "no database is known yet");
  } else if (status.databases_unproven() > 0) {
    findings.Warn("proof",
                  fmt::format("{} of {} databases have no snapshot that was proven", status.databases_unproven(), status.databases()),
                  "check one of each: litefleet snapshot check ID");
  } else if (status.has_oldest_proven_at() && FromProtoTime(status.oldest_proven_at()) < now - hours(24 * 7)) {
    findings.Warn("proof",
                  fmt::format("the newest proven snapshot of {} is of {}", status.oldest_proven_database(),
                              FormatRfc3339(FromProtoTime(status.oldest_proven_at()))),
                  fmt::format("litefleet backup {0}, then litefleet snapshot check ID", status.oldest_proven_database()));
  } else {
    findings.Ok("proof", fmt::format("each of {} databases has a proven snapshot", status.databases()));
  }
  if (status.alarms_size() > 0) {
    findings.Warn("fleet",
                  fmt::format("{} alarms, the first: {} {}", status.alarms_size(), status.alarms(0).subject(), status.alarms(0).message()),
                  "see litefleet status");
  } else {
    findings.Ok("fleet", fmt::format("{} devices, {} connected, no alarm", status.devices(), status.devices_connected()));
  }
}

}  // namespace

absl::StatusOr<v1::RunDoctorResponse> AdminHandlers::RunDoctor(const v1::RunDoctorRequest&) const {
  v1::RunDoctorResponse response;
  doctor::Findings findings(response);
  doctor::Examine(deps_.doctor, findings);
  const auto status = GetStatus({});
  if (status.ok()) {
    LookAtFleet(*status, deps_.clock->Now(), findings);
  } else {
    findings.Fail("fleet", MessageOf(status.status()), "see the controller's log");
  }
  return response;
}

}  // namespace litefleet::rpc
