# What `make install` puts where, and the pkg-config file that says so.
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
set(pc_folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH CLM_PC_PREFIX ${CMAKE_INSTALL_PREFIX}/${pc_folder} ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" CLM_PC_PREFIX "${CLM_PC_PREFIX}")
# Paths are linked as they are, names with -l.
list(TRANSFORM CLM_CUDA_LINKS PREPEND -l REGEX "^[a-z]")
list(JOIN CLM_CUDA_LINKS " " CLM_PC_CUDA)
configure_file(cmake/clm.pc.in ${CMAKE_BINARY_DIR}/clm.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/clm.pc DESTINATION ${pc_folder})
