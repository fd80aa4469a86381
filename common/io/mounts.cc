#include "common/io/mounts.h"

#include <sys/sysmacros.h>

#include <algorithm>
#include <sstream>
#include <string_view>

#include "fmt/format.h"

namespace litefleet::io {
namespace {

constexpr std::string_view kRemote[] = {"fuse.ceph",    "fuse.ceph-fuse",   "fuse.cephfs", "fuse.curlftpfs", "fuse.davfs2",
                                        "fuse.gcsfuse", "fuse.glusterfs",   "fuse.goofys", "fuse.juicefs",   "fuse.mfs",
                                        "fuse.moosefs", "fuse.nfs-ganesha", "fuse.rclone", "fuse.s3fs",      "fuse.smbnetfs",
                                        "fuse.sshfs",   "fuse.vmhgfs-fuse"};

}  // namespace

std::string NetworkFuseType(std::istream& mountinfo, dev_t device) {
  const std::string wanted = fmt::format("{}:{}", major(device), minor(device));
  for (std::string line; std::getline(mountinfo, line);) {
    std::istringstream words(line);
    std::string id, parent, number, word, type;
    words >> id >> parent >> number;
    if (number != wanted) continue;
    // Optional fields, as many as there are, end with a lone "-".
    while (words >> word && word != "-") {}
    if (words >> type) return std::ranges::find(kRemote, type) == std::end(kRemote) ? std::string() : type;
  }
  return {};
}

}  // namespace litefleet::io
