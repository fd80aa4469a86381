#include "controller/retention/export_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/status.h"
#include "controller/retention/policy.h"

namespace litefleet::retention {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const std::string& text) { return MessageOf(ParsePolicy(text, "policy.toml").status()); }

TEST(ExportRuleTest, IsReadWithItsDefaults) {
  const std::string all = "name = \"p\"\n[export]\nformat = \"sql\"\nevery = \"6h\"\nkeep = 3\ndatabases = [\"orders\", \"log\"]\n";
  ASSERT_TRUE(ParsePolicy(all, "p").ok());
  const auto rule = ExportRuleOf(all);
  ASSERT_TRUE(rule.ok() && rule->has_value());
  EXPECT_FALSE((*rule)->csv);
  EXPECT_EQ((*rule)->every, std::chrono::hours(6));
  EXPECT_EQ((*rule)->keep, 3);
  EXPECT_EQ((*rule)->databases, (std::vector<std::string>{"orders", "log"}));
  const auto least = ExportRuleOf("name = \"p\"\n[export]\n");
  ASSERT_TRUE(least.ok() && least->has_value());
  EXPECT_TRUE((*least)->csv);
  EXPECT_EQ((*least)->every, std::chrono::hours(24));
  EXPECT_EQ((*least)->keep, 7);
  EXPECT_TRUE(ParsePolicy("name = \"p\"\n[export]\n", "p").ok()) << "a policy may say nothing else";
  EXPECT_FALSE(ExportRuleOf("name = \"p\"\n[retention]\nkeep_last = 1\n")->has_value());
}

TEST(ExportRuleTest, WhatIsWrongIsSaid) {
  EXPECT_THAT(ErrorOf("name = \"p\"\n[export]\nformat = \"xml\"\n"), HasSubstr("csv"));
  EXPECT_THAT(ErrorOf("name = \"p\"\n[export]\nkeep = 0\n"), HasSubstr("keep"));
  EXPECT_THAT(ErrorOf("name = \"p\"\n[export]\nevery = \"-1h\"\n"), HasSubstr("every"));
  EXPECT_THAT(ErrorOf("name = \"p\"\n[export]\ndatabases = []\n"), HasSubstr("no database"));
  EXPECT_THAT(ErrorOf("name = \"p\"\n[export]\ndatabases = [\"../x\"]\n"), HasSubstr("not a name"));
  // Where it goes is the controller's own business.
  EXPECT_THAT(ErrorOf("name = \"p\"\n[export]\ndirectory = \"/etc\"\n"), HasSubstr("directory"));
}

}  // namespace
}  // namespace litefleet::retention
