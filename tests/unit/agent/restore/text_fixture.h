// Snapshots that are SQL text.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_RESTORE_TEXT_FIXTURE_H_
#define LITEFLEET_TESTS_UNIT_AGENT_RESTORE_TEXT_FIXTURE_H_

#include <fstream>
#include <optional>
#include <string>

#include "common/format/segment.h"
#include "tests/unit/agent/restore/restore_fixture.h"

namespace litefleet::restore {

class TextFixture : public RestoreFixture {
 protected:
  // What RestoreFixture::Make makes.
  static std::string Text(const std::string& label, int rows = 3000) {
    std::string text = fmt::format(
        "PRAGMA foreign_keys=OFF;\nBEGIN TRANSACTION;\nCREATE TABLE label(v);\nINSERT INTO label VALUES('{}');\nCREATE TABLE log(n);\n"
        "CREATE TABLE t(id integer primary key, v blob);\n",
        label);
    for (int i = 1; i <= rows; ++i) text += fmt::format("INSERT INTO t VALUES({},'{}{:0150}');\n", i, label, i);
    return text + "CREATE INDEX tv on t(v);\nCOMMIT;\n";
  }
  void MakeTextSnapshot(const std::string& text) {
    format::SegmentWriter writer(format::Content::kSql);
    ASSERT_TRUE(writer.Add(AsBytes(text)).ok());
    ASSERT_TRUE(writer.Finish().ok());
    std::ofstream file(fetcher_.path, std::ios::binary | std::ios::trunc);
    while (std::optional<format::SegmentWriter::Segment> segment = writer.Take()) file << AsText(segment->pages);
    file.close();
    order_.Clear();
    order_.set_database("app");
    order_.set_snapshot_id("01JD00000000000000000000S1");
    order_.set_content(v1::SNAPSHOT_CONTENT_SQL);
    order_.set_page_size(512);
    order_.set_page_count(writer.page_count());
    order_.set_root_version(format::kRootVersion);
    order_.set_root_digest(std::string(writer.Root().AsString()));
    order_.set_new_timeline(2);
    order_.set_check_state(v1::CHECK_STATE_OK);
  }
};

}  // namespace litefleet::restore

#endif  // LITEFLEET_TESTS_UNIT_AGENT_RESTORE_TEXT_FIXTURE_H_
