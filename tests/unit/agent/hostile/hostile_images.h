// Damaged databases: real ones, made by SQL, that are flipped, cut, and overwritten where it hurts. The same seed gives the same images.
#ifndef LITEFLEET_TESTS_UNIT_AGENT_HOSTILE_HOSTILE_IMAGES_H_
#define LITEFLEET_TESTS_UNIT_AGENT_HOSTILE_HOSTILE_IMAGES_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "common/base/bytes.h"

namespace litefleet::hostile {

struct HostileImage {
  std::string name;  // kind, base, number
  std::string kind;  // what was damaged
  Bytes bytes;
  bool schema = false;  // its schema can ask SQLite for anything
};

class HostileImages {
 public:
  // `directory`: where the real ones are made.
  HostileImages(const std::string& directory, uint32_t seed);
  // Goes round kinds and bases.
  HostileImage Next();
  // How many kinds of damage times kinds of databases there are.
  int Combinations() const;

 private:
  struct Base {
    std::string name;
    std::string path;
    Bytes bytes;
    uint32_t page_size = 0;
    std::vector<uint32_t> trees;     // pages of b-trees, from 1
    std::vector<uint32_t> overflow;  // pages of overflow chains
  };
  using Damage = void (HostileImages::*)(const Base& base, Bytes& image);

  void AddBase(const std::string& name, const std::string& sql);
  uint32_t Random(uint32_t below) { return static_cast<uint32_t>(random_() % below); }
  // One that parsers trip over, or any.
  uint32_t OddNumber(const Base& base);
  void Put32(Bytes& image, size_t offset, uint32_t value);
  void Put16(Bytes& image, size_t offset, uint32_t value);

  void FlipBits(const Base& base, Bytes& image);
  void Cut(const Base& base, Bytes& image);
  void Grow(const Base& base, Bytes& image);
  void Header(const Base& base, Bytes& image);
  void TreeHeader(const Base& base, Bytes& image);
  void CellPointers(const Base& base, Bytes& image);
  void Cells(const Base& base, Bytes& image);
  void Children(const Base& base, Bytes& image);
  void FreeList(const Base& base, Bytes& image);
  void OverflowChain(const Base& base, Bytes& image);
  void SwapPages(const Base& base, Bytes& image);
  void ZeroPages(const Base& base, Bytes& image);
  void SchemaText(const Base& base, Bytes& image);
  // By SQL that rewrites sqlite_schema.
  void SchemaRows(const Base& base, Bytes& image);

  struct Kind {
    const char* name;
    Damage damage;
    bool schema;
  };
  static const std::vector<Kind>& Kinds();

  const std::string directory_;
  std::mt19937 random_;
  std::vector<Base> bases_;
  int next_ = 0;
};

}  // namespace litefleet::hostile

#endif  // LITEFLEET_TESTS_UNIT_AGENT_HOSTILE_HOSTILE_IMAGES_H_
