# Libraries that clm stands on; each is installed by scripts/install-packages.sh.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(JANSSON REQUIRED IMPORTED_TARGET jansson)
add_library(clm_dependencies INTERFACE)
target_link_libraries(clm_dependencies INTERFACE PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::JANSSON
                      Threads::Threads m)

# The line editor of `clm chat`, for the command alone; without it lines are read as they come. The
# libedit of macOS has no pkg-config file.
pkg_check_modules(LIBEDIT QUIET IMPORTED_TARGET libedit)
if(LIBEDIT_FOUND)
  set(CLM_LIBEDIT PkgConfig::LIBEDIT)
else()
  find_library(LIBEDIT_LIBRARY edit)
  find_path(LIBEDIT_INCLUDE_DIR histedit.h)
  mark_as_advanced(LIBEDIT_LIBRARY LIBEDIT_INCLUDE_DIR)
  if(LIBEDIT_LIBRARY AND LIBEDIT_INCLUDE_DIR)
    add_library(clm_libedit INTERFACE)
    target_link_libraries(clm_libedit INTERFACE ${LIBEDIT_LIBRARY})
    target_include_directories(clm_libedit SYSTEM INTERFACE ${LIBEDIT_INCLUDE_DIR})
    set(CLM_LIBEDIT clm_libedit)
  else()
    message(STATUS "libedit is missing: clm chat will read lines without editing them")
  endif()
endif()
