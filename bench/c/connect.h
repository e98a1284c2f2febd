/* Connections of the generator to the server. */
#ifndef BENCH_CONNECT_H
#define BENCH_CONNECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an epoll event is about: the kind in the upper half, which one in the lower. */
enum kind { KIND_LISTENER, KIND_PUBLISHER, KIND_PUBLISHERS, KIND_CONTROL };
#define EPOLL_KEY(kind, which) ((uint64_t)(kind) << 32 | (uint32_t)(which))

/* A non-blocking connection under way to 127.0.0.1 with Nagle off; -1 when it was refused at once. */
int connect_to(long port);

/* What the connection attempt came to: 0, or an errno. */
int connect_result(int fd);

/* Watch `fd` in `epoll`; `change` is EPOLL_CTL_ADD or EPOLL_CTL_MOD. */
void watch(int epoll, int change, int fd, uint32_t events, uint64_t key);

/* The length of an HTTP head at the start of `bytes`, with its empty line; 0 when it is not all there. */
size_t http_head(const char *bytes, size_t length);

/* The status of an answer; 0 when it is none. */
int http_status(const char *head, size_t length);

/* The value of a header field, or NULL. `name` is given as "\r\nname:". */
const char *http_field(const char *head, size_t length, const char *name);

#endif
