include_guard()
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson>=2.13)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl>=7.88) # the first whose AWS signature takes a given digest
pkg_check_modules(CRYPTO REQUIRED IMPORTED_TARGET libcrypto>=1.1.1)
pkg_check_modules(AVRO REQUIRED IMPORTED_TARGET avro-c>=1.11)
pkg_check_modules(RDKAFKA REQUIRED IMPORTED_TARGET rdkafka>=2.0.2)
pkg_check_modules(PQ REQUIRED IMPORTED_TARGET libpq>=14)
pkg_check_modules(MICROHTTPD REQUIRED IMPORTED_TARGET libmicrohttpd>=0.9.70)
if(MODELFORGE_TESTS)
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka>=1.1.5)
endif()

# What every C file of the project is compiled with.
add_library(modelforge_flags INTERFACE)
target_compile_options(modelforge_flags INTERFACE
  -Wall -Wextra -Wconversion -Wshadow -Wvla -Wstrict-prototypes -Wmissing-prototypes
  -fno-omit-frame-pointer $<$<BOOL:${MODELFORGE_WERROR}>:-Werror>)
target_compile_definitions(modelforge_flags INTERFACE _GNU_SOURCE MF_VERSION="${PROJECT_VERSION}")
target_include_directories(modelforge_flags INTERFACE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
if(MODELFORGE_SANITIZE)
  target_compile_options(modelforge_flags INTERFACE -fsanitize=${MODELFORGE_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(modelforge_flags INTERFACE -fsanitize=${MODELFORGE_SANITIZE})
endif()

# modelforge_library(NAME SOURCES ... LINKS ...): a static library of one folder.
function(modelforge_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC modelforge_flags ${ARG_LINKS})
endfunction()

# modelforge_test(NAME SOURCES ... LINKS ... [LABELS ...] [TIMEOUT seconds]): one cmocka program, one ctest entry.
# The working directory is the source tree, so tests read their data as tests/...
function(modelforge_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LINKS} PkgConfig::CMOCKA)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
