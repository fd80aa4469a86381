// The answers of an upload that the controller makes itself, of a file that an operator brought: what it stores is no backup.
//
// The upload session asks its sink: a device has no word for this, so nothing that comes over the wire can be taken for an import.
// Thread safety, ownership: as UploadSink.
#ifndef LITEFLEET_CONTROLLER_INGEST_IMPORT_SINK_H_
#define LITEFLEET_CONTROLLER_INGEST_IMPORT_SINK_H_

#include <string>

#include "controller/ingest/ingest.h"

namespace litefleet::ingest {

class ImportSink : public UploadSink {
 public:
  // What file it was, and who brought it; for people, not empty. Constant. Its times are the controller's, and IngestDeps::on_committed is
  // not told of the snapshot.
  virtual const std::string& provenance() const = 0;
};

}  // namespace litefleet::ingest

#endif  // LITEFLEET_CONTROLLER_INGEST_IMPORT_SINK_H_
