/* A client that means harm: hostile PORT COUNT. Sends COUNT requests that no client should send, each made
 * from its number alone, and looks at what comes back: a status that says whose fault it is, or a closed
 * connection. Exit code 1: a status that blames the server, an answer that is none, or a server that is gone.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static uint64_t state;
static unsigned draw(unsigned below) { /* splitmix64 */
  uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (unsigned)((z ^ z >> 31) % below);
}

static char text[1 << 18];
static size_t size;

static void add(const char *bytes, size_t count) {
  if (count > sizeof text - size) count = sizeof text - size;
  memcpy(text + size, bytes, count);
  size += count;
}
static void say(const char *words) { add(words, strlen(words)); }

static const char *const paths[] = {"/v1/completions",
                                    "/v1/chat/completions",
                                    "/tokenize",
                                    "/detokenize",
                                    "/v1/models",
                                    "/v1/models/..%2f..",
                                    "/metrics",
                                    "/health",
                                    "/",
                                    "/nowhere"};
static const char *const bodies[] = {
    "",
    "{",
    "[]",
    "null",
    "\"prompt\"",
    "{\"prompt\":}",
    "{\"prompt\":{\"a\":1}}",
    "{\"prompt\":[]}",
    "{\"prompt\":[[]]}",
    "{\"prompt\":[1,\"a\"]}",
    "{\"prompt\":[-1]}",
    "{\"prompt\":[1e9]}",
    "{\"prompt\":[999999999]}",
    "{\"prompt\":[99999999999999999999]}",
    "{\"prompt\":\"\xff\xfe\"}",
    "{\"prompt\":\"\\ud800\"}",
    "{\"prompt\":\"a\",\"max_tokens\":-1}",
    "{\"prompt\":\"a\",\"max_tokens\":\"1\"}",
    "{\"prompt\":\"a\",\"max_tokens\":1,\"n\":0}",
    "{\"prompt\":\"a\",\"n\":1000000000}",
    "{\"prompt\":\"a\",\"temperature\":1e999}",
    "{\"prompt\":\"a\",\"temperature\":-1}",
    "{\"prompt\":\"a\",\"top_p\":2}",
    "{\"prompt\":\"a\",\"stop\":[1]}",
    "{\"prompt\":\"a\",\"stop\":{}}",
    "{\"prompt\":\"a\",\"logprobs\":1000}",
    "{\"prompt\":\"a\",\"logprobs\":true}",
    "{\"prompt\":\"a\",\"logit_bias\":{\"x\":1}}",
    "{\"prompt\":\"a\",\"logit_bias\":{\"1\":1000}}",
    "{\"prompt\":\"a\",\"seed\":1.5}",
    "{\"prompt\":\"a\",\"stream\":1}",
    "{\"prompt\":\"a\",\"stream_options\":1}",
    "{\"prompt\":\"a\",\"model\":\"gpt-5\"}",
    "{\"prompt\":\"a\",\"model\":[]}",
    "{\"prompt\":\"a\",\"suffix\":\"b\"}",
    "{\"messages\":1}",
    "{\"messages\":[]}",
    "{\"messages\":[1]}",
    "{\"messages\":[{}]}",
    "{\"messages\":[{\"role\":1,\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"user\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":{}}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"response_format\":{\"type\":\"json_object\"}}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":[{}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"top_logprobs\":3}",
    "{\"content\":1}",
    "{\"tokens\":\"a\"}",
    "{\"tokens\":[\"a\"]}",
    "{\"tokens\":[-5]}",
    "{\"prompt\":\"a\",\"prompt\":\"b\",\"max_tokens\":1}"};
static const char good[] =
    "{\"prompt\":\"Once upon\",\"max_tokens\":2,\"temperature\":0.5,\"logprobs\":1,\"echo\":true,"
    "\"stop\":[\"x\"],\"seed\":3}";

static void add_request(const char *method, const char *path, const char *body, size_t body_size) {
  char head[512];
  (void)snprintf(
      head, sizeof head,
      "%s %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
      "Connection: close\r\n\r\n",
      method, path, body_size);
  say(head);
  add(body, body_size);
}

#define PICK(list) list[draw(sizeof(list) / sizeof((list)[0]))]

/* The bytes of request `number`. */
static void make(unsigned number) {
  static char body[1 << 17];
  state = number;
  size = 0;
  switch (number % 10) {
  case 0: /* a body that is wrong, to any address */
  case 1:
  case 2: {
    const char *wrong = PICK(bodies);
    add_request(draw(8) == 0 ? "DELETE" : draw(8) == 0 ? "GET" : "POST", PICK(paths), wrong, strlen(wrong));
    return;
  }
  case 3: { /* a good one with a few bytes of others in it */
    memcpy(body, good, sizeof good);
    for (unsigned i = 1 + draw(4); i > 0; i--) body[draw(sizeof good - 1)] = (char)draw(256);
    add_request("POST", PICK(paths), body, sizeof good - 1);
    return;
  }
  case 4: /* noise */
    for (unsigned i = draw(2000); i > 0; i--) {
      char byte = (char)draw(256);
      add(&byte, 1);
    }
    say("\r\n\r\n");
    return;
  case 5: { /* deep, or long */
    unsigned depth = 1 + draw(60000);
    memset(body, draw(2) == 0 ? '[' : '{', depth);
    add_request("POST", PICK(paths), body, depth);
    return;
  }
  case 6: /* lengths that lie */
    say("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: ");
    say((const char *const[]){"99999999999999999999", "-1", "abc", "999999999", "3", "0x10"}[draw(6)]);
    say("\r\nConnection: close\r\n\r\n{\"prompt\":\"a\"}");
    return;
  case 7: /* headers that do not end in time */
    say("GET /health HTTP/1.1\r\nHost: localhost\r\n");
    for (unsigned i = draw(3000); i > 0; i--) say("X-Padding: abcdefghijklmnopqrstuvwxyz0123456789\r\n");
    say("Connection: close\r\n\r\n");
    return;
  case 8: /* chunks */
    say("POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
    say((const char *const[]){"ffffffffffffffff\r\n{", "zz\r\n", "2\r\n{}\r\n0\r\n\r\n", "-1\r\n\r\n",
                              "5\r\n{\"pro"}[draw(5)]);
    return;
  default: /* who asks and does not stay: half a request, or a stream that nobody reads */
    add_request("POST", "/v1/completions",
                "{\"prompt\":\"Once upon a time\",\"max_tokens\":200,\"stream\":true}", 61);
    if (draw(2) == 0) size -= draw(60);
  }
}

static int reach(unsigned port) {
  const struct timeval patience = {.tv_sec = 60};
  struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) return -1;
  (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (connect(fd, (const struct sockaddr *)(const void *)&where, sizeof where) == 0) return fd;
  (void)close(fd);
  return -1;
}

/* The status, 0: closed without one, -1: something else, or nothing in a minute. */
static int read_status(int fd) {
  char head[16] = "";
  size_t got = 0;
  while (got < 12) {
    ssize_t n = recv(fd, head + got, 12 - got, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return -1;
    if (n <= 0) return got == 0 ? 0 : -1;
    got += (size_t)n;
  }
  return strncmp(head, "HTTP/1.", 7) == 0 ? atoi(head + 9) : -1;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  unsigned port = (unsigned)atoi(argv[1]), count = (unsigned)atoi(argv[2]), seen[6] = {0};
  for (unsigned i = 0; i < count; i++) {
    int fd = reach(port);
    if (fd < 0) {
      (void)fprintf(stderr, "request %u: nobody is there: %s\n", i, strerror(errno));
      return 1;
    }
    make(i);
    for (size_t at = 0; at < size;) {
      ssize_t n = send(fd, text + at, size - at, MSG_NOSIGNAL);
      if (n <= 0) break; /* it has heard enough */
      at += (size_t)n;
    }
    bool leaves = i % 10 == 9;
    /* where more is announced than comes */
    if (i % 10 == 4 || i % 10 == 6 || i % 10 == 8) (void)shutdown(fd, SHUT_WR);
    int code = leaves ? 0 : read_status(fd);
    (void)close(fd);
    if (code < 0 || (code >= 500 && code != 501 && code != 503 && code != 505)) {
      (void)fprintf(stderr, "request %u: status %d\n", i, code);
      return 1;
    }
    seen[code / 100]++;
  }
  printf("%u answered, %u refused, %u overloaded, %u closed\n", seen[2], seen[4], seen[5], seen[0]);
  return 0;
}
