# What `make install` puts where, and the files that say so to pkg-config and to CMake.
install(TARGETS clm_command RUNTIME)
install(TARGETS clm ARCHIVE)
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
