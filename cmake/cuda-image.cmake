# cmake -DFILE= -DOUT= -P: OUT, a C file, has the bytes of FILE as gptvq_cuda_image[], whose size is gptvq_cuda_image_bytes. While
# building, not while configuring (embed.cmake), because FILE is a result of the build.
file(READ ${FILE} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(CONFIGURE OUTPUT ${OUT} CONTENT "#include \"cuda/device.h\"
const unsigned char gptvq_cuda_image[] __attribute__((aligned(16))) = {${bytes}};
const size_t gptvq_cuda_image_bytes = sizeof gptvq_cuda_image;
" @ONLY)
