/* text/template/value.h: what templates compute with, and what reading and running one share.
 *
 * Everything a template makes lives in the arena of its gptvq_tpl and goes with it; nothing is freed one by
 * one, so that the first failure leaves with a jump from however deep. Strings are well-formed UTF-8, not
 * terminated, and may hold NUL. Positions in strings count code points, as in Python. */
#ifndef GPTVQ_TEXT_TEMPLATE_VALUE_H
#define GPTVQ_TEXT_TEMPLATE_VALUE_H

#include "base/memory.h"
#include "base/status.h"

#include <jansson.h>
#include <setjmp.h>
#include <string.h>

typedef struct gptvq_tpl gptvq_tpl;
typedef struct gptvq_node gptvq_node;
typedef struct gptvq_value gptvq_value;

typedef struct gptvq_string {
  const char *data;
  size_t size;
} gptvq_string;
#define GPTVQ_STRING(literal) ((gptvq_string){"" literal, sizeof(literal) - 1})

typedef enum gptvq_kind {
  GPTVQ_UNDEFINED,
  GPTVQ_NONE,
  GPTVQ_BOOL,
  GPTVQ_INT,
  GPTVQ_FLOAT,
  GPTVQ_TEXT,
  GPTVQ_LIST,     /* the sequences: */
  GPTVQ_TUPLE,    /* … */
  GPTVQ_RANGE,    /* … */
  GPTVQ_VIEW,     /* dict.keys(), values(), items(): no subscripts */
  GPTVQ_ITERATOR, /* what map, select, … give: items once, no length, no subscripts */
  GPTVQ_DICT,
  GPTVQ_NAMESPACE,
  GPTVQ_LOOP,
  GPTVQ_MACRO,
  GPTVQ_FUNCTION, /* a global one */
  GPTVQ_METHOD    /* a method with its object */
} gptvq_kind;

typedef struct gptvq_list {
  gptvq_value *items;
  size_t count, taken; /* taken: by whoever went through an iterator before */
} gptvq_list;

typedef struct gptvq_dict {
  gptvq_value *keys, *values; /* in the order of insertion */
  size_t count, room;
} gptvq_dict;

/* Why something is undefined, for whoever uses it. */
typedef struct gptvq_absent {
  enum {
    GPTVQ_NO_VARIABLE,
    GPTVQ_NO_ATTRIBUTE,
    GPTVQ_NO_ELEMENT,
    GPTVQ_NO_ARGUMENT,
    GPTVQ_UNSAFE,
    GPTVQ_NO_REASON
  } why;
  gptvq_string what;  /* a name, an element, or (NO_REASON) a message */
  const char *object; /* of what type */
} gptvq_absent;

typedef struct gptvq_loop gptvq_loop;
typedef struct gptvq_macro gptvq_macro;
typedef struct gptvq_method gptvq_method;

struct gptvq_value {
  gptvq_kind kind;
  union {
    bool boolean;
    int64_t integer;
    double real;
    gptvq_string text;
    gptvq_list *list;
    gptvq_dict *dict; /* also of a namespace */
    const gptvq_absent *absent;
    gptvq_loop *loop;
    gptvq_macro *macro;
    const gptvq_method *method; /* also of a function, without an object */
  } as;
};

/* Arguments of a call: positional ones first, then named ones. */
typedef struct gptvq_args {
  gptvq_value *values;
  gptvq_string *names; /* [count]; size 0: positional */
  size_t count, positional;
} gptvq_args;

typedef gptvq_value (*gptvq_callable)(gptvq_tpl *t, gptvq_value self, const gptvq_args *args);

struct gptvq_method {
  const char *name;
  gptvq_callable call; /* NULL: Python has it, this engine has not */
  gptvq_value self;
};

/* A text that grows in the arena. */
typedef struct gptvq_builder {
  char *data;
  size_t size, room;
} gptvq_builder;

typedef struct gptvq_tpl_chunk gptvq_tpl_chunk;

/* Limits: a real template with a real conversation stays a thousand times below. */
enum {
  GPTVQ_TPL_MAX_SOURCE = 1 << 20, /* bytes of a template */
  GPTVQ_TPL_MAX_MEMORY = 1 << 28, /* bytes */
  GPTVQ_TPL_MAX_OUTPUT = 1 << 26, /* bytes of any one text */
  GPTVQ_TPL_MAX_STEPS = 50000000, /* nodes run, items gone through, 64 bytes worked on */
  GPTVQ_TPL_MAX_NESTING = 100,    /* of brackets and blocks in the source */
  GPTVQ_TPL_MAX_DEPTH = 700       /* of expressions, calls and data while it runs */
};

struct gptvq_tpl {
  jmp_buf failed;
  gptvq_error *err;
  gptvq_status status;
  const char *name; /* of the template's file */
  int line;         /* being read or run */
  size_t depth, taken;
  uint64_t steps;
  gptvq_tpl_chunk *chunks;
  int64_t now; /* seconds since 1970 for strftime_now */
  struct gptvq_scope *scope;
  gptvq_builder *out;
};

/* ---- arena and failures ---- */
void gptvq_tpl_init(gptvq_tpl *t, const char *name, gptvq_error *err);
void gptvq_tpl_release(gptvq_tpl *t);
/* "NAME: line N: …"; does not return */
_Noreturn void gptvq_tpl_fail(gptvq_tpl *t, gptvq_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *gptvq_tpl_alloc(gptvq_tpl *t, size_t count, size_t size); /* not initialised; never NULL */
void gptvq_tpl_work(gptvq_tpl *t, size_t bytes);                /* counts towards the limit of steps */
void gptvq_tpl_deeper(gptvq_tpl *t); /* fails beyond the limit; undone by t->depth-- */
void gptvq_tpl_build(gptvq_tpl *t, gptvq_builder *b, const char *data, size_t size);
void gptvq_tpl_build_text(gptvq_tpl *t, gptvq_builder *b, const char *text);
void gptvq_tpl_build_char(gptvq_tpl *t, gptvq_builder *b, uint32_t code_point);
gptvq_string gptvq_tpl_built(const gptvq_builder *b);

/* ---- making values ---- */
static inline gptvq_value gptvq_none(void) { return (gptvq_value){.kind = GPTVQ_NONE}; }
static inline gptvq_value gptvq_bool(bool x) { return (gptvq_value){GPTVQ_BOOL, {.boolean = x}}; }
static inline gptvq_value gptvq_int(int64_t x) { return (gptvq_value){GPTVQ_INT, {.integer = x}}; }
static inline gptvq_value gptvq_float(double x) { return (gptvq_value){GPTVQ_FLOAT, {.real = x}}; }
static inline gptvq_value gptvq_text(gptvq_string x) { return (gptvq_value){GPTVQ_TEXT, {.text = x}}; }
static inline gptvq_value gptvq_text_of(const char *data, size_t size) {
  return gptvq_text((gptvq_string){data, size});
}
/* a list of `count` items for the caller to fill */
gptvq_value gptvq_tpl_sequence(gptvq_tpl *t, gptvq_kind kind, size_t count);
gptvq_value gptvq_tpl_undefined(gptvq_tpl *t, gptvq_absent absent);
gptvq_value gptvq_tpl_dict_new(gptvq_tpl *t, gptvq_kind kind);
void gptvq_tpl_dict_set(gptvq_tpl *t, gptvq_dict *dict, gptvq_value key, gptvq_value value);
gptvq_value *gptvq_tpl_dict_find(gptvq_tpl *t, const gptvq_dict *dict, gptvq_value key); /* NULL: not there */
gptvq_value *gptvq_tpl_dict_find_text(gptvq_tpl *t, const gptvq_dict *dict, gptvq_string key);
gptvq_value gptvq_tpl_from_json(gptvq_tpl *t, const json_t *json);

/* ---- asking them ---- */
static inline bool gptvq_same_string(gptvq_string a, gptvq_string b) {
  return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}
static inline bool gptvq_string_is(gptvq_string a, const char *b) {
  return a.size == strlen(b) && memcmp(a.data, b, a.size) == 0;
}
static inline bool gptvq_is_sequence(gptvq_value v) {
  return v.kind >= GPTVQ_LIST && v.kind <= GPTVQ_ITERATOR;
}
static inline bool gptvq_is_number(gptvq_value v) { return v.kind >= GPTVQ_BOOL && v.kind <= GPTVQ_FLOAT; }
/* BOOL and INT as an integer */
static inline bool gptvq_as_int(gptvq_value v, int64_t *out) {
  if (v.kind != GPTVQ_BOOL && v.kind != GPTVQ_INT) return false;
  *out = v.kind == GPTVQ_BOOL ? v.as.boolean : v.as.integer;
  return true;
}
double gptvq_tpl_as_double(gptvq_value v);      /* of a number */
const char *gptvq_tpl_type_name(gptvq_value v); /* Python's */
bool gptvq_tpl_truth(gptvq_value v);
bool gptvq_tpl_equal(gptvq_tpl *t, gptvq_value a, gptvq_value b);
int gptvq_tpl_order(gptvq_tpl *t, gptvq_value a, gptvq_value b); /* <0, 0, >0; fails where Python does */
bool gptvq_tpl_contains(gptvq_tpl *t, gptvq_value container, gptvq_value item);
/* The items of whatever can be gone through (a dict's keys, a text's characters, …); takes them from an
 * iterator. Fails when it cannot. */
gptvq_list gptvq_tpl_iterate(gptvq_tpl *t, gptvq_value v);
size_t gptvq_tpl_length(gptvq_tpl *t, gptvq_value v);
_Noreturn void gptvq_tpl_fail_undefined(gptvq_tpl *t, gptvq_value v);

/* ---- texts of them ---- */
gptvq_string gptvq_tpl_str(gptvq_tpl *t, gptvq_value v);
gptvq_string gptvq_tpl_repr(gptvq_tpl *t, gptvq_value v);
void gptvq_tpl_build_str(gptvq_tpl *t, gptvq_builder *b, gptvq_value v);
void gptvq_tpl_build_repr(gptvq_tpl *t, gptvq_builder *b, gptvq_value v);
void gptvq_tpl_build_float(gptvq_tpl *t, gptvq_builder *b, double x); /* Python's repr */

/* json.dumps as transformers calls it */
typedef struct gptvq_json_style {
  bool ascii, sorted, lines; /* lines: one per item, each level indented by `indent` once more */
  gptvq_string indent, item_end, key_end;
} gptvq_json_style;
void gptvq_tpl_build_json(gptvq_tpl *t, gptvq_builder *b, gptvq_value v, const gptvq_json_style *style);

#endif
