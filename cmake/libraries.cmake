# Every library quern stands on, found in one place. A library's name here is its pkg-config
# module; quern.pc and the CMake package name the same ones.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
set(QUERN_PC_MODULES jansson libpcre2-8 libpng libjpeg libwebp libzip)
pkg_check_modules(QUERN_LIBRARIES REQUIRED IMPORTED_TARGET ${QUERN_PC_MODULES})
pkg_check_modules(EDIT REQUIRED IMPORTED_TARGET libedit) # the program's line editor
if(QUERN_TESTS)
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
endif()
