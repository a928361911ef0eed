# A room is one object library. quern_room(NAME sources...) makes quern_NAME; the flags that all
# rooms share live in quern_flags, so a file's flags are these plus what its suffix (_avx2 …) adds.
add_library(quern_flags INTERFACE)
target_include_directories(quern_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(quern_flags INTERFACE _GNU_SOURCE QN_BUILDING)
# -ffp-contract=off: a product and a sum are never fused behind our back, so the order and the
# rounding of every sum are those that the source spells out, with every compiler.
target_compile_options(quern_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-prototypes
  -ffp-contract=off -fno-math-errno -fstack-protector-strong $<$<CONFIG:Release>:-O3>)
if(QUERN_WERROR)
  target_compile_options(quern_flags INTERFACE -Werror)
endif()
if(QUERN_SANITIZE)
  target_compile_options(quern_flags INTERFACE -fsanitize=${QUERN_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(quern_flags INTERFACE -fsanitize=${QUERN_SANITIZE})
endif()
target_link_options(quern_flags INTERFACE LINKER:-z,relro,-z,now)
target_link_libraries(quern_flags INTERFACE PkgConfig::QUERN_LIBRARIES Threads::Threads m)

function(quern_room name)
  add_library(quern_${name} OBJECT ${ARGN})
  target_link_libraries(quern_${name} PUBLIC quern_flags)
endfunction()
