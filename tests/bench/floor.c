/*
 * floor: what no policy service on this machine can be faster than. One epoll loop that reads up to the empty
 * line and answers DUNNO: it parses nothing, counts nothing, logs nothing. Ours is measured as a share of it.
 *
 *     floor PORT | /PATH
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024
#define EVENTS 256

static const char REPLY[] = "action=DUNNO\n\n";

static int open_listener(const char *address) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons(atoi(address))};
    int one = 1, is_path = address[0] == '/';
    int listener = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    strncpy(local.sun_path, address, sizeof local.sun_path - 1);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr *name = is_path ? (struct sockaddr *)&local : (struct sockaddr *)&inet;
    if (bind(listener, name, is_path ? sizeof local : sizeof inet) || listen(listener, BACKLOG)) {
        perror(address);
        exit(2);
    }
    return listener;
}

static void watch(int poll, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) close(fd);
}

static void admit_all(int poll, int listener) {
    int fd, one = 1;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(poll, fd);
    }
}

static void answer(int fd) {
    static char buffer[16384];
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got <= 0) {
        close(fd);
        return;
    }
    int whole = got > 1 && buffer[got - 1] == '\n' && buffer[got - 2] == '\n';
    if (whole && write(fd, REPLY, sizeof REPLY - 1) < 0) close(fd);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: floor PORT | /PATH\n");
        return 2;
    }
    int listener = open_listener(argv[1]), poll = epoll_create1(0);
    struct epoll_event events[EVENTS];
    watch(poll, listener);
    for (;;) {
        int ready = epoll_wait(poll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                admit_all(poll, listener);
            else
                answer(events[i].data.fd);
        }
    }
}
