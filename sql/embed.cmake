# cmake -DFOLDER=sql -DOUTPUT=dir -P embed.cmake: turns queries/NAME.sql into `enum mf_query` (queries.h, MF_QUERY_NAME)
# with their texts (queries.c), and migrations/NNNN_NAME.sql into the table of migrations.c.
cmake_policy(VERSION 3.24)

# The file's text as C string literals, one a line.
function(c_literal file result)
  file(READ "${file}" text)
  string(REPLACE "\\" "\\\\" text "${text}")
  string(REPLACE "\"" "\\\"" text "${text}")
  string(REPLACE "\n" "\\n\"\n     \"" text "${text}")
  set(${result} "\"${text}\"" PARENT_SCOPE)
endfunction()

function(write_if_different file text)
  file(WRITE "${file}.new" "${text}")
  file(COPY_FILE "${file}.new" "${file}" ONLY_IF_DIFFERENT)
  file(REMOVE "${file}.new")
endfunction()

file(GLOB queries "${FOLDER}/queries/*.sql")
list(SORT queries)
set(names "")
set(texts "")
foreach(file IN LISTS queries)
  get_filename_component(name "${file}" NAME_WE)
  string(TOUPPER "${name}" constant)
  c_literal("${file}" literal)
  string(APPEND names "    MF_QUERY_${constant},\n")
  string(APPEND texts "    {\"${name}\",\n     ${literal}},\n")
endforeach()
write_if_different("${OUTPUT}/queries.h" "/* Made from sql/queries/ by sql/embed.cmake. */
#ifndef MF_SQL_QUERIES_H
#define MF_SQL_QUERIES_H

enum mf_query {
${names}    MF_QUERY_COUNT
};

struct mf_query_text {
    const char *name, *sql;
};
extern const struct mf_query_text mf_query_texts[MF_QUERY_COUNT];

#endif
")
write_if_different("${OUTPUT}/queries.c" "/* Made from sql/queries/ by sql/embed.cmake. */
#include \"sql/queries.h\"

const struct mf_query_text mf_query_texts[MF_QUERY_COUNT] = {
${texts}};
")

file(GLOB migrations "${FOLDER}/migrations/*.sql")
list(SORT migrations)
set(rows "")
set(expected 0)
foreach(file IN LISTS migrations)
  get_filename_component(name "${file}" NAME_WE)
  string(REGEX MATCH "^[0-9][0-9][0-9][0-9]" number "${name}")
  math(EXPR version "1${number} - 10000")
  if(NOT version EQUAL expected) # a database would never get one of two with the same number
    message(FATAL_ERROR "${name}: migrations are numbered without a gap, and each number once: ${expected} is next")
  endif()
  math(EXPR expected "${expected} + 1")
  c_literal("${file}" literal)
  string(APPEND rows "    {${version}, \"${name}\",\n     ${literal}},\n")
endforeach()
write_if_different("${OUTPUT}/migrations.c" "/* Made from sql/migrations/ by sql/embed.cmake. */
#include \"sql/migrations.h\"

const struct mf_migration mf_migrations[] = {
${rows}};
const int mf_migration_count = (int)(sizeof mf_migrations / sizeof *mf_migrations);
")
