// An archive of plain files that lies on this device, as a restore takes it: `litefleet snapshot download` of a [[files]], carried here.
//
// It is cut into segments as the device does it that backs files up, so the root digest is the snapshot's. The file is read twice, and has
// to stay as it is: the root over what is read the second time is compared with the one that was found first. What the archive holds is
// judged where it is unpacked. Thread safety: as PageFetcher. Memory: a segment, an extent, 32 bytes for each 256 KiB.
#ifndef LITEFLEET_AGENT_RESTORE_ARCHIVE_FILE_H_
#define LITEFLEET_AGENT_RESTORE_ARCHIVE_FILE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/restore/whole_fetcher.h"
#include "common/format/segment.h"
#include "common/io/file.h"

namespace litefleet::restore {

class ArchiveFile final : public WholeFetcher {
 public:
  // Reads all of it once for its root digest. kInvalidArgument NOT_AN_ARCHIVE; kFailedPrecondition NOT_REGULAR_FILE; those of
  // io::NamedFileError for --from; kCancelled CANCELLED.
  static absl::StatusOr<std::unique_ptr<ArchiveFile>> Open(const std::string& path, const CancelToken& cancel);

  // Content, geometry and root; the caller adds the rest.
  v1::RestoreOrder Order() const;

  absl::Status Fetch(const std::string& operation_id, const v1::RestoreOrder& order, uint32_t first_extent, const CancelToken& cancel,
                     const std::function<absl::Status(const FetchedExtent&)>& sink) override;

 private:
  ArchiveFile(std::string path, io::UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  // All of the file; `writer` is finished then.
  absl::Status Read(format::SegmentWriter& writer, const CancelToken& cancel,
                    absl::FunctionRef<absl::Status(const format::SegmentWriter::Segment&)> segment) const;

  const std::string path_;
  const io::UniqueFd fd_;
  uint32_t page_count_ = 0;
  format::RootDigest root_;
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_AGENT_RESTORE_ARCHIVE_FILE_H_
