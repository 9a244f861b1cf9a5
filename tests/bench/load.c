/*
 * load: asks a policy service as Postfix does. Each connection has one request on its way: the next is sent when
 * the whole reply is there (a closed loop). At the end one line of JSON.
 *
 *     load -a ADDRESS [-c CONNECTIONS] [-n REQUESTS | -s SECONDS] [-k ACCOUNTS] [-z EXPONENT] [-p PREFIX]
 *          [-d STATE] [-r RECIPIENTS] [-i IDLE] [-T TRICKLING] [-R SEED] [-w RATE] [-o FILE] [-S] [-F] [-t]
 *
 *   -a  HOST:PORT (IPv4) or the path of a unix socket
 *   -c  connections (50)                  -n  requests in all, or  -s  seconds (5)
 *   -k  accounts (1000)                   -z  Zipf exponent of their popularity; 0, the default: all alike
 *   -p  how the accounts' names begin (user)
 *   -d  protocol_state: RCPT (the default), DATA or END-OF-MESSAGE
 *   -r  recipient_count at DATA and END-OF-MESSAGE (1)
 *   -i  further connections that are held open and say nothing (0)
 *   -T  further connections that send a request some bytes at a time, a request in 20 s (0)
 *   -R  seed of the choice of accounts (1)
 *   -w  no more requests per second than this, in all; a millisecond's may come at once
 *   -o  write a line for each account that was used: NAME <tab> sent <tab> answered <tab> answered DUNNO
 *   -S  one account after the other, from the first
 *   -F  a new connection for each request
 *   -t  a connection that is lost is not an error: it is used no more
 *
 * Exit status 1: a reply was malformed, or (without -t) a connection was lost or stalled; 2: could not begin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define EVENTS 256
#define REPLY_BYTES 1024
#define REQUEST_BYTES 2048
#define MAX_LATENCIES (1L << 24)
#define STALL_S 20
#define DOMAINS 97
#define TRICKLES_PER_S 20
#define TRICKLE_S 20
#define PAUSE_MS 1

struct connection {
    int fd;
    long account;
    double sent_at;
    size_t filled;
    char reply[REPLY_BYTES];
};

struct trickle {
    int fd, length, sent;
    char request[REQUEST_BYTES];
};

struct account {
    long sent, answered, dunno;
};

static const char *address, *state = "RCPT", *prefix = "user";
static long accounts_count = 1000, recipients = 1, requests_made, sent, lost, live;
static double exponent, *popularity;
static uint64_t random_state = 1;
static struct account *accounts;
static int poll_fd, fresh, tolerant, in_sequence;

static void give_up(const char *what) {
    perror(what);
    exit(2);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

/* splitmix64, by Sebastiano Vigna, public domain */
static uint64_t random64(void) {
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void make_popularity(void) {
    double sum = 0;
    popularity = malloc(accounts_count * sizeof *popularity);
    for (long i = 0; i < accounts_count; i++) popularity[i] = sum += pow(i + 1, -exponent);
    for (long i = 0; i < accounts_count; i++) popularity[i] /= sum;
}

static long choose_account(void) {
    if (in_sequence) return requests_made % accounts_count;
    if (!popularity) return random64() % accounts_count;
    double at = (random64() >> 11) * 0x1p-53;
    long low = 0, high = accounts_count - 1;
    while (low < high) {
        long middle = (low + high) / 2;
        if (popularity[middle] < at) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int write_request(char *buffer, long account) {
    int at_recipient = !strcmp(state, "RCPT");
    long n = ++requests_made;
    return snprintf(buffer, REQUEST_BYTES,
        "request=smtpd_access_policy\nprotocol_state=%s\nprotocol_name=ESMTP\nclient_address=192.0.2.%ld\n"
        "client_name=host-%ld.customers.example.net\nclient_port=40022\n"
        "reverse_client_name=host-%ld.customers.example.net\nserver_address=198.51.100.25\nserver_port=587\n"
        "helo_name=[192.168.1.20]\nsender=%s%ld@d%ld.example.com\nrecipient=recipient%ld@example.org\n"
        "recipient_count=%ld\nqueue_id=%s\ninstance=%x.%lx.%d.0\nsize=12345\netrn_domain=\nstress=\n"
        "sasl_method=PLAIN\nsasl_username=%s%ld@d%ld.example.com\nsasl_sender=\nccert_subject=\nccert_issuer=\n"
        "ccert_fingerprint=\nccert_pubkey_fingerprint=\nencryption_protocol=TLSv1.3\n"
        "encryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\npolicy_context=\n\n",
        state, account % 250 + 1, account, account, prefix, account, account % DOMAINS, n,
        at_recipient ? 0 : recipients, at_recipient ? "" : "4Zq1Xn2PzYz9", (unsigned)getpid(), n, 0,
        prefix, account, account % DOMAINS);
}

static int dial(void) {
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in inet = {.sin_family = AF_INET};
    int one = 1, is_path = address[0] == '/';
    int fd = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) give_up("socket");
    if (is_path) {
        strncpy(local.sun_path, address, sizeof local.sun_path - 1);
        if (connect(fd, (struct sockaddr *)&local, sizeof local)) give_up(address);
        return fd;
    }
    char host[64] = "";
    const char *colon = strrchr(address, ':');
    if (!colon || colon - address >= (long)sizeof host) give_up(address);
    memcpy(host, address, colon - address);
    inet.sin_port = htons(atoi(colon + 1));
    if (inet_pton(AF_INET, host, &inet.sin_addr) != 1 || connect(fd, (struct sockaddr *)&inet, sizeof inet))
        give_up(address);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

static void open_connection(struct connection *c) {
    c->fd = dial();
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, c->fd, &event)) give_up("epoll_ctl");
}

/* Send the connection's next request; 0, or -1 where the connection is lost. */
static int ask(struct connection *c) {
    char buffer[REQUEST_BYTES];
    c->account = choose_account();
    int length = write_request(buffer, c->account);
    c->filled = 0;
    c->sent_at = now();
    accounts[c->account].sent++;
    return send(c->fd, buffer, length, MSG_NOSIGNAL) == length ? 0 : -1;
}

static void ask_next(struct connection *c) {
    sent++;
    if (ask(c)) {
        lost++;
        live--;
    }
}

/* Read what is there; 1 for a whole reply, 0 for a part of one, -1 where the connection is lost. */
static int take_reply(struct connection *c) {
    ssize_t got = read(c->fd, c->reply + c->filled, sizeof c->reply - 1 - c->filled);
    if (got <= 0) return -1;
    c->filled += got;
    c->reply[c->filled] = 0;
    return c->filled > 1 && !strcmp(c->reply + c->filled - 2, "\n\n");
}

/* A timer that is readable TRICKLES_PER_S times a second; its events carry no connection. */
static int open_timer(void) {
    struct itimerspec every = {.it_interval.tv_nsec = 1000000000 / TRICKLES_PER_S};
    every.it_value = every.it_interval;
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    timerfd_settime(timer, 0, &every, NULL);
    if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, timer, &event)) give_up("epoll_ctl");
    return timer;
}

/* The next bytes of every trickling connection whose turn it is: each has one a second. */
static void trickle(int timer, struct trickle *all, long count) {
    static long tick;
    uint64_t expired;
    char reply[REPLY_BYTES];
    if (read(timer, &expired, sizeof expired) < 0) return;
    for (long i = tick++ % TRICKLES_PER_S; i < count; i += TRICKLES_PER_S) {
        struct trickle *t = &all[i];
        if (t->sent == t->length) {
            while (recv(t->fd, reply, sizeof reply, MSG_DONTWAIT) > 0) {}
            t->length = write_request(t->request, choose_account());
            t->sent = 0;
        }
        int part = t->length / TRICKLE_S + 1, left = t->length - t->sent;
        int sent = send(t->fd, t->request + t->sent, part < left ? part : left, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent > 0) t->sent += sent;
    }
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void write_accounts(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) give_up(path);
    for (long i = 0; i < accounts_count; i++)
        if (accounts[i].sent)
            fprintf(file, "%s%ld@d%ld.example.com\t%ld\t%ld\t%ld\n", prefix, i, i % DOMAINS, accounts[i].sent,
                accounts[i].answered, accounts[i].dunno);
    if (fclose(file)) give_up(path);
}

static double share(const float *latencies, long count, double part) {
    return count ? latencies[(long)((count - 1) * part)] : 0;
}

int main(int argc, char **argv) {
    long connections_count = 50, total = 0, idle = 0, trickles_count = 0;
    double seconds = 0, rate = INFINITY;
    const char *out = NULL;
    int option;
    while ((option = getopt(argc, argv, "a:c:n:s:k:z:p:d:r:i:T:R:w:o:SFt")) > 0) switch (option) {
        case 'a': address = optarg; break;
        case 'c': connections_count = atol(optarg); break;
        case 'n': total = atol(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'k': accounts_count = atol(optarg); break;
        case 'z': exponent = atof(optarg); break;
        case 'p': prefix = optarg; break;
        case 'd': state = optarg; break;
        case 'r': recipients = atol(optarg); break;
        case 'i': idle = atol(optarg); break;
        case 'T': trickles_count = atol(optarg); break;
        case 'R': random_state = strtoull(optarg, NULL, 10); break;
        case 'w': rate = atof(optarg); break;
        case 'o': out = optarg; break;
        case 'S': in_sequence = 1; break;
        case 'F': fresh = 1; break;
        case 't': tolerant = 1; break;
        default: return 2;
    }
    if (!address || connections_count < 1 || accounts_count < 1) {
        fprintf(stderr, "load: -a is wanted, and at least one connection and account\n");
        return 2;
    }
    if (!total && !seconds) seconds = 5;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    accounts = calloc(accounts_count, sizeof *accounts);
    if (exponent) make_popularity();
    struct connection *connections = calloc(connections_count, sizeof *connections);
    struct connection **resting = calloc(connections_count, sizeof *resting);
    float *latencies = malloc(MAX_LATENCIES * sizeof *latencies);
    long answered = 0, kept = 0, refused = 0, malformed = 0, stalled = 0, rested = 0, woken = 0;
    poll_fd = epoll_create1(0);
    for (long i = 0; i < connections_count; i++) open_connection(&connections[i]);
    for (long i = 0; i < idle; i++) dial();
    struct trickle *trickles = calloc(trickles_count + 1, sizeof *trickles);
    for (long i = 0; i < trickles_count; i++) trickles[i].fd = dial();
    int timer = trickles_count ? open_timer() : -1;

    double begun = now(), end = seconds ? begun + seconds : INFINITY, heard = begun;
    for (long i = 0; i < connections_count && (!total || sent < total); i++) {
        live++;
        ask_next(&connections[i]);
    }
    struct epoll_event events[EVENTS];
    while (live > 0) {
        int ready = epoll_wait(poll_fd, events, EVENTS, rested > woken ? PAUSE_MS : 1000);
        if ((ready == 0 || timer >= 0) && now() - heard > STALL_S) {
            stalled = live;
            break;
        }
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (!c) {
                trickle(timer, trickles, trickles_count);
                continue;
            }
            int whole = take_reply(c);
            heard = now();
            if (whole < 0) {
                close(c->fd);
                lost++;
                live--;
            }
            if (whole <= 0) continue;
            int is_dunno = !strcasecmp(c->reply, "action=dunno\n\n");
            if (strncmp(c->reply, "action=", 7) || strchr(c->reply, '\n') != c->reply + c->filled - 2) malformed++;
            else if (!is_dunno) refused++;
            accounts[c->account].answered++;
            accounts[c->account].dunno += is_dunno;
            if (kept < MAX_LATENCIES) latencies[kept++] = (heard - c->sent_at) * 1e6;
            answered++;
            if ((total && sent >= total) || heard >= end) {
                live--;
                continue;
            }
            if (fresh) {
                close(c->fd);
                open_connection(c);
            }
            if (sent >= rate * (heard - begun)) {
                resting[rested++ % connections_count] = c;
                continue;
            }
            ask_next(c);
        }
        for (; woken < rested; woken++) {
            double at = now();
            if (at >= end || (total && sent >= total)) live--;
            else if (sent < rate * (at - begun)) ask_next(resting[woken % connections_count]);
            else break;
        }
    }
    double elapsed = now() - begun;
    qsort(latencies, kept, sizeof *latencies, compare);
    if (out) write_accounts(out);
    printf("{\"per_second\": %.1f, \"sent\": %ld, \"answered\": %ld, \"refused\": %ld, \"malformed\": %ld, "
           "\"lost\": %ld, \"stalled\": %ld, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, "
           "\"max_us\": %.1f, \"seconds\": %.3f}\n",
        answered / elapsed, sent, answered, refused, malformed, lost, stalled, share(latencies, kept, 0.5),
        share(latencies, kept, 0.99), share(latencies, kept, 0.999), share(latencies, kept, 1), elapsed);
    return malformed || (!tolerant && (lost || stalled));
}
