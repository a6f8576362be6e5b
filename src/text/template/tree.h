/* text/template/tree.h: a parsed template. */
#ifndef GPTVQ_TEXT_TEMPLATE_TREE_H
#define GPTVQ_TEXT_TEMPLATE_TREE_H

#include "text/template/value.h"

typedef enum gptvq_node_kind {
  /* expressions: what they use of the node */
  GPTVQ_NODE_CONST,           /* value */
  GPTVQ_NODE_NAME,            /* name */
  GPTVQ_NODE_LIST,            /* items */
  GPTVQ_NODE_TUPLE,           /* items */
  GPTVQ_NODE_DICT,            /* items: key, value, key, … */
  GPTVQ_NODE_ATTRIBUTE,       /* a.name */
  GPTVQ_NODE_ITEM,            /* a[b] */
  GPTVQ_NODE_SLICE,           /* a[items: from, to, step, each may be NULL] */
  GPTVQ_NODE_CALL,            /* a(items) */
  GPTVQ_NODE_KEYWORD,         /* name=a, among the items of calls, filters and tests */
  GPTVQ_NODE_SPREAD,          /* *a, likewise */
  GPTVQ_NODE_SPREAD_KEYWORDS, /* **a */
  GPTVQ_NODE_FILTER,          /* a | name(items); a NULL: of a block */
  GPTVQ_NODE_TEST,            /* a is name(items) */
  GPTVQ_NODE_NOT,             /* not a */
  GPTVQ_NODE_AND,             /* a and b */
  GPTVQ_NODE_OR,              /* a or b */
  GPTVQ_NODE_CHOICE,          /* a if b else c; c may be NULL */
  GPTVQ_NODE_COMPARE,         /* a; items: COMPARED nodes */
  GPTVQ_NODE_COMPARED,        /* name (the operator) a */
  GPTVQ_NODE_CONCAT,          /* items joined by ~ */
  GPTVQ_NODE_BINARY,          /* a name b */
  GPTVQ_NODE_SIGN,            /* name (+ or -) a */
  GPTVQ_NODE_MEMBER,          /* value.text of the namespace called name, as a target */
  /* statements */
  GPTVQ_NODE_DATA,     /* name: text */
  GPTVQ_NODE_PRINT,    /* items */
  GPTVQ_NODE_IF,       /* if a: body, else: other */
  GPTVQ_NODE_FOR,      /* for a in b (if c): body, else: other */
  GPTVQ_NODE_SET,      /* a = b */
  GPTVQ_NODE_SET_BODY, /* a = body, through the filters b */
  GPTVQ_NODE_WITH,     /* items: target, value, …; body */
  GPTVQ_NODE_MACRO,    /* name(items: NAME nodes, their `a` the default): body */
  GPTVQ_NODE_CALLER,   /* call (items) a: body */
  GPTVQ_NODE_FILTERED, /* body through the filters a */
  GPTVQ_NODE_SCOPED,   /* body in a scope of its own, which is all that {% generation %} means here */
  GPTVQ_NODE_BREAK,
  GPTVQ_NODE_CONTINUE
} gptvq_node_kind;

typedef struct gptvq_nodes {
  gptvq_node **items;
  size_t count, room;
} gptvq_nodes;

struct gptvq_node {
  gptvq_node_kind kind;
  int line;
  bool takes_caller, takes_keywords,
      takes_rest; /* MACRO, CALLER: the body mentions caller, kwargs, varargs */
  gptvq_string name;
  gptvq_value value;
  gptvq_node *a, *b, *c;
  gptvq_nodes items, body, other;
};

/* Reads a template. Errors leave through t. */
gptvq_nodes gptvq_tpl_parse(gptvq_tpl *t, gptvq_string source);

#endif
