#include "agent/capture/attachments.h"

#include <map>
#include <type_traits>
#include <utility>

#include "common/base/mutex.h"

namespace litefleet::capture {
namespace {

struct Entry {
  int connections = 0;
  bool left_wal = false;
};

class Table {
 public:
  template <class Change>
  auto With(FileId file, Change change) {
    MutexLock lock(mu_);
    const auto at = entries_.try_emplace({file.device, file.inode}).first;
    if constexpr (std::is_void_v<decltype(change(at->second))>) {
      change(at->second);
      if (at->second.connections == 0) entries_.erase(at);
    } else {
      return change(at->second);
    }
  }

 private:
  Mutex mu_;
  std::map<std::pair<dev_t, ino_t>, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

Table& Attached() {
  static Table& table = *new Table();  // never destroyed: connections may outlive main
  return table;
}

}  // namespace

Attachment::Attachment(FileId file) : file_(file) {
  Attached().With(file_, [](Entry& entry) { ++entry.connections; });
}

Attachment::~Attachment() {
  Attached().With(file_, [](Entry& entry) { --entry.connections; });
}

bool Attachment::HasOthers() const {
  return Attached().With(file_, [](const Entry& entry) -> bool { return entry.connections > 1; });
}

void Attachment::LeaveWalToOthers() {
  Attached().With(file_, [](Entry& entry) { entry.left_wal = true; });
}

bool Attachment::TakeLeftWal() {
  return Attached().With(file_, [](Entry& entry) -> bool { return std::exchange(entry.left_wal, false); });
}

}  // namespace litefleet::capture
