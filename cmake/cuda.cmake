# The device part. Its library has the backend and the shim, on which the kernels run on the host (where there is a C++ compiler),
# and, where there is nvcc, an image of the kernels for cards; nothing of CUDA is linked.
include(CheckLanguage)
gptvq_part(cuda)
target_link_libraries(gptvq_cuda PUBLIC gptvq_quant_layer gptvq_calib ${CMAKE_DL_LIBS})
target_compile_options(gptvq_cuda PRIVATE ${sanitized})

if(NOT CMAKE_CROSSCOMPILING) # else the toolchain file names it, and what is found would be this machine's
  check_language(CXX)
endif()
if(CMAKE_CXX_COMPILER)
  enable_language(CXX)
  # No part of the C++ library is used: whatever holds the shim's objects is linked as C.
  set(CMAKE_CXX_IMPLICIT_LINK_LIBRARIES "")
  string(REPLACE "<CMAKE_CXX_COMPILER>" "<CMAKE_C_COMPILER>" CMAKE_CXX_LINK_EXECUTABLE "${CMAKE_CXX_LINK_EXECUTABLE}")
  set_source_files_properties(src/cuda/shim/none.c PROPERTIES HEADER_FILE_ONLY TRUE)
  file(GLOB shim_sources CONFIGURE_DEPENDS src/cuda/shim/*.cpp)
  # Without the C++ library: C programs link what comes out.
  add_library(gptvq_shim OBJECT ${shim_sources})
  set_target_properties(gptvq_shim PROPERTIES CXX_STANDARD 17 CXX_STANDARD_REQUIRED ON CXX_EXTENSIONS OFF CXX_VISIBILITY_PRESET hidden)
  target_include_directories(gptvq_shim PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  target_compile_options(gptvq_shim PRIVATE -Wall -Wextra -Wconversion -Wshadow -Wno-sign-conversion -ffp-contract=off
    -fno-exceptions -fno-rtti -fno-threadsafe-statics $<$<BOOL:${GPTVQ_WERROR}>:-Werror> ${sanitized})
  target_sources(gptvq_cuda PRIVATE $<TARGET_OBJECTS:gptvq_shim>)
  set_property(GLOBAL APPEND PROPERTY gptvq_objects $<TARGET_OBJECTS:gptvq_shim>)
else()
  set_source_files_properties(src/cuda/shim/device.c PROPERTIES HEADER_FILE_ONLY TRUE)
  message(NOTICE "-- Shim: no, there is no C++ compiler: kernels for cards are not tested, --device shim is missing")
endif()

set(GPTVQ_NVCC "")
if(NOT GPTVQ_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "GPTVQ_CUDA is ${GPTVQ_CUDA}: AUTO, ON or OFF")
endif()
if(NOT GPTVQ_CUDA STREQUAL "OFF")
  find_program(GPTVQ_NVCC_PROGRAM nvcc HINTS $ENV{CUDA_HOME}/bin $ENV{CUDA_PATH}/bin /usr/local/cuda/bin
    PATHS $ENV{HOME}/.cache/gptvq/cuda/nvidia/cu13/bin) # scripts/install-deps.sh --cuda
  mark_as_advanced(GPTVQ_NVCC_PROGRAM)
  if(GPTVQ_NVCC_PROGRAM)
    set(GPTVQ_NVCC ${GPTVQ_NVCC_PROGRAM})
  elseif(GPTVQ_CUDA STREQUAL "ON")
    message(FATAL_ERROR "GPTVQ_CUDA is ON and there is no nvcc: scripts/install-deps.sh --cuda installs it, or put the toolkit's nvcc into PATH")
  endif()
endif()
set(GPTVQ_CUDA_ARCHITECTURES 80 90 CACHE STRING "Compute capabilities that kernels are compiled for; PTX of the first is for all others")
set(image ${PROJECT_BINARY_DIR}/cuda/image)
if(GPTVQ_NVCC)
  message(STATUS "CUDA kernels: yes (${GPTVQ_NVCC})")
  # Code for cards runs with drivers of the toolkit's major version and newer ones.
  execute_process(COMMAND ${GPTVQ_NVCC} --version OUTPUT_VARIABLE nvcc_version ERROR_QUIET)
  if(nvcc_version MATCHES "release ([0-9]+)\\.")
    set_source_files_properties(src/cuda/card.c PROPERTIES COMPILE_DEFINITIONS "GPTVQ_CUDA_TOOLKIT=${CMAKE_MATCH_1}000")
  endif()
  set(architectures "")
  foreach(architecture ${GPTVQ_CUDA_ARCHITECTURES})
    list(APPEND architectures -gencode arch=compute_${architecture},code=sm_${architecture})
  endforeach()
  list(GET GPTVQ_CUDA_ARCHITECTURES 0 first)
  list(APPEND architectures -gencode arch=compute_${first},code=compute_${first})
  set(nvcc_flags --std=c++17 -O3 -fmad=false -I${PROJECT_SOURCE_DIR}/include -I${PROJECT_SOURCE_DIR}/src)
  file(GLOB kernel_sources CONFIGURE_DEPENDS src/cuda/kernels/*.cuh src/cuda/kernels/*.cu)
  add_custom_command(OUTPUT ${image}.c BYPRODUCTS ${image}.fatbin ${image}.log
    DEPENDS ${kernel_sources} src/cuda/kernels.h cmake/cuda-image.cmake cmake/nvcc.sh
    COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/cuda
    COMMAND ${PROJECT_SOURCE_DIR}/cmake/nvcc.sh ${image}.log ${GPTVQ_NVCC} ${nvcc_flags} -Xptxas -v ${architectures} -fatbin -o ${image}.fatbin ${PROJECT_SOURCE_DIR}/src/cuda/kernels/device.cu
    COMMAND ${CMAKE_COMMAND} -DFILE=${image}.fatbin -DOUT=${image}.c -P ${PROJECT_SOURCE_DIR}/cmake/cuda-image.cmake)
else()
  message(STATUS "CUDA kernels: no (GPTVQ_CUDA=${GPTVQ_CUDA}, no nvcc)")
  file(CONFIGURE OUTPUT ${image}.c CONTENT "#include \"cuda/device.h\"
const unsigned char gptvq_cuda_image[1] = {0};
const size_t gptvq_cuda_image_bytes = 0;
")
endif()
add_library(gptvq_cuda_image OBJECT ${image}.c)
target_link_libraries(gptvq_cuda_image PRIVATE gptvq_flags)
target_sources(gptvq_cuda PRIVATE $<TARGET_OBJECTS:gptvq_cuda_image>)
set_property(GLOBAL APPEND PROPERTY gptvq_objects $<TARGET_OBJECTS:gptvq_cuda_image>)
