/* export/report/charts.h: charts as SVG inside a page. Colours are the page's (page.css in page.c), so that
 * they follow light and dark; every mark has a <title> with its name and value, every chart a label. Values
 * are not negative; NaN is left out. */
#ifndef GPTVQ_EXPORT_REPORT_CHARTS_H
#define GPTVQ_EXPORT_REPORT_CHARTS_H

#include <stddef.h>
#include <stdio.h>

/* Text of HTML and of attributes; bytes that are no UTF-8 text become '?'. */
void gptvq_put_html(FILE *out, const char *text);

/* values[rows × cols] as a strip of bars for each row, all on one scale from 0. column: what the columns are
 * numbers of. */
typedef struct gptvq_strips {
  const char *label, *column;
  const char *const *names; /* [rows] */
  size_t rows, cols;
  const double *values;
} gptvq_strips;
void gptvq_chart_strips(FILE *out, const gptvq_strips *chart);

/* Bars from 0 to the right. */
typedef struct gptvq_bar {
  const char *name;
  double value, error; /* error 0: no whisker */
  char text[64];       /* of the value */
} gptvq_bar;
void gptvq_chart_bars(FILE *out, const char *label, const gptvq_bar *bars, size_t count);

/* Points by size in bytes (x, from 0) and `value` (y, from 0 or from near the least); points of one series
 * share a colour, 0 … GPTVQ_SERIES - 1, and those of one name and context are joined in their order. Hollow:
 * the original. */
enum { GPTVQ_SERIES = 6 };
typedef struct gptvq_point {
  double bytes, value;
  double context;        /* tokens that it was measured with; 0: not told */
  const char *name, *of; /* of: NULL, or what it is a figure of */
  unsigned series;
  int hollow;
} gptvq_point;
void gptvq_chart_points(FILE *out, const char *label, const char *y_axis, const gptvq_point *points,
                        size_t count);

#endif
