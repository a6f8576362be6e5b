# Cross build with Debian's arm64 compiler and packages (scripts/install-deps.sh --aarch64); tests run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
find_program(GPTVQ_CROSS_CXX aarch64-linux-gnu-g++) # for the shim; not needed
if(GPTVQ_CROSS_CXX)
  set(CMAKE_CXX_COMPILER ${GPTVQ_CROSS_CXX})
endif()
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(GPTVQ_ONEDNN OFF CACHE BOOL "not among the arm64 packages")
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
