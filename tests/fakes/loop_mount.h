// A file system of a kind that a test needs: a loop mount, where the machine allows one.
#ifndef LITEFLEET_TESTS_FAKES_LOOP_MOUNT_H_
#define LITEFLEET_TESTS_FAKES_LOOP_MOUNT_H_

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace litefleet {

struct FileSystemKind {
  std::string make;     // the program and its options
  std::string package;  // of Debian
  uint64_t mebibytes;   // of the image, which is sparse
};
// Shares blocks between files.
inline const FileSystemKind kXfs{"mkfs.xfs -q -m reflink=1", "xfsprogs", 400};
// Has subvolumes, each with a device of its own.
inline const FileSystemKind kBtrfs{"mkfs.btrfs -q", "btrfs-progs", 256};

class LoopMount {
 public:
  // Mounted on `directory`, which exists; its image is beside it. Where that is not allowed `why` says so.
  LoopMount(const std::string& directory, const FileSystemKind& kind) : directory_(directory) {
    const std::string image = directory + ".image";
    const std::string program = kind.make.substr(0, kind.make.find(' '));
    if (geteuid() != 0) {
      why_ = "only root mounts a file system";
    } else if (std::system(("command -v " + program + " >/dev/null").c_str()) != 0) {
      why_ = program + " is not installed (package " + kind.package + ")";
    } else {
      std::ofstream(image).flush();
      std::filesystem::resize_file(image, kind.mebibytes << 20);
      const bool made = std::system((kind.make + " '" + image + "' >/dev/null 2>&1").c_str()) == 0;
      mounted_ = made && std::system(("mount -o loop '" + image + "' '" + directory + "' 2>/dev/null").c_str()) == 0;
      if (!mounted_) why_ = "loop mounts are not allowed here, or the kernel does not know this file system";
    }
  }
  ~LoopMount() {
    if (mounted_) static_cast<void>(!std::system(("umount '" + directory_ + "'").c_str()));
    std::error_code ignored;
    std::filesystem::remove(directory_ + ".image", ignored);
  }
  LoopMount(const LoopMount&) = delete;
  LoopMount& operator=(const LoopMount&) = delete;

  bool mounted() const { return mounted_; }
  const std::string& why() const { return why_; }
  const std::string& directory() const { return directory_; }

 private:
  const std::string directory_;
  bool mounted_ = false;
  std::string why_;
};

}  // namespace litefleet

#endif  // LITEFLEET_TESTS_FAKES_LOOP_MOUNT_H_
