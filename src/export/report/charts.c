#include "export/report/charts.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 860, LABEL = 190, PLOT = WIDTH - LABEL - 20 };

/* Bytes of the UTF-8 character at `text` that may stand in a page, 0: none. */
static size_t character(const unsigned char *text) {
  if (text[0] < 0x80) return text[0] >= 0x20 && text[0] != 0x7f;
  size_t length = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : 2;
  if (text[0] < 0xc2 || text[0] > 0xf4) return 0;
  unsigned code = text[0] & (0x7fu >> length);
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (text[i] & 0x3fu);
  }
  static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
  /* no surrogates, nothing that XML does not have */
  return code < least[length] || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff || code == 0xfffe ||
                 code == 0xffff
             ? 0
             : length;
}

void gptvq_put_html(FILE *out, const char *text) {
  for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
    size_t length = character(at);
    switch (length == 1 ? *at : 0) {
    case '<': (void)fputs("&lt;", out); break;
    case '>': (void)fputs("&gt;", out); break;
    case '&': (void)fputs("&amp;", out); break;
    case '"': (void)fputs("&quot;", out); break;
    default:
      if (length == 0) (void)fputc('?', out);
      else (void)fwrite(at, 1, length, out);
    }
    at += length > 0 ? length : 1;
  }
}

static void begin(FILE *out, const char *label, double height) {
  (void)fprintf(out, "<svg viewBox=\"0 0 %d %.0f\" role=\"img\" aria-label=\"", WIDTH, height);
  gptvq_put_html(out, label);
  (void)fprintf(out, "\">\n");
}

static void put_label(FILE *out, double y, const char *name) {
  (void)fprintf(out, "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">", LABEL - 8, y);
  gptvq_put_html(out, name);
  (void)fprintf(out, "</text>\n");
}

static double largest(const double *values, size_t count) {
  double most = 0;
  for (size_t i = 0; i < count; i++)
    if (values[i] > most) most = values[i]; /* not of NaN */
  return most > 0 ? most : 1;
}

void gptvq_chart_strips(FILE *out, const gptvq_strips *c) {
  enum { ROW = 34, GAP = 8, TOP = 22 };
  const double most = largest(c->values, c->rows * c->cols), width = fmin((double)PLOT / (double)c->cols, 48);
  begin(out, c->label, TOP + (double)c->rows * (ROW + GAP) + 20);
  (void)fprintf(out, "<text x=\"%d\" y=\"12\" class=\"quiet\">full height: %.4g</text>\n", LABEL, most);
  for (size_t r = 0; r < c->rows; r++) {
    const double bottom = TOP + (double)(r + 1) * (ROW + GAP) - GAP;
    put_label(out, bottom - 8, c->names[r]);
    (void)fprintf(out, "<path class=\"grid\" d=\"M%d %.1fh%d\"/>\n", LABEL, bottom, PLOT);
    for (size_t i = 0; i < c->cols; i++) {
      const double value = c->values[r * c->cols + i];
      if (isnan(value)) continue;
      const double height = value / most * ROW
      , gap = width > 4 ? 1.5 : 0;
      (void)fprintf(out, "<rect class=\"bar\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>",
                    LABEL + (double)i * width + gap / 2, bottom - height, width - gap, height);
      gptvq_put_html(out, c->names[r]);
      (void)fprintf(out, ", %s %zu: %.6g</title></rect>\n", c->column, i, value);
    }
  }
  const double y = TOP + (double)c->rows * (ROW + GAP) + 8;
  (void)fprintf(out, "<text x=\"%d\" y=\"%.1f\" class=\"quiet\">%s 0</text>\n", LABEL, y, c->column);
  if (c->cols > 1)
    (void)fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" class=\"quiet\">%s %zu</text>\n",
                  LABEL + (double)c->cols * width, y, c->column, c->cols - 1);
  (void)fprintf(out, "</svg>\n");
}

void gptvq_chart_bars(FILE *out, const char *label, const gptvq_bar *bars, size_t count) {
  enum { ROW = 20, GAP = 6, ROOM = 120 }; /* ROOM for the value's text */
  double most = 0;
  for (size_t i = 0; i < count; i++)
    if (bars[i].value + bars[i].error > most) most = bars[i].value + bars[i].error;
  if (!(most > 0)) most = 1;
  begin(out, label, (double)count * (ROW + GAP) + 4);
  for (size_t i = 0; i < count; i++) {
    const double top = (double)i * (ROW + GAP) + 2, scale = (PLOT - ROOM) / most;
    if (isnan(bars[i].value)) continue;
    const double end = bars[i].value * scale, spread = bars[i].error * scale;
    put_label(out, top + 15, bars[i].name);
    (void)fprintf(out, "<rect class=\"bar\" x=\"%d\" y=\"%.1f\" width=\"%.2f\" height=\"%d\"><title>", LABEL,
                  top, end, ROW);
    gptvq_put_html(out, bars[i].name);
    (void)fprintf(out, ": %s</title></rect>\n", bars[i].text);
    if (spread > 0)
      (void)fprintf(out, "<path class=\"whisker\" d=\"M%.2f %.1fH%.2fM%.2f %.1fv8M%.2f %.1fv8\"/>\n",
                    LABEL + fmax(end - spread, 0), top + 10, LABEL + end + spread,
                    LABEL + fmax(end - spread, 0), top + 6, LABEL + end + spread, top + 6);
    (void)fprintf(out, "<text x=\"%.2f\" y=\"%.1f\">%s</text>\n", LABEL + end + spread + 8, top + 15,
                  bars[i].text);
  }
  (void)fprintf(out, "</svg>\n");
}

/* 1, 2 or 5 times a power of ten: about `count` steps up to `most`. */
static double step_of(double most, double count) {
  const double raw = most / count, power = pow(10, floor(log10(raw))), part = raw / power;
  return power * (part <= 1 ? 1 : part <= 2 ? 2 : part <= 5 ? 5 : 10);
}

/* Where the names of the points stand, y ascending, none on another. */
typedef struct place {
  size_t point;
  double y;
} place;

static int by_y(const void *a, const void *b) {
  const place *x = a, *y = b;
  return x->y != y->y ? (x->y < y->y ? -1 : 1) : x->point < y->point ? -1 : x->point > y->point;
}

enum { HEIGHT = 320, BOTTOM = HEIGHT - 46, ABOVE = 20, LEFT = 70, RIGHT = WIDTH - 300 };

/* What the axes span: x from 0. */
typedef struct span {
  double most_x, least_y, most_y;
} span;

static double x_at(const span *s, double megabytes) { return LEFT + megabytes / s->most_x * (RIGHT - LEFT); }
static double y_at(const span *s, double value) {
  return BOTTOM - (value - s->least_y) / (s->most_y - s->least_y) * (BOTTOM - ABOVE);
}

static void put_axes(FILE *out, const span *s, const char *y_axis) {
  const double dx = step_of(s->most_x, 5), dy = step_of(s->most_y - s->least_y, 5);
  for (double i = ceil(s->least_y / dy - 1e-9) + 0.0; /* not -0 */ i * dy <= s->most_y; i++)
    (void)fprintf(out,
                  "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" text-anchor=\"end\" "
                  "class=\"quiet\">%.4g</text>\n",
                  LEFT, y_at(s, i * dy), RIGHT, LEFT - 6, y_at(s, i * dy) + 4, i * dy);
  for (double i = 0; i * dx <= s->most_x; i++)
    (void)fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\" class=\"quiet\">%.4g</text>\n",
                  x_at(s, i * dx), BOTTOM + 18, i * dx);
  (void)fprintf(
      out,
      "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" class=\"quiet\">MB of tensors</text>\n<text x=\"%d\" "
      "y=\"12\" class=\"quiet\">%s</text>\n",
      RIGHT, HEIGHT - 8, LEFT, y_axis);
}

/* A little more than the points take, from 0 where they come near it. */
static span span_of(const gptvq_point *points, size_t count) {
  span s = {0, INFINITY, 0};
  for (size_t i = 0; i < count; i++) {
    s.most_x = fmax(s.most_x, points[i].bytes * 1e-6);
    s.least_y = fmin(s.least_y, points[i].value);
    s.most_y = fmax(s.most_y, points[i].value);
  }
  /* no less than what the labels' four digits tell apart: steps too small to count would not end */
  const double room = fmax(0.1 * (s.most_y - s.least_y), 0.005 * s.most_y);
  if (!(s.least_y > 0.5 * s.most_y)) s.least_y = 0;
  else s.least_y -= room;
  s.most_x = s.most_x > 0 ? s.most_x * 1.05 : 1;
  s.most_y = s.most_y > 0 ? s.most_y + room : 1;
  return s;
}

static void put_name(FILE *out, const gptvq_point *p) {
  gptvq_put_html(out, p->name);
  if (p->of == NULL) return;
  (void)fprintf(out, ", ");
  gptvq_put_html(out, p->of);
}

/* Points that are drawn later within so many pixels: a point on others is a ring around them. */
static size_t points_over(const span *s, const gptvq_point *points, size_t count, size_t i) {
  enum { SAME = 3 };
  const double x = x_at(s, points[i].bytes * 1e-6), y = y_at(s, points[i].value);
  size_t over = 0;
  for (size_t j = i + 1; j < count; j++)
    over += fabs(x_at(s, points[j].bytes * 1e-6) - x) < SAME && fabs(y_at(s, points[j].value) - y) < SAME;
  return over;
}

void gptvq_chart_points(FILE *out, const char *label, const char *y_axis, const gptvq_point *points,
                        size_t count) {
  const span s = span_of(points, count);
  begin(out, label, HEIGHT);
  put_axes(out, &s, y_axis);
  place *places = calloc(count > 0 ? count : 1, sizeof *places);
  for (size_t i = 0; i < count; i++) {
    const gptvq_point *p = &points[i];
    const double x = x_at(&s, p->bytes * 1e-6), y = y_at(&s, p->value);
    if (i > 0 && p[-1].series == p->series && p[-1].context == p->context && strcmp(p[-1].name, p->name) == 0)
      (void)fprintf(out, "<path class=\"join s%u\" d=\"M%.1f %.1fL%.1f %.1f\"/>\n", p->series,
                    x_at(&s, p[-1].bytes * 1e-6), y_at(&s, p[-1].value), x, y);
    if (places != NULL) places[i] = (place){i, y};
  }
  for (size_t i = 0; i < count; i++) {
    const gptvq_point *p = &points[i];
    (void)fprintf(out, "<circle class=\"%s s%u\" cx=\"%.1f\" cy=\"%.1f\" r=\"%zu\"><title>",
                  p->hollow ? "hollow" : "dot", p->series, x_at(&s, p->bytes * 1e-6), y_at(&s, p->value),
                  5 + 3 * gptvq_min_size(points_over(&s, points, count, i), 8));
    put_name(out, p);
    if (p->context > 0) (void)fprintf(out, ", context %.0f", p->context);
    (void)fprintf(out, ": %.2f MB, %.6g</title></circle>\n", p->bytes * 1e-6, p->value);
  }
  if (places != NULL) qsort(places, count, sizeof *places, by_y);
  double last = -1e9;
  for (size_t i = 0; places != NULL && i < count; i++) {
    const gptvq_point *p = &points[places[i].point];
    const double y = fmax(places[i].y, last + 15), x = x_at(&s, p->bytes * 1e-6);
    (void)fprintf(
        out, "<path class=\"leader\" d=\"M%.1f %.1fL%d %.1f\"/>\n<text x=\"%d\" y=\"%.1f\" class=\"s%u\">",
        x + 7, places[i].y, RIGHT + 10, y, RIGHT + 14, y + 4, p->series);
    put_name(out, p);
    (void)fprintf(out, " %.4g</text>\n", p->value);
    last = y;
  }
  free(places);
  (void)fprintf(out, "</svg>\n");
}
