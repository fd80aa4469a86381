#include "common/base/heap.h"
#include "common/obs/log.h"
#include "common/rpc/channel.h"
#include "controller/cli/app.h"
#include "controller/cli/interrupt.h"

int main(int argc, char** argv) {
  litefleet::SetUpHeap({.kept = 16 << 20});
  litefleet::cli::Interrupts interrupts;
  interrupts.Install();
  const litefleet::rpc::GrpcRuntime runtime;
  // What the libraries warn of goes to standard error; standard output is the command's alone.
  litefleet::obs::SetupLog({.level = "warn"}).IgnoreError();
  const litefleet::RealClock clock;
  litefleet::rpc::EndProcess(litefleet::cli::Run(argc, argv, clock, interrupts));
}
