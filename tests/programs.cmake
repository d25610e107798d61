# Tests that are not cmocka programs: the tree, the command from outside, the installed files.

set(tests ${CMAKE_CURRENT_SOURCE_DIR})
add_test(NAME layers COMMAND ${CLM_PYTHON} ${tests}/layers.py ${CMAKE_SOURCE_DIR})
add_test(NAME layers_self_test COMMAND ${CLM_PYTHON} ${tests}/layers.py --self-test)

# Every tests/cli/test_*.py gets the path of the command; it exits 77 to be skipped.
file(GLOB scripts CONFIGURE_DEPENDS cli/test_*.py)
foreach(script ${scripts})
  get_filename_component(name ${script} NAME_WE)
  string(REPLACE "test_" "cli_" name ${name})
  clm_test(${name} ${CLM_PYTHON} ${script} $<TARGET_FILE:clm_command>)
  # Files are read and written as UTF-8, whatever the locale's characters are.
  set_tests_properties(${name} PROPERTIES ENVIRONMENT PYTHONUTF8=1)
endforeach()

# The manual page and the completions say what `clm help` says.
add_test(NAME descriptions COMMAND ${CLM_PYTHON} ${CMAKE_SOURCE_DIR}/scripts/describe.py --check
         $<TARGET_FILE:clm_command>)

# The examples, built as part of the tree and run on the bundled model.
file(GLOB examples CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/examples/*.c)
foreach(source ${examples})
  get_filename_component(name ${source} NAME_WE)
  add_executable(example_${name} ${source})
  target_link_libraries(example_${name} PRIVATE clm clm_options)
  add_test(NAME example_${name}
           COMMAND example_${name} ${CMAKE_SOURCE_DIR}/models/storyteller-4bit "Tell me a story.")
  set_tests_properties(example_${name} PROPERTIES PASS_REGULAR_EXPRESSION "[a-z]+ [a-z]+ [a-z]+")
endforeach()

# And one of them with the shared library.
add_executable(example_shared ${CMAKE_SOURCE_DIR}/examples/generate.c)
target_link_libraries(example_shared PRIVATE clm_shared clm_options)
add_test(NAME example_shared
         COMMAND example_shared ${CMAKE_SOURCE_DIR}/models/storyteller-4bit "Tell me a story.")
set_tests_properties(example_shared PROPERTIES PASS_REGULAR_EXPRESSION "[a-z]+ [a-z]+ [a-z]+")
if(CMAKE_NM AND CMAKE_READELF)
  add_test(NAME shared COMMAND ${CLM_PYTHON} ${tests}/shared.py --library $<TARGET_FILE:clm_shared>
           --header ${CMAKE_SOURCE_DIR}/include/clm/clm.h --nm ${CMAKE_NM} --readelf ${CMAKE_READELF}
           --soname libclm.so.${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endif()

set(flags "")
if(CLM_SANITIZE)
  set(flags "-fsanitize=${CLM_SANITIZE}")
endif()
add_test(NAME install COMMAND ${CLM_PYTHON} ${tests}/install.py --cmake ${CMAKE_COMMAND}
         --build ${CMAKE_BINARY_DIR} --source ${CMAKE_SOURCE_DIR} --cc ${CMAKE_C_COMPILER}
         --flags=${flags} --version ${PROJECT_VERSION})

# The longest start first, so that none is left when the others are done.
set_tests_properties(engine_goldens engine_goldens_shares engine_torture cli_chat PROPERTIES COST 500)
