/* server/http/connections.h: until when each connection has to have said what it wants. libmicrohttpd closes
 * those that are silent; one that sends a byte now and then would stay for ever. */
#ifndef GPTVQ_SERVER_HTTP_CONNECTIONS_H
#define GPTVQ_SERVER_HTTP_CONNECTIONS_H

#include <pthread.h>

typedef struct gptvq_connection {
  int socket;
  double deadline; /* gptvq_clock(); 0: none */
  struct gptvq_connection *before, *behind;
} gptvq_connection;

typedef struct gptvq_connections {
  pthread_mutex_t lock;
  gptvq_connection *first;
} gptvq_connections;

void gptvq_connections_init(gptvq_connections *all);
void gptvq_connections_destroy(gptvq_connections *all);
/* NULL: out of memory; the connection is then not watched. */
gptvq_connection *gptvq_connections_add(gptvq_connections *all, int socket);
void gptvq_connections_remove(gptvq_connections *all, gptvq_connection *one);
/* It has said what it wants (0), or has so many seconds from now. `one` may be NULL. */
void gptvq_connections_wait(gptvq_connections *all, gptvq_connection *one, double seconds);
/* Ends those that are late. */
void gptvq_connections_sweep(gptvq_connections *all);

#endif
