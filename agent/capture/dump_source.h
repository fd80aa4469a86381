// The `dump` method's source: a live database as SQL text, of one state, streamed (design section 5).
//
// The agent pins the state and reads its pages, as the reader engine does, with all that page_reader.h and online_source.h say of locks,
// limits and errors; SQLite's parser, for which the database is hostile input, runs in the helper process without rights and is handed the
// pages (common/dump). So the locks are those of the online method, and nothing of the schema is ever read here.
//
// Not for slow consumers: the transaction is pinned until the text has ended. How long it may be, and how far a WAL may grow meanwhile, is
// asked at least every 50 ms within Next, also where the helper reads no page. Thread safety: none. Memory: about 300 KiB here; the
// helper's is bounded by HelperOptions. Errors: those of online_source.h and common/dump/dump_process.h.
#ifndef LITEFLEET_AGENT_CAPTURE_DUMP_SOURCE_H_
#define LITEFLEET_AGENT_CAPTURE_DUMP_SOURCE_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/capture/online_source.h"
#include "agent/capture/page_source.h"
#include "common/base/bytes.h"
#include "common/dump/dump_process.h"

namespace litefleet::capture {

class TextSource {
 public:
  virtual ~TextSource() = default;
  // Of the database that is read.
  virtual const SourceInfo& info() const = 0;
  // The next piece, valid until the next call; empty at the end, which is good only then. Locks go before the end is told.
  virtual absl::StatusOr<ByteView> Next() = 0;
  // Lets go of every lock; idempotent.
  virtual absl::Status Close() = 0;
  virtual const std::string& damage() const = 0;
  virtual std::chrono::nanoseconds pinned_for() const = 0;
  virtual int64_t read_bytes() const = 0;
  // At the end: what whoever restores the text should know; empty: nothing.
  virtual std::string note() const { return {}; }
};

// Pins the state. REQUIRES: options.clock is set. `helper.cancelled` is options.cancelled, whatever it was.
absl::StatusOr<std::unique_ptr<TextSource>> OpenDumpSource(const OnlineOptions& options, const dump::DumpOptions& what,
                                                           dump::HelperOptions helper = {});

// What the helper said of the text, as TextSource::note; empty where it said nothing.
std::string NoteOfText(const std::string& said);
// Of a database whose pages are encrypted behind a readable header: there is no text of it.
absl::Status EncryptedError(const std::string& path);

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_DUMP_SOURCE_H_
