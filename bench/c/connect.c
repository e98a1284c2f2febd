#include "connect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "system.h"


int connect_to(long port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    set_nodelay(fd);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

int connect_result(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0)
        die("SO_ERROR");
    return error;
}

void watch(int epoll, int change, int fd, uint32_t events, uint64_t key)
{
    struct epoll_event event = {.events = events, .data.u64 = key};
    if (epoll_ctl(epoll, change, fd, &event) < 0)
        die("epoll_ctl");
}

size_t http_head(const char *bytes, size_t length)
{
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    return end == NULL ? 0 : (size_t)(end - bytes) + 4;
}

int http_status(const char *head, size_t length)
{
    if (length < 12 || memcmp(head, "HTTP/1.", 7) != 0)
        return 0;
    return atoi(head + 9); /* "HTTP/1.1 200"; the head ends in CRLF, so atoi stops */
}

const char *http_field(const char *head, size_t length, const char *name)
{
    size_t name_length = strlen(name);
    for (size_t i = 0; i + name_length <= length; i++)
        if (strncasecmp(head + i, name, name_length) == 0) {
            const char *value = head + i + name_length;
            return value + strspn(value, " ");
        }
    return NULL;
}
