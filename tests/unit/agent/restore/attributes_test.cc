// What a database that is replaced leaves to the new one: owner, mode, extended attributes, the label of SELinux.
#include <gmock/gmock.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include <string_view>
#include <vector>

#include "agent/restore/apply.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::string_view kOwn = "user.litefleet";
constexpr std::string_view kLabel = "security.selinux";

class AttributesTest : public RestoreFixture {
 protected:
  void SetUp() override {
    RestoreFixture::SetUp();
    Make(path_, "old", "wal", 100);
    MakeSnapshot("wal");
    order_.set_mode(v1::RESTORE_MODE_REPLACE);
  }
  bool Set(std::string_view name, std::string_view value) {
    return setxattr(path_.c_str(), std::string(name).c_str(), value.data(), value.size(), 0) == 0;
  }
  std::string Get(std::string_view name) {
    std::string value(256, '\0');
    const ssize_t size = getxattr(path_.c_str(), std::string(name).c_str(), value.data(), value.size());
    value.resize(size < 0 ? 0 : static_cast<size_t>(size));
    return value;
  }
};

TEST_F(AttributesTest, OwnerAndModeAreTheOldOnes) {
  ASSERT_EQ(chmod(path_.c_str(), 0640), 0);
  const bool root = geteuid() == 0;
  if (root) {
    ASSERT_EQ(chown(path_.c_str(), 1234, 2345), 0);
  }
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  struct stat st {};
  ASSERT_EQ(stat(path_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0640U);
  EXPECT_EQ(st.st_uid, root ? 1234U : geteuid());
  EXPECT_EQ(st.st_gid, root ? 2345U : getegid());
}

TEST_F(AttributesTest, AnAttributeIsKept) {
  if (!Set(kOwn, "kept")) GTEST_SKIP() << "the file system has no attributes of users";
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Get(kOwn), "kept");
  EXPECT_THAT(outcome.steps, Not(Contains(HasSubstr("could not be kept"))));
}

// Root may set it where no security module minds: then it is an attribute as any other.
TEST_F(AttributesTest, TheLabelIsKept) {
  const std::string label("system_u:object_r:mysqld_db_t:s0", 33);  // with its zero
  if (!Set(kLabel, label)) GTEST_SKIP() << "a label cannot be set here";
  const Outcome outcome = Run();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Get(kLabel), label);
}

TEST_F(AttributesTest, WhatCannotBeKeptIsTold) {
  if (!Set("security.litefleet", "lost")) GTEST_SKIP() << "an attribute that not everybody may set cannot be set here";
  Outcome outcome;
  std::thread without([&] {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2] = {};
    syscall(SYS_capget, &header, data);
    data[0].effective &= ~(1U << CAP_SYS_ADMIN);
    ASSERT_EQ(syscall(SYS_capset, &header, data), 0);
    outcome = Run();
  });
  without.join();
  ASSERT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(Label(path_), "new");
  EXPECT_EQ(Get("security.litefleet"), "");
  EXPECT_THAT(outcome.steps, Contains(HasSubstr("the attribute security.litefleet of the old file could not be kept")));
}

TEST_F(AttributesTest, WhatCannotBeListedIsNotDropped) {
  const auto place = TargetPlace::Resolve(path_);
  ASSERT_TRUE(place.ok()) << place.status();
  const auto fd = place->Open("new", O_RDWR | O_CREAT);
  ASSERT_TRUE(fd.ok()) << fd.status();
  std::vector<std::string> lost;
  EXPECT_TRUE(TakeOwnerOf(*place, place->name(), fd->get(), "new", lost).ok());
  // Its descriptor still leads to it, and its path does not.
  std::filesystem::rename(data_, folder_ + "/moved");
  const absl::Status failed = TakeOwnerOf(*place, place->name(), fd->get(), "new", lost);
  EXPECT_THAT(MessageOf(failed), HasSubstr("list the attributes of"));
  EXPECT_TRUE(lost.empty());
}

}  // namespace
}  // namespace litefleet::restore
