#include "agent/restore/in_use.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <string_view>

#include "agent/capture/open_files.h"
#include "common/base/status.h"
#include "fmt/format.h"

namespace litefleet::restore {
namespace {

constexpr size_t kMaxNamed = 5;

using Directory = std::unique_ptr<DIR, int (*)(DIR*)>;

std::string NameOfProcess(pid_t pid) {
  const auto name = io::ReadFile(fmt::format("/proc/{}/comm", pid), 256);
  if (!name.ok()) return {};
  return name->substr(0, name->find('\n'));
}

// The kernel's number of the first name space of processes (PROC_PID_INIT_INO): in any other one, a container's, /proc does not show who
// runs outside of it, and does not say so.
constexpr ino_t kFirstPidSpace = 0xEFFFFFFC;

}  // namespace

bool InContainer() {
  struct stat st {};
  return stat("/proc/self/ns/pid", &st) != 0 || st.st_ino != kFirstPidSpace;
}

std::string Users::Text() const {
  std::string text;
  for (size_t i = 0; i < pids.size() && i < kMaxNamed; ++i) {
    const std::string name = NameOfProcess(pids[i]);
    text += fmt::format("{}process {}{}", i == 0 ? "" : ", ", pids[i], name.empty() ? "" : " (" + name + ")");
  }
  if (pids.size() > kMaxNamed) text += fmt::format(" and {} more", pids.size() - kMaxNamed);
  return text;
}

Users FindUsers(std::span<const capture::FileId> files) {
  Users users;
  const Directory processes(opendir("/proc"), closedir);
  if (processes == nullptr) return users;
  users.in_container = InContainer();
  users.complete = !users.in_container;
  bool first = false;  // is there wherever all are shown (mount option hidepid)
  while (const dirent* entry = readdir(processes.get())) {
    const std::string_view name = entry->d_name;
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size()) continue;
    first |= pid == 1;
    if (pid == getpid()) continue;
    const capture::OpenFiles open = capture::FindOpenFiles(pid, files, /*any=*/true);
    if (!open.found.empty()) users.pids.push_back(pid);
    users.complete &= open.complete;
  }
  users.complete &= first;
  std::sort(users.pids.begin(), users.pids.end());
  return users;
}

absl::StatusOr<std::optional<WriteLease>> WriteLease::Take(const TargetPlace& place, const std::string& name) {
  LF_ASSIGN_OR_RETURN(io::UniqueFd fd, place.Open(name, O_RDONLY | O_NONBLOCK));
  // The kernel tells us by a signal that somebody wants the file; the default one would end the process, this one is ignored.
  fcntl(fd.get(), F_SETSIG, SIGURG);
  if (fcntl(fd.get(), F_SETLEASE, F_WRLCK) == 0) return WriteLease(std::move(fd));
  if (errno != EAGAIN && errno != EBUSY) return std::nullopt;
  struct stat st {};
  const capture::FileId id = fstat(fd.get(), &st) == 0 ? capture::FileId{st.st_dev, st.st_ino} : capture::FileId{};
  const Users users = FindUsers(std::span(&id, 1));
  // A file system that refuses leases in this way. Where not everybody can be looked at, the refusal is the answer.
  if (users.pids.empty() && users.complete) return std::nullopt;
  return Error(absl::StatusCode::kFailedPrecondition, "IN_USE",
               fmt::format("{} is open in {}", place.path(), users.pids.empty() ? "a process that is not visible from here" : users.Text()),
               "stop the application first, or restore with --mode live");
}

OwnLease::OwnLease(int fd) : fd_(fd), held_(fcntl(fd, F_SETSIG, SIGURG) == 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0) {}

OwnLease::~OwnLease() {
  if (held_) fcntl(fd_, F_SETLEASE, F_UNLCK);
}

bool OwnLease::Wanted() const { return fcntl(fd_, F_GETLEASE) != F_WRLCK; }

bool WriteLease::Wanted() const { return fcntl(fd_.get(), F_GETLEASE) != F_WRLCK; }

}  // namespace litefleet::restore
