// A database as text (SQL, CSV), and SQL text as a database, by way of the unprivileged helper process (design law 12): SQLite reads what
// is foreign there, and nowhere else.
//
// Thread safety: none of the objects; calls block. A cancel is seen within 50 ms. Bounds: 128 KiB here; memory, time and file size of the
// helper.
//
// Errors (reason, code):
//   DATABASE_DAMAGED     kDataLoss            SQLite's words
//   TABLE_NOT_FOUND      kNotFound            a table is not there; some of those that there are
//   DUMP_REFUSED         kFailedPrecondition  a table cannot be read without its application, or is nothing by itself (a view)
//   LOAD_REFUSED         kFailedPrecondition  a statement needs what is not here, or is none
//   FOREIGN_KEYS_BROKEN  kFailedPrecondition  rows would lose the parents that their foreign keys name
//   LOAD_DAMAGED         kDataLoss            the text breaks a constraint, or ends before its end
//   DUMP_FAILED, LOAD_FAILED  kResourceExhausted  a limit
//   DUMP_TIMEOUT, LOAD_TIMEOUT  kDeadlineExceeded
//   CHECK_HELPER_FAILED  kInternal
//   CANCELLED            kCancelled
#ifndef LITEFLEET_COMMON_DUMP_DUMP_PROCESS_H_
#define LITEFLEET_COMMON_DUMP_DUMP_PROCESS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/base/bytes.h"
#include "common/check/helper_answer.h"
#include "common/check/helper_process.h"
#include "common/dump/dump_options.h"
#include "common/dump/merge_options.h"

namespace litefleet::dump {

struct HelperOptions {
  std::string helper;  // empty: check::FindHelper()
  // Of the helper: SQLite's heap, and the largest row, text or blob.
  int64_t heap_bytes = 384 << 20;
  int64_t length_bytes = 128 << 20;
  std::chrono::seconds time{0};     // 0: by the size
  std::function<bool()> cancelled;  // asked at least every 50 ms in what blocks; may be empty
};

// Where a database is that is dumped: a descriptor of a file that does not change, or whoever reads it.
struct DumpSource {
  int fd = -1;
  uint64_t bytes = 0;
  // Fills `out` with what is at `offset`, within `bytes`; its error ends the dump.
  std::function<absl::Status(uint64_t offset, std::span<std::byte> out)> read;
};

// A file without a name, to read and write, which goes with its descriptor.
absl::StatusOr<io::UniqueFd> TemporaryFile(const std::string& directory);

class DumpProcess {
 public:
  static absl::StatusOr<std::unique_ptr<DumpProcess>> Sql(const HelperOptions& options, DumpSource source, const DumpOptions& what);
  // What LoadProcess::StartMerge takes.
  static absl::StatusOr<std::unique_ptr<DumpProcess>> Part(const HelperOptions& options, DumpSource source,
                                                           const std::vector<std::string>& tables);
  static absl::StatusOr<std::unique_ptr<DumpProcess>> Csv(const HelperOptions& options, DumpSource source, const std::string& table);
  // As WriteTableNames has them.
  static absl::StatusOr<std::unique_ptr<DumpProcess>> Tables(const HelperOptions& options, DumpSource source);

  // The next piece, valid until the next call; empty at the end, which is good only then. Whoever calls must come back soon: the helper
  // waits with its database open.
  absl::StatusOr<ByteView> Next();
  // After a good end of Sql: why nobody but the database's application can load the text, a statement and SQLite's words; empty where
  // nothing is known of that.
  std::string said() const { return answer_.Text(); }
  // Bytes that were read of the database, where `read` reads it.
  uint64_t read_bytes() const { return read_bytes_; }

 private:
  DumpProcess(const HelperOptions& options, DumpSource source, std::chrono::seconds time);
  static absl::StatusOr<std::unique_ptr<DumpProcess>> Start(const HelperOptions& options, DumpSource source,
                                                            std::vector<std::string> words);
  absl::Status Serve();
  absl::Status TakeAnswers();
  absl::Status Verdict();

  const HelperOptions options_;
  const DumpSource source_;
  const std::chrono::steady_clock::time_point deadline_;
  std::unique_ptr<check::HelperProcess> process_;
  int text_ = -1, answers_ = -1, channel_ = -1;  // of the process
  check::HelperAnswer answer_;
  Bytes piece_;
  Bytes page_;
  uint64_t read_bytes_ = 0;
  bool ended_ = false;
};

class LoadProcess {
 public:
  // `database`: an empty file, open for reading and writing, which stays the caller's; it is worthless until Finish was good. `scratch`: a
  // directory for temporary files (indexes are sorted there). `most_bytes`: of the database. `text_bytes`: about, for the time limit.
  static absl::StatusOr<std::unique_ptr<LoadProcess>> Start(const HelperOptions& options, int database, const std::string& scratch,
                                                            int64_t most_bytes, int64_t text_bytes);
  // Replaces tables of the database behind `database`, which is no empty file here.
  static absl::StatusOr<std::unique_ptr<LoadProcess>> StartMerge(const HelperOptions& options, int database, const std::string& scratch,
                                                                 int64_t most_bytes, int64_t text_bytes, const MergeOptions& merge);
  // Text in pieces. An error is final.
  absl::Status Write(ByteView text);
  // All text was written; waits for the end.
  absl::Status Finish();
  // After a good end: what a merge has changed besides rows; may be empty.
  std::string said() const { return answer_.Text(); }

 private:
  LoadProcess(const HelperOptions& options, std::chrono::seconds time);
  static absl::StatusOr<std::unique_ptr<LoadProcess>> StartAs(const HelperOptions& options, int database, const std::string& scratch,
                                                              int64_t most_bytes, int64_t text_bytes, const MergeOptions* merge);
  absl::Status Wait(bool to_write);
  absl::Status Verdict();

  const HelperOptions options_;
  const std::chrono::steady_clock::time_point deadline_;
  std::unique_ptr<check::HelperProcess> process_;
  io::UniqueFd text_;
  int answers_ = -1;  // of the process
  check::HelperAnswer answer_;
  bool answered_ = false;  // the helper has said its last word
};

}  // namespace litefleet::dump

#endif  // LITEFLEET_COMMON_DUMP_DUMP_PROCESS_H_
