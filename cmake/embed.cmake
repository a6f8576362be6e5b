# gptvq_embed(FILE NAME OUT): OUT, a C file, has the bytes of FILE as NAME[] and NAME_size.
function(gptvq_embed file name out)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${file})
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
  file(CONFIGURE OUTPUT ${out} CONTENT
"#include <stddef.h>
extern const unsigned char ${name}[];
extern const size_t ${name}_size;
const unsigned char ${name}[] = {${bytes}};
const size_t ${name}_size = sizeof ${name};
" @ONLY)
endfunction()
