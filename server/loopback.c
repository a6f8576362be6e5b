#include "server/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <strings.h>

bool gptvq_server_is_loopback(const char *host) {
  struct in_addr four;
  struct in6_addr six;
  if (inet_pton(AF_INET, host, &four) == 1) return ntohl(four.s_addr) >> 24 == 127;
  if (inet_pton(AF_INET6, host, &six) == 1) return IN6_IS_ADDR_LOOPBACK(&six);
  return strcasecmp(host, "localhost") == 0;
}
