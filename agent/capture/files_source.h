// Plain files beside a database as text: the pax archive that the helper process makes of them (common/archive/pack.h).
//
// Files are read one after the other, and nothing holds those who write to them up: each file is of one moment, all of them together are
// not. One that changes while it is read is read again; then the whole is SOURCE_CHANGED, and only where the caller is tolerant it is taken
// as it was read, and told. Not for databases: SQLite's files are left out. Thread safety: none. Errors: those of
// common/files/files_process.h.
#ifndef LITEFLEET_AGENT_CAPTURE_FILES_SOURCE_H_
#define LITEFLEET_AGENT_CAPTURE_FILES_SOURCE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "agent/capture/dump_source.h"
#include "agent/capture/file_facts.h"
#include "common/base/clock.h"
#include "common/files/files_process.h"

namespace litefleet::capture {

struct FilesOptions {
  std::string root;
  files::Rules rules;
  bool tolerant = false;
  const Clock* clock = nullptr;
  files::FilesHelper helper;
  // Told at the end what was left out or is not as it should be; may be empty.
  std::function<void(const std::vector<std::string>& notes)> notes;
};

absl::StatusOr<std::unique_ptr<TextSource>> OpenFilesSource(const FilesOptions& options);

// By names, owners, modes, sizes, times, device and inode of all of them: equal facts mean that no file was written, replaced, renamed,
// came or went, as far as the kernel's times tell.
absl::StatusOr<FileFacts> FactsOfFiles(const FilesOptions& options);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_FILES_SOURCE_H_
