/* base/stages.h: where the time of a long run goes. At every moment one stage is at work: who enters another
 * one enters the stage before again when it is done, so that no second counts twice. What fails need not. */
#ifndef GPTVQ_BASE_STAGES_H
#define GPTVQ_BASE_STAGES_H

typedef enum gptvq_stage {
  GPTVQ_STAGE_OTHER,
  GPTVQ_STAGE_SAMPLE,           /* the calibration text is read, or written by the model */
  GPTVQ_STAGE_GRADIENT,         /* of the end loss: backwards through the original */
  GPTVQ_STAGE_SENSITIVITY,      /* what each layer's size would cost */
  GPTVQ_STAGE_FORWARD_ORIGINAL, /* the original model's blocks */
  GPTVQ_STAGE_FORWARD,          /* those of the model that is being quantized */
  GPTVQ_STAGE_HESSIAN,
  GPTVQ_STAGE_MISMATCH, /* products of inputs, the division by the Hessian, the new weights */
  GPTVQ_STAGE_FACTOR,
  GPTVQ_STAGE_KMEANS,
  GPTVQ_STAGE_LOOP,
  GPTVQ_STAGE_UPDATE,
  GPTVQ_STAGE_REASSIGN,
  GPTVQ_STAGE_WRITE,
  GPTVQ_STAGE_JUDGE, /* the finished model beside the original */
  GPTVQ_STAGES
} gptvq_stage;

/* What products and factorisations work in. */
typedef enum gptvq_precision {
  GPTVQ_IN_FP32,
  GPTVQ_IN_BF16,
  GPTVQ_IN_DOUBLE,
  GPTVQ_PRECISIONS
} gptvq_precision;

typedef struct gptvq_stage_sum {
  double seconds, cpu_seconds, flop;     /* flop: of matrix products and factorisations */
  double precise_flop[GPTVQ_PRECISIONS]; /* the same by their precision */
  double device_seconds;                 /* of `seconds`: at work on a device, or waiting for it */
} gptvq_stage_sum;

typedef struct gptvq_stages {
  gptvq_stage now;
  double since, cpu_since;
  gptvq_stage_sum sums[GPTVQ_STAGES];
} gptvq_stages;

/* Everywhere `stages` may be NULL: nothing is counted. From one thread at a time. */
void gptvq_stages_start(gptvq_stages *stages);
/* Returns the stage that was at work. */
gptvq_stage gptvq_stage_enter(gptvq_stages *stages, gptvq_stage stage);
/* Work of the stage that is entered. */
void gptvq_stage_count(gptvq_stages *stages, gptvq_precision precision, double flop);
/* Time of the stage at work that a device took. */
void gptvq_stage_device(gptvq_stages *stages, double seconds);
/* "forward, original"; static storage */
const char *gptvq_stage_name(gptvq_stage stage);

#endif
