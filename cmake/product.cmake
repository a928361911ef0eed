# The library (shared and static) and the program, made from the rooms' objects.
set(library_objects "")
foreach(room base text kernel store model engine quant)
  list(APPEND library_objects $<TARGET_OBJECTS:quern_${room}>)
endforeach()

# What a user of the library compiles with: the one public header, wherever it lies.
set(public_include $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                   $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

add_library(quern_shared SHARED ${library_objects})
set_target_properties(quern_shared PROPERTIES OUTPUT_NAME quern EXPORT_NAME quern
  VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
target_include_directories(quern_shared INTERFACE ${public_include})
target_link_libraries(quern_shared PRIVATE quern_flags)
if(NOT QUERN_SANITIZE)
  target_link_options(quern_shared PRIVATE LINKER:--no-undefined)
endif()

add_library(quern_static STATIC ${library_objects})
set_target_properties(quern_static PROPERTIES OUTPUT_NAME quern EXPORT_NAME quern-static)
target_include_directories(quern_static INTERFACE ${public_include})
target_link_libraries(quern_static
  PRIVATE $<BUILD_INTERFACE:quern_flags>
  INTERFACE $<INSTALL_INTERFACE:PkgConfig::QUERN_LIBRARIES> Threads::Threads m)

add_executable(quern_program $<TARGET_OBJECTS:quern_cli>)
set_target_properties(quern_program PROPERTIES OUTPUT_NAME quern
  RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(quern_program PRIVATE quern_static quern_flags PkgConfig::EDIT)
