/*
 * drain: a syslog daemon that throws everything away.
 *
 *     drain PATH          binds a datagram socket; at SIGTERM prints how many datagrams came
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

static volatile sig_atomic_t told;

static void stop(int number) {
    (void)number;
    told = 1;
}

int main(int argc, char **argv) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sigaction action = {.sa_handler = stop}; /* without SA_RESTART: recv ends */
    static char buffer[65536];
    long count = 0;
    if (argc != 2) return 2;
    sigaction(SIGTERM, &action, NULL);
    strncpy(local.sun_path, argv[1], sizeof local.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&local, sizeof local)) {
        perror(argv[1]);
        return 2;
    }
    while (!told)
        if (recv(fd, buffer, sizeof buffer, 0) >= 0) count++;
    printf("%ld\n", count);
    return 0;
}
