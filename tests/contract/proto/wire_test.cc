// The wire's contract: naming rules, the table of who may call what, and a golden dump, so that no change goes unseen.
//
// After a change that is meant: LITEFLEET_UPDATE_GOLDEN=1 build/dev/tests/contract_proto_test, and look at the difference. Fields are only
// added, numbers never reused.
#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "controller/rpc/auth.h"
#include "litefleet/v1/admin_import.pb.h"
#include "litefleet/v1/admin_service.pb.h"
#include "litefleet/v1/agent_service.pb.h"

namespace litefleet {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using google::protobuf::MethodDescriptor;

// The files of the wire: those with services, and what they import of ours.
std::vector<const FileDescriptor*> Files() {
  std::vector<const FileDescriptor*> files = {v1::Hello::descriptor()->file(), v1::ListDevicesRequest::descriptor()->file(),
                                              v1::ImportBegin::descriptor()->file()};
  for (size_t i = 0; i < files.size(); ++i) {
    for (int d = 0; d < files[i]->dependency_count(); ++d) {
      const FileDescriptor* file = files[i]->dependency(d);
      if (file->package() == "litefleet.v1" && std::find(files.begin(), files.end(), file) == files.end()) files.push_back(file);
    }
  }
  std::sort(files.begin(), files.end(), [](const FileDescriptor* a, const FileDescriptor* b) { return a->name() < b->name(); });
  return files;
}

void ForEachMethod(const std::function<void(const MethodDescriptor&)>& visit) {
  for (const FileDescriptor* file : Files()) {
    for (int s = 0; s < file->service_count(); ++s) {
      for (int m = 0; m < file->service(s)->method_count(); ++m) visit(*file->service(s)->method(m));
    }
  }
}

void ForEachEnum(const std::function<void(const EnumDescriptor&)>& visit) {
  for (const FileDescriptor* file : Files()) {
    for (int e = 0; e < file->enum_type_count(); ++e) visit(*file->enum_type(e));
    for (int m = 0; m < file->message_type_count(); ++m) {
      for (int e = 0; e < file->message_type(m)->enum_type_count(); ++e) visit(*file->message_type(m)->enum_type(e));
    }
  }
}

// With those of nested messages, and of the entries of maps.
void ForEachField(const std::function<void(const FieldDescriptor&)>& visit) {
  std::vector<const Descriptor*> messages;
  for (const FileDescriptor* file : Files()) {
    for (int m = 0; m < file->message_type_count(); ++m) messages.push_back(file->message_type(m));
  }
  for (size_t i = 0; i < messages.size(); ++i) {
    const Descriptor& message = *messages[i];
    for (int n = 0; n < message.nested_type_count(); ++n) messages.push_back(message.nested_type(n));
    for (int f = 0; f < message.field_count(); ++f) visit(*message.field(f));
  }
}

bool IsInteger(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 || field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 ||
         field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32 || field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64;
}

// Of integers: a word of the name is a unit, or what is counted, or says that it is a number that names something.
const std::set<std::string, std::less<>> kUnits = {"bytes",     "ms",        "count",   "pages",     "chunks",  "packs",
                                                   "snapshots", "manifests", "records", "databases", "devices", "operations",
                                                   "commits",   "uses",      "version", "id"};

// The others: a number in an order, a level, a rule's number of snapshots, what others define.
const std::set<std::string_view> kWithoutUnit = {"page_size",  // bytes, as SQLite calls it
                                                 "timeline",   "new_timeline",    "sequence",
                                                 "first_page", "first_extent",    "position",
                                                 "positions",  "known_positions", "policy_acknowledged",
                                                 "keep",       "keep_last",       "floor",
                                                 "taken",      "doubts",          "holds",
                                                 "code",       "exit_code",       "compression_level"};

std::vector<std::string> Words(const std::string& name) {
  std::vector<std::string> words;
  std::stringstream text(name);
  for (std::string word; std::getline(text, word, '_');) words.push_back(word);
  return words;
}

std::string UpperSnake(std::string_view camel) {
  std::string result;
  for (const char c : camel) {
    if (std::isupper(static_cast<unsigned char>(c)) && !result.empty()) result += '_';
    result += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return result;
}

bool IsLowerSnake(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::islower(c) || std::isdigit(c) || c == '_'; });
}

std::string MethodPath(const MethodDescriptor& method) { return "/" + method.service()->full_name() + "/" + method.name(); }

TEST(WireTest, EveryCallHasARequestAndAResponseOfItsName) {
  ForEachMethod([](const MethodDescriptor& method) {
    EXPECT_EQ(method.input_type()->name(), method.name() + "Request");
    EXPECT_EQ(method.output_type()->name(), method.name() + "Response");
  });
}

TEST(WireTest, EnumsBeginWithUnspecifiedAndCarryTheirName) {
  int enums = 0;
  ForEachEnum([&](const EnumDescriptor& type) {
    ++enums;
    const std::string prefix = UpperSnake(type.name()) + "_";
    EXPECT_EQ(type.FindValueByNumber(0)->name(), prefix + "UNSPECIFIED");
    for (int v = 0; v < type.value_count(); ++v) EXPECT_EQ(type.value(v)->name().rfind(prefix, 0), 0u) << type.value(v)->full_name();
  });
  EXPECT_GT(enums, 5);
}

TEST(WireTest, FieldsAreLowerSnakeAndUnitsAreNamed) {
  int integers = 0;
  std::set<std::string_view> used;
  ForEachField([&](const FieldDescriptor& field) {
    EXPECT_TRUE(IsLowerSnake(field.name())) << field.full_name();
    if (!IsInteger(field)) return;
    ++integers;
    if (const auto known = kWithoutUnit.find(field.name()); known != kWithoutUnit.end()) {
      used.insert(*known);
      return;
    }
    const std::vector<std::string> words = Words(field.name());
    const bool named = std::any_of(words.begin(), words.end(), [](const std::string& word) { return kUnits.contains(word); });
    EXPECT_TRUE(named) << field.full_name() << " is a number of what? Its name says the unit, or what is counted";
  });
  for (const FileDescriptor* file : Files()) EXPECT_EQ(file->package(), "litefleet.v1");
  EXPECT_GT(integers, 150);
  EXPECT_EQ(used, kWithoutUnit) << "listed, and no field";
}

TEST(WireTest, ListsArePaged) {
  ForEachMethod([](const MethodDescriptor& method) {
    if (method.name().rfind("List", 0) != 0) return;
    EXPECT_NE(method.input_type()->FindFieldByName("page_size"), nullptr) << method.full_name();
    EXPECT_NE(method.input_type()->FindFieldByName("page_token"), nullptr) << method.full_name();
    EXPECT_NE(method.output_type()->FindFieldByName("next_page_token"), nullptr) << method.full_name();
  });
}

TEST(WireTest, EveryCallIsInTheTableOfRolesAndOnlyEnrolmentIsForNobody) {
  std::map<rpc::Role, int> counts;
  ForEachMethod([&](const MethodDescriptor& method) {
    const auto role = rpc::RequiredRole(MethodPath(method));
    ASSERT_TRUE(role.ok()) << method.full_name();
    ++counts[*role];
    if (method.service()->name() != "AgentService") {
      // Looking is for viewers too. What changes anything, or hands out what is in a backup, is not.
      const std::string& name = method.name();
      const bool looks = name.rfind("Get", 0) == 0 || name.rfind("List", 0) == 0 || name == "RunDoctor" || name == "PlanRestore" ||
                         name == "PlanUndo" || name == "WatchOperation";
      EXPECT_EQ(*role, looks ? rpc::Role::kViewer : rpc::Role::kOperator) << method.full_name();
    } else {
      EXPECT_EQ(*role, method.name() == "Enroll" ? rpc::Role::kNone : rpc::Role::kDevice) << method.full_name();
    }
  });
  EXPECT_EQ(counts[rpc::Role::kNone], 1);
  EXPECT_TRUE(rpc::Suffices(rpc::Role::kOperator, rpc::Role::kViewer));
  EXPECT_FALSE(rpc::Suffices(rpc::Role::kViewer, rpc::Role::kOperator));
  for (const rpc::Role role : {rpc::Role::kNone, rpc::Role::kViewer, rpc::Role::kOperator}) {
    EXPECT_FALSE(rpc::Suffices(rpc::Role::kDevice, role) && role != rpc::Role::kDevice);
    EXPECT_FALSE(rpc::Suffices(role, rpc::Role::kDevice));
  }
  EXPECT_EQ(*rpc::RequiredRole("/grpc.health.v1.Health/Check"), rpc::Role::kNone);
  for (const char* unknown : {"", "/", "/litefleet.v1.AdminService/", "/litefleet.v1.AdminService/Nothing",
                              "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"}) {
    EXPECT_EQ(rpc::RequiredRole(unknown).status().code(), absl::StatusCode::kPermissionDenied) << unknown;
  }
}

TEST(WireTest, AgentsHaveNoVerbThatDeletesOrOverwrites) {
  const auto* service = v1::Hello::descriptor()->file()->FindServiceByName("AgentService");
  for (int m = 0; m < service->method_count(); ++m) {
    for (const char* verb : {"Delete", "Remove", "Prune", "Overwrite", "Put", "Forget"}) {
      EXPECT_EQ(service->method(m)->name().find(verb), std::string::npos) << service->method(m)->name();
    }
  }
}

TEST(WireTest, EveryFileIsLookedAt) {
  std::vector<std::string> names;
  for (const FileDescriptor* file : Files()) names.push_back(file->name());
  std::vector<std::string> there;
  for (const auto& entry : std::filesystem::directory_iterator(PROTO_DIRECTORY))
    there.push_back("litefleet/v1/" + entry.path().filename().string());
  std::sort(there.begin(), there.end());
  EXPECT_EQ(names, there);
}

TEST(WireTest, IsWhatTheGoldenDumpSays) {
  std::string dump;
  for (const FileDescriptor* file : Files()) dump += "// " + file->name() + "\n" + file->DebugString() + "\n";
  if (getenv("LITEFLEET_UPDATE_GOLDEN") != nullptr) {
    std::ofstream(GOLDEN_FILE) << dump;
    return;
  }
  std::ifstream file(GOLDEN_FILE);
  std::stringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(golden.str(), dump) << "the wire has changed; see the head of this test";
}

}  // namespace
}  // namespace litefleet
