#include "server/http/connections.h"

#include "base/clock.h"

#include <stdlib.h>
#include <sys/socket.h>

void gptvq_connections_init(gptvq_connections *all) {
  *all = (gptvq_connections){.first = NULL};
  (void)pthread_mutex_init(&all->lock, NULL);
}

void gptvq_connections_destroy(gptvq_connections *all) { (void)pthread_mutex_destroy(&all->lock); }

gptvq_connection *gptvq_connections_add(gptvq_connections *all, int socket) {
  gptvq_connection *one = calloc(1, sizeof *one);
  if (one == NULL) return NULL;
  one->socket = socket;
  (void)pthread_mutex_lock(&all->lock);
  one->behind = all->first;
  if (all->first != NULL) all->first->before = one;
  all->first = one;
  (void)pthread_mutex_unlock(&all->lock);
  return one;
}

void gptvq_connections_remove(gptvq_connections *all, gptvq_connection *one) {
  if (one == NULL) return;
  (void)pthread_mutex_lock(&all->lock);
  if (one->before != NULL) one->before->behind = one->behind;
  else all->first = one->behind;
  if (one->behind != NULL) one->behind->before = one->before;
  (void)pthread_mutex_unlock(&all->lock);
  free(one);
}

void gptvq_connections_wait(gptvq_connections *all, gptvq_connection *one, double seconds) {
  if (one == NULL) return;
  (void)pthread_mutex_lock(&all->lock);
  one->deadline = seconds > 0 ? gptvq_clock() + seconds : 0;
  (void)pthread_mutex_unlock(&all->lock);
}

void gptvq_connections_sweep(gptvq_connections *all) {
  double now = gptvq_clock();
  (void)pthread_mutex_lock(&all->lock);
  for (gptvq_connection *one = all->first; one != NULL; one = one->behind)
    if (one->deadline > 0 && now > one->deadline) (void)shutdown(one->socket, SHUT_RDWR);
  (void)pthread_mutex_unlock(&all->lock);
}
