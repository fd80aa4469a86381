// Named places where a test kills the process. In builds without LITEFLEET_TESTS they are nothing.
//
//   LF_CRASH_POINT("apply.after_rename");
//
// With LITEFLEET_CRASH_AT=apply.after_rename (or NAME:3 for the third time) in the environment the process ends there by SIGKILL, as a
// power cut would end it, less what the kernel holds. LITEFLEET_STOP_AT stops it there by SIGSTOP, until SIGCONT: what others do in that
// moment is the test's. LITEFLEET_CRASH_LOG=FILE appends the name of every point that is passed.
#ifndef LITEFLEET_COMMON_BASE_CRASH_POINT_H_
#define LITEFLEET_COMMON_BASE_CRASH_POINT_H_

#ifdef LITEFLEET_CRASH_POINTS
namespace litefleet::internal {
void CrashPoint(const char* name);
}
#define LF_CRASH_POINT(name) ::litefleet::internal::CrashPoint(name)
#else
#define LF_CRASH_POINT(name) static_cast<void>(0)
#endif

#endif  // LITEFLEET_COMMON_BASE_CRASH_POINT_H_
