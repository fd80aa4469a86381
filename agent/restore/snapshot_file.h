// A snapshot that lies in a file on this device, as a restore takes it: `litefleet snapshot download`, carried here.
//
// The file is read while it is restored, twice, and has to stay as it is: each extent is hashed again, and the root over all of them is
// compared with the one that was found first. SQL text becomes a database first, in the helper process, in a file without a name.
// Thread safety: as PageFetcher.
#ifndef LITEFLEET_AGENT_RESTORE_SNAPSHOT_FILE_H_
#define LITEFLEET_AGENT_RESTORE_SNAPSHOT_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/whole_fetcher.h"
#include "common/io/file.h"

namespace litefleet::restore {

class SnapshotFile final : public WholeFetcher {
 public:
  // Where the database that SQL text describes is made.
  struct Room {
    std::string directory;
    io::DiskReserve reserve;  // stays free there
  };
  // Reads all of it once for its root digest. kInvalidArgument NOT_A_DATABASE: neither a database of whole pages nor text;
  // UNFINISHED_DATABASE: a -wal or -journal lies beside it, so that the file alone is not the state. kFailedPrecondition NOT_REGULAR_FILE.
  // Those of io::NamedFileError for --from. Of text those of dump::LoadProcess.
  static absl::StatusOr<std::unique_ptr<SnapshotFile>> Open(const std::string& path, const Room& room, const CancelToken& cancel);

  // Geometry and root; the caller adds the rest.
  v1::RestoreOrder Order() const;
  // It was text: the root is that of the database which was made of it here, and no snapshot's.
  bool loaded() const { return loaded_; }

  absl::Status Fetch(const std::string& operation_id, const v1::RestoreOrder& order, uint32_t first_extent, const CancelToken& cancel,
                     const std::function<absl::Status(const FetchedExtent&)>& sink) override;

 private:
  SnapshotFile(std::string path, io::UniqueFd fd, uint32_t page_size, uint32_t page_count)
      : path_(std::move(path)), fd_(std::move(fd)), page_size_(page_size), page_count_(page_count) {}

  const std::string path_;
  const io::UniqueFd fd_;
  const uint32_t page_size_;
  const uint32_t page_count_;
  bool loaded_ = false;
  format::RootDigest root_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_SNAPSHOT_FILE_H_
