#include "controller/imports/foreign_file.h"

#include <gtest/gtest.h>

#include <string>

#include "common/base/status.h"
#include "common/format/sha256_stream.h"

namespace litefleet::imports {
namespace {

std::string Header(uint32_t page_size, uint32_t pages, uint8_t version = 1) {
  std::string header(100, '\0');
  header.replace(0, 16, std::string("SQLite format 3\0", 16));
  header[16] = static_cast<char>(page_size >> 8);
  header[17] = static_cast<char>(page_size == 65536 ? 1 : page_size & 0xff);
  header[18] = header[19] = static_cast<char>(version);
  for (int i = 0; i < 4; ++i) header[28 + i] = static_cast<char>(pages >> (24 - 8 * i));
  return header;
}

std::string ReasonFor(const std::string& head, uint64_t bytes) { return ReasonOf(Recognise(AsBytes(head), bytes).status()); }

TEST(ForeignFileTest, ADatabaseIsKnownByItsHeader) {
  for (const uint32_t size : {512u, 4096u, 32768u, 65536u}) {
    const auto file = Recognise(AsBytes(Header(size == 65536 ? 65536 : size, 3)), uint64_t{size} * 3);
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_FALSE(file->sql);
    EXPECT_EQ(file->page_size, size);
    EXPECT_EQ(file->page_count, 3u);
    EXPECT_EQ(file->journal_mode, v1::JOURNAL_MODE_ROLLBACK);
  }
  EXPECT_EQ(Recognise(AsBytes(Header(4096, 1, 2)), 4096)->journal_mode, v1::JOURNAL_MODE_WAL);
}

TEST(ForeignFileTest, TheHeadersSizeCountsWhereItIsValid) {
  std::string header = Header(4096, 2);
  EXPECT_EQ(Recognise(AsBytes(header), 4096 * 5)->page_count, 2u);  // SQLite passes over what is behind
  header[24] = 1;                                                   // written by a version that did not keep it
  EXPECT_EQ(Recognise(AsBytes(header), 4096 * 5)->page_count, 5u);
  EXPECT_EQ(Recognise(AsBytes(Header(4096, 0)), 4096 * 5)->page_count, 5u);
}

TEST(ForeignFileTest, WhatIsNoWholeDatabaseIsSaid) {
  EXPECT_EQ(ReasonFor(Header(4096, 3), 4096 * 2), "IMPORT_TRUNCATED");
  EXPECT_EQ(ReasonFor(Header(4096, 3), 4096 * 3 - 1), "IMPORT_TRUNCATED");
  EXPECT_EQ(ReasonFor(Header(4096, 1).substr(0, 99), 99), "IMPORT_TRUNCATED");
  EXPECT_EQ(ReasonFor(Header(4096, 1), 512), "IMPORT_TRUNCATED");
  EXPECT_EQ(ReasonFor(Header(4095, 1), 4095), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor(Header(0, 1), 4096), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor(Header(512, 0), uint64_t{512} * 0xffffffff), "IMPORT_NOT_A_DATABASE");
}

TEST(ForeignFileTest, WhatIsNeitherIsSaid) {
  EXPECT_EQ(ReasonFor("", 0), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor(std::string(4096, '\0'), 4096), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor("\x1f\x8b\x08 and so on", 100), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor("PK\x03\x04zip", 100), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor(std::string("\xff\xfe"
                                  "C\0R\0",
                                  6),
                      6),
            "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor(std::string("ZV-zlib") + std::string(4089, '\0'), 4096), "IMPORT_NOT_A_DATABASE");
  EXPECT_EQ(ReasonFor(std::string("\x37\x7f\x06\x82", 4) + std::string(28, '\0'), 32), "IMPORT_NOT_A_DATABASE");
  std::string random;
  uint32_t state = 1;
  while (random.size() < 8192) {
    state = state * 1664525 + 1013904223;
    random += static_cast<char>(state >> 24);
  }
  EXPECT_EQ(ReasonFor(random, random.size()), "IMPORT_ENCRYPTED");
  EXPECT_EQ(ReasonFor(random, random.size() + 1), "IMPORT_NOT_A_DATABASE");  // no pages
}

TEST(ForeignFileTest, TextWithoutNulsIsSql) {
  const auto text = Recognise(AsBytes(std::string_view("-- an application's schema\nCREATE TABLE t(a);")), 45);
  ASSERT_TRUE(text.ok());
  EXPECT_TRUE(text->sql);
  EXPECT_EQ(text->skip, 0u);
  EXPECT_EQ(Recognise(AsBytes(std::string_view("\xef\xbb\xbf"
                                               "CREATE TABLE t(a);")),
                      21)
                ->skip,
            3u);
}

TEST(Sha256StreamTest, IsThatOfAllPieces) {
  format::Sha256Stream pieces;
  for (const char* piece : {"a", "", "bc"}) pieces.Add(AsBytes(std::string_view(piece)));
  EXPECT_EQ(ToHex(pieces.Finish()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(ToHex(format::Sha256Stream().Finish()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace litefleet::imports
