# What `make install` puts where (GNUInstallDirs): program, both libraries, the header, pkg-config
# and CMake packages, manual, completions, documents. The bundled models stay in the repository.
include(CMakePackageConfigHelpers)

install(TARGETS quern_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(TARGETS quern_shared quern_static EXPORT quernTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/quern.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

# pkg-config. The prefix is found from the .pc file's own place, so an installed tree can move.
file(RELATIVE_PATH pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" pc_to_prefix "${pc_to_prefix}")
# libzip is named itself: its module would ask a static link for libraries of which Debian's package
# brings no development files.
list(JOIN QUERN_PC_MODULES " " pc_requires)
string(REPLACE " libzip" "" pc_requires_private "${pc_requires}")
configure_file(cmake/quern.pc.in quern.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/quern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

# find_package(quern): quern::quern is the shared library, quern::quern-static the other.
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quern)
install(EXPORT quernTargets NAMESPACE quern:: DESTINATION ${package_dir})
configure_package_config_file(cmake/quernConfig.cmake.in quernConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(quernConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/quernConfig.cmake ${PROJECT_BINARY_DIR}/quernConfigVersion.cmake
  DESTINATION ${package_dir})

install(FILES man/quern.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES man/quern.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES completions/quern.bash RENAME quern
  DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES completions/_quern DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES completions/quern.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR}/docs FILES_MATCHING PATTERN "*.md")
install(FILES examples/answer.c examples/CMakeLists.txt
  DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)
