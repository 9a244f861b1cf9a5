/*
 * mails: sends mail to a Postfix, as many clients at once as there are SESSIONS, each one message after the other in
 * one session, without pipelining. Each has a login of its own, by XCLIENT, which Postfix must allow. At the end how
 * many messages were accepted.
 *
 *     mails PORT SESSIONS RECIPIENTS SECONDS
 *
 * Exit status 1: Postfix answered something else than that it agrees, or hung up; 2: could not begin.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LINE_BYTES 1024
#define MESSAGE "From: user@example.com\r\nTo: recipient@example.org\r\nSubject: test\r\n\r\ntext\r\n."

static int port;
static FILE *server;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void give_up(const char *what) {
    perror(what);
    exit(2);
}

/* Read one reply, of several lines maybe, which must have this code. */
static void expect(const char *code, const char *asked) {
    char line[LINE_BYTES];
    do {
        if (!fgets(line, sizeof line, server)) {
            fprintf(stderr, "mails: %s: the server hung up\n", asked);
            exit(1);
        }
    } while (line[3] == '-');
    if (strncmp(line, code, 3)) {
        fprintf(stderr, "mails: %s: %s", asked, line);
        exit(1);
    }
}

static void __attribute__((format(printf, 2, 3))) command(const char *code, const char *format, ...) {
    char line[LINE_BYTES];
    va_list values;
    va_start(values, format);
    int length = vsnprintf(line, sizeof line - 2, format, values);
    va_end(values);
    memcpy(line + length, "\r\n", 2);
    if (send(fileno(server), line, length + 2, MSG_NOSIGNAL) != length + 2) give_up("send");
    expect(code, line);
}

static void begin_session(int number) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address)) give_up("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    server = fdopen(fd, "r");
    expect("220", "greeting");
    command("250", "EHLO client.example.net");
    command("220", "XCLIENT LOGIN=user%d@example.com", number);
    command("250", "EHLO client.example.net");
}

static void send_message(int number, int recipients) {
    command("250", "MAIL FROM:<user%d@example.com>", number);
    for (int i = 0; i < recipients; i++) command("250", "RCPT TO:<recipient%d@example.org>", i);
    command("354", "DATA");
    command("250", MESSAGE);
}

/* One client: a session, which begins to send once nobody holds the pipe's other end. How many it has sent. */
static long send_all(int number, int recipients, double seconds, int held) {
    char nothing;
    long sent = 0;
    begin_session(number);
    if (read(held, &nothing, 1)) give_up("read");
    for (double end = now() + seconds; now() < end; sent++) send_message(number, recipients);
    command("221", "QUIT");
    return sent;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "mails: PORT SESSIONS RECIPIENTS SECONDS are wanted\n");
        return 2;
    }
    port = atoi(argv[1]);
    int sessions = atoi(argv[2]), recipients = atoi(argv[3]), holding[2], failed = 0, status;
    double seconds = atof(argv[4]);
    long total = 0, *sent = mmap(NULL, sessions * sizeof *sent, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sent == MAP_FAILED || pipe(holding)) give_up("mails");
    for (int i = 0; i < sessions; i++) {
        pid_t child = fork();
        if (child < 0) give_up("fork");
        if (child) continue;
        close(holding[1]);
        sent[i] = send_all(i, recipients, seconds, holding[0]);
        _exit(0);
    }
    close(holding[1]);
    while (wait(&status) > 0) failed |= status;
    for (int i = 0; i < sessions; i++) total += sent[i];
    printf("%ld\n", total);
    return failed ? 1 : 0;
}
