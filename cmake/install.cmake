# What `make install` puts where, and the files that say so to pkg-config and to CMake.
install(TARGETS clm_command RUNTIME)
# The archive that is installed is one object, in which only what clm.h declares has a name: programs
# may have functions of their own that are called fail or json_parse.
if(CMAKE_OBJCOPY AND NOT APPLE)
  set(folder ${CMAKE_BINARY_DIR}/installed)
  file(MAKE_DIRECTORY ${folder})
  add_custom_command(OUTPUT ${folder}/libclm.a
    COMMAND ${CMAKE_LINKER} -r --whole-archive $<TARGET_FILE:clm> -o ${folder}/clm.o
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${folder}/clm.o
    COMMAND ${CMAKE_COMMAND} -E rm -f ${folder}/libclm.a
    COMMAND ${CMAKE_AR} qcs ${folder}/libclm.a ${folder}/clm.o
    DEPENDS clm VERBATIM)
  add_custom_target(clm_archive ALL DEPENDS ${folder}/libclm.a)
  install(FILES ${folder}/libclm.a DESTINATION ${CMAKE_INSTALL_LIBDIR})
else()
  install(TARGETS clm ARCHIVE)
endif()
if(BUILD_SHARED_LIBS)
  install(TARGETS clm_shared LIBRARY)
endif()
install(FILES include/clm/clm.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/clm)
install(FILES docs/clm.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY models/storyteller-4bit DESTINATION ${CMAKE_INSTALL_DATADIR}/clm)

install(FILES completions/clm.bash RENAME clm
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES completions/_clm DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES completions/clm.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

# The prefix is written relative to the file, so that an installed tree may be moved.
function(clm_prefix_from folder variable)
  file(RELATIVE_PATH path ${CMAKE_INSTALL_PREFIX}/${folder} ${CMAKE_INSTALL_PREFIX})
  string(REGEX REPLACE "/$" "" path "${path}")
  set(${variable} ${path} PARENT_SCOPE)
endfunction()

set(pc_folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
clm_prefix_from(${pc_folder} CLM_PC_PREFIX)
# Paths are linked as they are, names with -l.
list(TRANSFORM CLM_CUDA_LINKS PREPEND -l REGEX "^[a-z]")
list(JOIN CLM_CUDA_LINKS " " CLM_PC_CUDA)
# Whoever links an archive links what it stands on, too.
set(CLM_KIND STATIC)
set(CLM_FILE ${CMAKE_STATIC_LIBRARY_PREFIX}clm${CMAKE_STATIC_LIBRARY_SUFFIX})
set(CLM_PC_REQUIRES Requires)
set(CLM_PC_LIBS " ")
if(BUILD_SHARED_LIBS)
  set(CLM_KIND SHARED)
  set(CLM_FILE ${CMAKE_SHARED_LIBRARY_PREFIX}clm${CMAKE_SHARED_LIBRARY_SUFFIX})
  set(CLM_PC_REQUIRES Requires.private)
  set(CLM_PC_LIBS "\nLibs.private: ")
endif()
configure_file(cmake/clm.pc.in ${CMAKE_BINARY_DIR}/clm.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/clm.pc DESTINATION ${pc_folder})

include(CMakePackageConfigHelpers)
set(cmake_folder ${CMAKE_INSTALL_LIBDIR}/cmake/clm)
clm_prefix_from(${cmake_folder} CLM_CMAKE_PREFIX)
configure_file(cmake/clm-config.cmake.in ${CMAKE_BINARY_DIR}/clm-config.cmake @ONLY)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/clm-config-version.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/clm-config.cmake ${CMAKE_BINARY_DIR}/clm-config-version.cmake
        DESTINATION ${cmake_folder})
