# The kernel tests of 64-bit ARM, cross-compiled and emulated where that is installed; once, since
# what is built there is the same whatever this build is. It takes long: it starts first.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64" AND NOT CLM_SANITIZE)
  add_test(NAME device_neon COMMAND ${CMAKE_SOURCE_DIR}/scripts/test-neon.sh ${CMAKE_BINARY_DIR}/neon)
  set_tests_properties(device_neon PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 3600 COST 1000)
endif()
