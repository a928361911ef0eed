# The library (shared and static) and the program, made from the rooms' objects.
set(library_objects "")
foreach(room base text kernel store model engine quant)
  list(APPEND library_objects $<TARGET_OBJECTS:quern_${room}>)
endforeach()

add_library(quern_shared SHARED ${library_objects})
set_target_properties(quern_shared PROPERTIES OUTPUT_NAME quern VERSION ${PROJECT_VERSION}
  SOVERSION ${PROJECT_VERSION_MAJOR})
target_link_libraries(quern_shared PRIVATE quern_flags)

add_library(quern_static STATIC ${library_objects})
set_target_properties(quern_static PROPERTIES OUTPUT_NAME quern)
target_link_libraries(quern_static PUBLIC quern_flags)

add_executable(quern_program $<TARGET_OBJECTS:quern_cli>)
set_target_properties(quern_program PROPERTIES OUTPUT_NAME quern
  RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(quern_program PRIVATE quern_static PkgConfig::EDIT)
