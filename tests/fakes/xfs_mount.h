// A file system that shares blocks between files: a loop mount of XFS, where the machine allows one.
#ifndef LITEFLEET_TESTS_FAKES_XFS_MOUNT_H_
#define LITEFLEET_TESTS_FAKES_XFS_MOUNT_H_

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace litefleet {

class XfsMount {
 public:
  // Mounted on `directory`, which exists; its image is beside it. Where that is not allowed `why` says so.
  explicit XfsMount(const std::string& directory) : directory_(directory) {
    const std::string image = directory + ".image";
    if (geteuid() != 0) {
      why_ = "only root mounts a file system";
    } else if (std::system("command -v mkfs.xfs >/dev/null") != 0) {
      why_ = "mkfs.xfs is not installed (package xfsprogs)";
    } else {
      std::ofstream(image).flush();
      std::filesystem::resize_file(image, uint64_t{400} << 20);
      const bool made = std::system(("mkfs.xfs -q -m reflink=1 '" + image + "' 2>/dev/null").c_str()) == 0;
      mounted_ = made && std::system(("mount -o loop '" + image + "' '" + directory + "' 2>/dev/null").c_str()) == 0;
      if (!mounted_) why_ = "loop mounts are not allowed here";
    }
  }
  ~XfsMount() {
    if (mounted_) static_cast<void>(!std::system(("umount '" + directory_ + "'").c_str()));
    std::error_code ignored;
    std::filesystem::remove(directory_ + ".image", ignored);
  }
  XfsMount(const XfsMount&) = delete;
  XfsMount& operator=(const XfsMount&) = delete;

  bool mounted() const { return mounted_; }
  const std::string& why() const { return why_; }
  const std::string& directory() const { return directory_; }

 private:
  const std::string directory_;
  bool mounted_ = false;
  std::string why_;
};

}  // namespace litefleet

#endif  // LITEFLEET_TESTS_FAKES_XFS_MOUNT_H_
