/* libpq, as in its manual: wait for the socket, PQconsumeInput, PQnotifies until there is none.
 *
 *   cc -O2 -o target/libpq benches/peers/libpq.c -lpq
 *
 * The protocol is that of ../speed/job.rs. The functions of libpq are declared here, so that no header is needed. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;
typedef struct pgNotify { char *relname; int be_pid; char *extra; struct pgNotify *next; } PGnotify;

PGconn *PQconnectStart(const char *conninfo);
int PQconnectPoll(PGconn *conn); /* 0 failed, 1 reading, 2 writing, 3 ok */
int PQsocket(const PGconn *conn);
int PQsendQuery(PGconn *conn, const char *query);
int PQconsumeInput(PGconn *conn);
int PQisBusy(PGconn *conn);
PGresult *PQgetResult(PGconn *conn);
int PQresultStatus(const PGresult *result);
void PQclear(PGresult *result);
PGnotify *PQnotifies(PGconn *conn);
void PQfreemem(void *ptr);
char *PQerrorMessage(const PGconn *conn);

enum { CONCURRENT_DIALS = 256, EVENTS = 1024 };

static void fail(const char *what, PGconn *conn) {
    fprintf(stderr, "libpq: %s: %s\n", what, conn ? PQerrorMessage(conn) : strerror(errno));
    exit(1);
}

static long long clock_of(clockid_t id) {
    struct timespec time;
    clock_gettime(id, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static long long memory(void) {
    char line[256];
    long long kilobytes = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (status && fgets(line, sizeof line, status)) sscanf(line, "RssAnon: %lld", &kilobytes);
    if (status) fclose(status);
    return kilobytes * 1024;
}

/* Opens sessions that listen, up to 256 concurrently. */
static void dial(PGconn **sessions, int from, int to, const char *host, int port, const char *sslmode) {
    struct { PGconn *conn; int at, is_listening, events; } pending[CONCURRENT_DIALS];
    struct pollfd polled[CONCURRENT_DIALS];
    char conninfo[256];
    int count = 0, begun = from;
    snprintf(conninfo, sizeof conninfo, "host=%s port=%d sslmode=%s user=postgres dbname=postgres", host, port, sslmode);
    while (begun < to || count > 0) {
        while (begun < to && count < CONCURRENT_DIALS) {
            pending[count].conn = PQconnectStart(conninfo);
            pending[count].at = begun++;
            pending[count].is_listening = 0;
            pending[count++].events = POLLOUT;
        }
        for (int i = 0; i < count; i++) {
            polled[i].fd = PQsocket(pending[i].conn);
            polled[i].events = pending[i].events;
        }
        if (poll(polled, count, -1) < 0) fail("poll", NULL);
        for (int i = count - 1; i >= 0; i--) {
            PGconn *conn = pending[i].conn;
            if (!polled[i].revents) continue;
            if (!pending[i].is_listening) {
                switch (PQconnectPoll(conn)) {
                case 1: pending[i].events = POLLIN; break;
                case 2: pending[i].events = POLLOUT; break;
                case 3:
                    if (!PQsendQuery(conn, "LISTEN cache_invalidate")) fail("LISTEN", conn);
                    pending[i].is_listening = 1;
                    pending[i].events = POLLIN;
                    break;
                default: fail("connecting", conn);
                }
                continue;
            }
            if (!PQconsumeInput(conn)) fail("reading", conn);
            if (PQisBusy(conn)) continue;
            for (PGresult *result; (result = PQgetResult(conn)); PQclear(result))
                if (PQresultStatus(result) != 1) fail("LISTEN", conn);
            sessions[pending[i].at] = conn;
            pending[i] = pending[--count];
        }
    }
}

/* Opens the connection for answers. */
static int dial_answers(const char *host, int port) {
    struct sockaddr_un path = { .sun_family = AF_UNIX };
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    int is_path = *host == '/', on = 1, answers = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    snprintf(path.sun_path, sizeof path.sun_path, "%s/.s.PGSQL.%d", host, port);
    if (connect(answers, is_path ? (struct sockaddr *)&path : (struct sockaddr *)&address, is_path ? sizeof path : sizeof address))
        fail("connecting", NULL);
    if (!is_path) setsockopt(answers, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return answers;
}

int main(int argc, char **argv) {
    if (argc != 9) {
        fprintf(stderr, "libpq: takes KIND TASK HOST PORT SSLMODE CONNECTIONS EXPECTED ANSWER_PORT\n");
        return 2;
    }
    const char *task = argv[2], *host = argv[3], *sslmode = argv[5];
    int port = atoi(argv[4]), connections = atoi(argv[6]), answer_port = atoi(argv[8]), answers = -1;
    long long expected = atoll(argv[7]), count = 0;
    long others = connections > 1 ? connections - 1 : 1;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    PGconn **sessions = calloc(connections, sizeof *sessions);
    dial(sessions, 0, 1, host, port, sslmode);
    long long first = memory(), cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID), wall = clock_of(CLOCK_MONOTONIC);
    dial(sessions, 1, connections, host, port, sslmode);
    int watch = epoll_create1(0);
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = sessions[i] };
        epoll_ctl(watch, EPOLL_CTL_ADD, PQsocket(sessions[i]), &event);
    }
    if (!strcmp(task, "wake")) answers = dial_answers(host, answer_port);
    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = clock_of(CLOCK_MONOTONIC) - wall;
    printf("dial_cpu=%lld dial_wall=%lld idle=%lld\n", cpu / others, wall / others, (memory() - first) / others);
    fflush(stdout);
    char line[16];
    if (!fgets(line, sizeof line, stdin)) return 1;

    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID), wall = clock_of(CLOCK_MONOTONIC);
    struct epoll_event events[EVENTS];
    if (!strcmp(task, "poll")) {
        for (; count < expected; count++) {
            if (connections > 1) {
                if (epoll_wait(watch, events, EVENTS, 0)) fail("a notification was received", NULL);
            } else if (!PQconsumeInput(sessions[0]) || PQnotifies(sessions[0])) {
                fail("a notification was received", sessions[0]);
            }
        }
    }
    while (count < expected) {
        int ready = epoll_wait(watch, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            PGconn *conn = events[i].data.ptr;
            if (!PQconsumeInput(conn)) fail("reading", conn);
            for (PGnotify *news; (news = PQnotifies(conn)); PQfreemem(news)) {
                if (answers < 0) count++;
                else if (news->extra[0] == 's') {
                    long long now = clock_of(CLOCK_MONOTONIC);
                    count += write(answers, &now, sizeof now) == sizeof now;
                }
            }
        }
    }
    cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    wall = clock_of(CLOCK_MONOTONIC) - wall;
    printf("cpu=%lld wall=%lld after=%lld\n", cpu, wall, (memory() - first) / others);
    fflush(stdout);
    fgets(line, sizeof line, stdin);
    _exit(0);
}
