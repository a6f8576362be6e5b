/* The CPU's products on a device's arrays: for what is to have the CPU's bits on a card, too, which adds up
 * in another order. (The shim's products are the CPU's anyway.) */
#ifndef HOST_PRODUCTS_H
#define HOST_PRODUCTS_H

#include "base/memory.h"
#include "cuda/device.h"

#include <stdlib.h>

static inline gptvq_device_rows rows_of(size_t rows, size_t cols, size_t ld, size_t size) {
  return (gptvq_device_rows){cols * size, rows, ld * size, ld * size};
}

/* gptvq_device.product: copies there and back, and the shim's product between. */
static inline gptvq_status product_on_host(gptvq_device *device, const gptvq_device_product *p,
                                           gptvq_error *err) {
  const size_t size = p->precision == GPTVQ_PRODUCT_BF16 ? sizeof(uint16_t) : sizeof(float);
  const gptvq_device_rows a = rows_of(p->transpose_a ? p->k : p->m, p->transpose_a ? p->m : p->k, p->lda,
                                      size),
                          b = rows_of(p->transpose_b ? p->n : p->k, p->transpose_b ? p->k : p->n, p->ldb,
                                      size),
                          c = rows_of(p->m, p->n, p->ldc, sizeof(float));
  void *x = gptvq_alloc(a.rows, a.host_pitch), *y = gptvq_alloc(b.rows, b.host_pitch);
  float *z = gptvq_alloc(c.rows, c.host_pitch);
  gptvq_device_product on_host = *p;
  gptvq_device *shim = NULL;
  gptvq_status status = GPTVQ_OK;
  on_host.a = x;
  on_host.b = y;
  on_host.c = z;
  if (x == NULL || y == NULL || z == NULL) GPTVQ_TRY_GOTO(gptvq_fail_memory(err, "a product", 0));
  GPTVQ_TRY_GOTO(gptvq_device_open_shim(&shim, err));
  GPTVQ_TRY_GOTO(device->download(device, &a, x, p->a, err));
  GPTVQ_TRY_GOTO(device->download(device, &b, y, p->b, err));
  GPTVQ_TRY_GOTO(device->download(device, &c, z, p->c, err));
  GPTVQ_TRY_GOTO(shim->product(shim, &on_host, err));
  GPTVQ_TRY_GOTO(device->upload(device, &c, p->c, z, err));
done:
  if (shim != NULL) shim->close(shim);
  free(x);
  free(y);
  free(z);
  return status;
}

#endif
