// The databases that this process has open through UserDatabase, by file.
//
// POSIX locks belong to a process, so that the kernel's table does not tell its connections apart; this is the missing half. It is
// per process, as those locks are: the one piece of global state of this folder.
// Thread safety: all functions may be called from any thread.
#ifndef LITEFLEET_AGENT_CAPTURE_ATTACHMENTS_H_
#define LITEFLEET_AGENT_CAPTURE_ATTACHMENTS_H_

#include "agent/capture/lock_table.h"

namespace litefleet::capture {

// One connection, from construction to destruction.
class Attachment {
 public:
  explicit Attachment(FileId file);
  ~Attachment();
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;

  // Whether there are others besides this one.
  bool HasOthers() const;
  // This one closes without folding the WAL: whichever is the last of this process has to look after it.
  void LeaveWalToOthers();
  // Whether that was said of this file, once.
  bool TakeLeftWal();

 private:
  const FileId file_;
};

}  // namespace litefleet::capture

#endif  // LITEFLEET_AGENT_CAPTURE_ATTACHMENTS_H_
