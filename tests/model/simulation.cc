#include "tests/model/simulation.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <random>

#include "common/base/status.h"
#include "fmt/format.h"
#include "tests/fakes/faulty_vfs.h"
#include "tests/model/world.h"

namespace litefleet::model {
namespace {

constexpr const char* kCrashPoints[] = {
    "ingest.after_claim",      "ingest.after_chunk_write", "ingest.after_pack_sync",  "ingest.after_record_chunks",
    "ingest.before_commit_tx", "ingest.after_commit_tx",   "store.after_append",      "store.after_create",
    "store.before_sync",       "store.after_sync",         "store.seal.after_footer", "store.seal.after_sync",
    "store.seal.after_rename", "delete.after_trash",       "delete.after_mark",       "prune.after_remove",
    "prune.after_begin",       "prune.after_trash",        "prune.after_sweep",       "prune.after_copy",
    "prune.after_switch",      "prune.after_unlink",       "scrub.after_quarantine",  "scrub.after_pack"};

// How an epoch ends.
struct End {
  std::string point;      // a crash point, with its count
  unsigned calls = 0;     // or so many calls of the file system, of the store; 0: by itself
  unsigned catalog = 0;   // or of the catalog
  bool rebuild = false;   // before it begins
  bool put_back = false;  // an older copy of the catalog was, before it begins: a rebuild follows
  int writeback = 0;
};

End ChooseEnd(std::minstd_rand& random, bool may_rebuild) {
  End end;
  end.rebuild = may_rebuild && random() % 4 == 0;
  end.writeback = random() % 3 == 0 ? 0 : static_cast<int>(random() % 60);
  const unsigned how = random() % 10;
  const auto calls = 1 + static_cast<unsigned>(random() % (random() % 2 == 0 ? 60 : 1500));
  if (how < 3) end.calls = calls;
  if (how >= 3 && how < 5) end.catalog = calls;
  if (how >= 5 && how < 8) end.point = fmt::format("{}:{}", kCrashPoints[random() % std::size(kCrashPoints)], 1 + random() % 6);
  return end;
}

[[noreturn]] void RunEpoch(Model model, const std::string& directory, unsigned seed, int actions, const End& end, int out) {
  const auto tell = [&](const std::string& line) {
    const std::string bytes = line + "\n";
    if (write(out, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) _exit(5);
    model.Apply(line);
    if (!model.violation.empty()) _exit(0);
  };
  unsigned calls = 0;
  fakes::VolatileFiles files(seed, end.writeback, [&](fakes::FileCall) {
    if (++calls == end.calls) kill(getpid(), SIGKILL);
    return fakes::FileFault::kNone;
  });
  std::atomic<unsigned> catalog_calls{0};  // the catalog's writer is a thread of its own
  const fakes::FaultyVfs vfs(
      "/catalog.db",
      [&](fakes::FileCall call) {
        if (call != fakes::FileCall::kRead && ++catalog_calls == end.catalog) kill(getpid(), SIGKILL);
        return fakes::FileFault::kNone;
      },
      seed, end.writeback);
  if (!end.point.empty()) setenv("LITEFLEET_CRASH_AT", end.point.c_str(), 1);
  if (end.rebuild) {
    FakeClock clock;
    clock.Advance(std::chrono::milliseconds(model.clock_ms));
    if (end.put_back) {
      if (const absl::Status status = World::ExpectOutdated(directory, clock, files); !status.ok())
        tell("violation " + std::string(status.message()));
    }
    if (const absl::Status status = World::Rebuild(directory, clock, files); !status.ok())
      tell("violation rebuild: " + std::string(status.message()));
    tell("rebuilt");
  }
  {
    World world(model, directory, files, seed, tell);
    world.Start();
    world.Act(actions);
    world.CheckAll();
    world.Stop();
  }
  tell("end");
  _exit(0);
}

// Takes in the events of a process until it ends. False: it ended in a way that nobody wanted.
bool Listen(Model& model, int in, pid_t child, bool& crashed) {
  std::string rest;
  char buffer[8192];
  for (ssize_t got; (got = read(in, buffer, sizeof buffer)) > 0;) {
    rest.append(buffer, static_cast<size_t>(got));
    for (size_t at; (at = rest.find('\n')) != std::string::npos; rest.erase(0, at + 1)) model.Apply(rest.substr(0, at));
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) return false;
  crashed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  return crashed || (WIFEXITED(status) && WEXITSTATUS(status) == 0 && (model.ended || !model.violation.empty()));
}

std::string ScratchDirectory() {
  // What is synced is decided by VolatileFiles, so memory will do.
  std::string name = access("/dev/shm", W_OK) == 0 ? "/dev/shm/litefleet-model-XXXXXX" : "/tmp/litefleet-model-XXXXXX";
  return mkdtemp(name.data()) == nullptr ? "" : name;
}

// The catalog's file and its log, of a controller that does not run.
void CopyCatalog(const std::string& from, const std::string& to) {
  std::filesystem::create_directories(to);
  for (const char* name : {"catalog.db", "catalog.db-wal", "catalog.db-shm"}) std::filesystem::remove(to + "/" + name);
  for (const char* name : {"catalog.db", "catalog.db-wal"}) {
    if (std::filesystem::exists(from + "/" + name)) std::filesystem::copy_file(from + "/" + name, to + "/" + name);
  }
}

}  // namespace

SimulationResult Simulate(const SimulationOptions& options) {
  std::minstd_rand random(options.seed * 7919 + 1);
  SimulationResult result;
  Model model;
  for (int i = 0; i < 3; ++i) {
    Device& device = model.devices.emplace_back();
    device.id = DeviceId(fmt::format("{0}{0}{0}{0}{0}{0}{0}{0}-1111-4111-8111-111111111111", i + 1));
    device.now.page_size = i == 2 ? 1024 : 4096;
  }
  int copied = 0;  // Model::counted of the copy of the catalog
  const std::string directory = ScratchDirectory();
  if (directory.empty()) return {.violation = "no scratch directory"};
  for (int epoch = 0; epoch < options.epochs && model.violation.empty(); ++epoch) {
    End end = ChooseEnd(random, epoch > 0 && !model.ever_flipped);
    if (model.outdated) {
      end.rebuild = end.put_back = true;  // the process was killed before it had rebuilt
    } else if (random() % 3 == 0 && epoch > 0 && !model.ever_flipped && copied > 0 && model.counted > copied) {
      CopyCatalog(directory + "/older", directory);
      end.rebuild = end.put_back = model.outdated = true;
      ++result.put_back;
    } else if (random() % 3 == 0 && epoch > 0) {
      CopyCatalog(directory, directory + "/older");
      copied = model.counted;
    }
    const unsigned seed = random();
    int fds[2];
    if (pipe(fds) != 0) return {.violation = "no pipe"};
    model.ended = false;
    model.last.push_back(fmt::format("epoch {}: {}{}{}", epoch,
                                     end.put_back ? "an older catalog, rebuild, " : (end.rebuild ? "rebuild, " : ""), end.point,
                                     end.calls > 0     ? fmt::format("killed at call {}", end.calls)
                                     : end.catalog > 0 ? fmt::format("killed at call {} of the catalog", end.catalog)
                                                       : ""));
    result.rebuilds += end.rebuild ? 1 : 0;
    const pid_t child = fork();
    if (child < 0) return {.violation = "no process"};
    if (child == 0) {
      close(fds[0]);
      RunEpoch(model, directory, seed, options.actions, end, fds[1]);
    }
    close(fds[1]);
    bool crashed = false;
    if (!Listen(model, fds[0], child, crashed)) model.violation = "the process ended by itself";
    close(fds[0]);
    result.crashes += crashed ? 1 : 0;
  }
  result.snapshots = model.snapshots.size();
  for (const auto& [id, snapshot] : model.snapshots) result.alive += snapshot.fate == Fate::kAlive ? 1 : 0;
  if (!model.violation.empty()) {
    result.violation = fmt::format(
        "last events:\n  {}\nrepeat: LITEFLEET_SEED={} LITEFLEET_EPOCHS={} LITEFLEET_ACTIONS={} model_short_test\n"
        "the store is in {}\n{}\n",
        fmt::join(model.last, "\n  "), options.seed, options.epochs, options.actions, directory, model.violation);
  } else {
    std::filesystem::remove_all(directory);
  }
  return result;
}

}  // namespace litefleet::model
