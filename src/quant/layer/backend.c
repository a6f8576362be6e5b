#include "quant/layer/backend.h"
#include "quant/layer/layer.h"

const gptvq_backend gptvq_cpu_backend = {
    .name = "cpu",
    .linalg = &gptvq_cpu_linalg,
    .times_hessian = gptvq_vq_times_hessian,
    .feedback = gptvq_feed_back,
    .codebooks = gptvq_vq_codebooks,
    .assign = gptvq_vq_assign,
    .times_system = gptvq_vq_times_system,
    .update = gptvq_vq_update,
    .reassign = gptvq_vq_reassign,
    .search = gptvq_vq_search,
};
