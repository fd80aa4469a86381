#include "common/dump/shadows.h"

#include <utility>
#include <vector>

#include "common/dump/query.h"

namespace litefleet::dump {

// Their names begin with that of the virtual table, and the longest is the one. Whether a table is one SQLite says where it has the module;
// of a module that is not here the names have to do.
Ended FindShadows(sqlite3* db, Shadows& shadows) {
  std::vector<std::string> owners, others;
  // These modules show what others hold, and have no tables.
  Query tables(db,
               "select name, substr(sql, 1, 20) = 'CREATE VIRTUAL TABLE' from sqlite_schema where type = 'table' and sql not null and not "
               "(substr(sql, 1, 20) = 'CREATE VIRTUAL TABLE' and (sql like '%using fts5vocab%' or sql like '%using fts4aux%'))");
  while (tables.Step()) (tables.Int(1) != 0 ? owners : others).emplace_back(tables.Text(0));
  if (!tables.ok() || owners.empty()) return tables.Result("the schema");
  Names told;
  Query list(db, "select name from pragma_table_list where schema = 'main' and type = 'shadow'");
  while (list.Step()) told.insert(std::string(list.Text(0)));
  if (!list.ok()) return list.Result("the schema");
  Names tells;  // virtual tables whose shadows SQLite knows
  for (const std::string& table : others) {
    const std::string* longest = nullptr;
    for (const std::string& owner : owners) {
      const bool fits = table.size() > owner.size() + 1 && table[owner.size()] == '_' &&
                        sqlite3_strnicmp(table.c_str(), owner.c_str(), static_cast<int>(owner.size())) == 0;
      if (fits && (longest == nullptr || owner.size() > longest->size())) longest = &owner;
    }
    if (longest == nullptr) continue;
    shadows[table] = *longest;
    if (told.contains(table)) tells.insert(*longest);
  }
  std::erase_if(shadows, [&](const auto& each) { return tells.contains(each.second) && !told.contains(each.first); });
  return {};
}

Ended CheckWhole(const Shadows& shadows, const Names& names) {
  for (const std::string& name : names) {
    const auto chosen = shadows.find(name);
    if (chosen == shadows.end()) continue;
    std::string missing;
    for (const auto& [shadow, owner] : shadows) {
      if (sqlite3_stricmp(owner.c_str(), chosen->second.c_str()) == 0 && !names.contains(shadow))
        missing += (missing.empty() ? "" : ", ") + shadow;
    }
    if (missing.empty()) continue;
    return {End::kNoPart, "table " + name + " is a part of the virtual table " + chosen->second + ", and " + missing +
                              (missing.find(',') == std::string::npos ? " is" : " are") + " not chosen with it"};
  }
  return {};
}

}  // namespace litefleet::dump
