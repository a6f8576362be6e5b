/* text/template/run.h: running a parsed template: names, expressions, calls, filters, tests. */
#ifndef GPTVQ_TEXT_TEMPLATE_RUN_H
#define GPTVQ_TEXT_TEMPLATE_RUN_H

#include "text/template/tree.h"

typedef struct gptvq_scope gptvq_scope;
struct gptvq_scope {
  gptvq_scope *parent;
  gptvq_dict *names;
};

struct gptvq_loop {
  gptvq_list items;
  size_t index;
  gptvq_value changed; /* what loop.changed() saw last */
  bool has_changed;
};

struct gptvq_macro {
  const gptvq_node *node;
  gptvq_scope *scope; /* where it was defined */
};

/* ---- statements.c ---- */
void gptvq_tpl_run_template(gptvq_tpl *t, const gptvq_nodes *body, gptvq_dict *variables, gptvq_builder *out);
gptvq_string gptvq_tpl_run_macro(gptvq_tpl *t, const gptvq_macro *macro, const gptvq_args *args);

/* ---- expressions.c ---- */
gptvq_value gptvq_tpl_eval(gptvq_tpl *t, const gptvq_node *node);
gptvq_args gptvq_tpl_eval_arguments(gptvq_tpl *t, const gptvq_nodes *items);
gptvq_value gptvq_tpl_eval_filters(gptvq_tpl *t, const gptvq_node *filters,
                                   gptvq_value subject); /* of a block */

/* ---- operators.c ---- */
gptvq_value gptvq_tpl_binary(gptvq_tpl *t, gptvq_string operation, gptvq_value a, gptvq_value b);
bool gptvq_tpl_compare(gptvq_tpl *t, const char *operation, gptvq_value a, gptvq_value b);
gptvq_string gptvq_tpl_percent(gptvq_tpl *t, gptvq_string format,
                               const gptvq_list *values); /* format % values */
gptvq_value gptvq_tpl_text_format(gptvq_tpl *t, gptvq_value self, const gptvq_args *args); /* str.format */

/* ---- access.c ---- */
gptvq_value gptvq_tpl_get_attribute(gptvq_tpl *t, gptvq_value of, gptvq_string name); /* of.name */
gptvq_value gptvq_tpl_get_item(gptvq_tpl *t, gptvq_value of, gptvq_value key);        /* of[key] */
/* of[from:to:step]; bounds that are None are left out */
gptvq_value gptvq_tpl_get_slice(gptvq_tpl *t, gptvq_value of, const gptvq_value bounds[3]);

/* ---- calls.c ---- */
gptvq_value gptvq_tpl_call(gptvq_tpl *t, gptvq_value callee, const gptvq_args *args);
gptvq_value gptvq_tpl_global(gptvq_tpl *t, gptvq_string name); /* range, dict, namespace, …; or undefined */
/* Arguments by position and name into values[most], which hold the defaults. */
void gptvq_tpl_bind(gptvq_tpl *t, const char *function, const gptvq_args *args, const char *const *names,
                    size_t required, size_t most, gptvq_value *values);
int64_t gptvq_tpl_want_int(gptvq_tpl *t, gptvq_value v, const char *what);
gptvq_string gptvq_tpl_want_text(gptvq_tpl *t, gptvq_value v, const char *what);

/* ---- text_methods.c ---- */
/* The method of str called `name` (NULL: none); its `self` is to be set. */
const gptvq_method *gptvq_tpl_text_method(gptvq_string name);

/* ---- filters.c, list_filters.c, tests.c ---- */
typedef struct gptvq_named {
  const char *name;
  gptvq_callable call;
} gptvq_named;
extern const gptvq_named gptvq_tpl_text_filters[], gptvq_tpl_list_filters[]; /* end with a NULL */
gptvq_value gptvq_tpl_filter(gptvq_tpl *t, gptvq_string name, gptvq_value subject, const gptvq_args *args);
bool gptvq_tpl_test(gptvq_tpl *t, gptvq_string name, gptvq_value subject, const gptvq_args *args);

#endif
