/* chasquid's post-data hook: asks the policy service what becomes of a message.
 *
 *     environment       AUTH_AS, MAIL_FROM, RCPT_TO, REMOTE_ADDR, SPF_PASS (chasquid sets them all)
 *     standard input    the message
 *     hook → policy     tambo 1 / login=… / from=… / to=… / remote=… / spf=… / an empty line /
 *                       the message; then this side is shut down
 *     policy → hook     one line: 250, 554 or 451, a space, the reply's text
 *     standard output   nothing, or the text of the refusal as its only line
 *     exit status       0 taken, 20 refused for good (554), 75 refused for now (451)
 *
 * Closed when in doubt: only the line "250 …", after the whole message was handed over, takes it.
 * Whatever else happens within PATIENCE is 75, for mail in both directions.
 *
 * What is printed on acceptance would become a header of the message: so it is nothing. Nothing is
 * allocated; a message of any size goes through one buffer. The words "the policy service" with
 * which a reply for want of an answer begins are counted by entrypoint/maillog.py.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { TAKEN = 0, REFUSED = 20, LATER = 75 };

enum {
    PATIENCE = 9000,       /* milliseconds for all of it; a client shall wait ten seconds at most */
    BUFFER_SIZE = 1 << 16, /* bytes; what a pipe holds; chasquid takes 100 recipients of 256 */
    ANSWER_SIZE = 4096,    /* bytes of the answer's line */
    TEXT_SIZE = 506,       /* bytes of a reply but for its code and CRLF (RFC 5321, 4.5.3.1.5) */
};

static char buffer[BUFFER_SIZE]; /* what is still to be sent is from sent to filled */
static size_t sent, filled;

static char answer[ANSWER_SIZE];
static size_t answered;

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void print(const char *text, size_t size)
{
    while (size > 0) {
        ssize_t written = write(STDOUT_FILENO, text, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return; /* nobody reads it: the status says enough */
        text += written;
        size -= (size_t)written;
    }
}

_Noreturn static void put_off(const char *why)
{
    char line[TEXT_SIZE + 1];
    size_t size = 0;
    const char *parts[] = {"4.3.0 the policy service ", why, "; try again in a minute\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t length = strlen(parts[i]);
        if (length > sizeof line - size)
            length = sizeof line - size;
        memcpy(line + size, parts[i], length);
        size += length;
    }
    print(line, size);
    _exit(LATER);
}

/* Bytes of the printable UTF-8 character (RFC 3629) at the beginning of `text`; 0 if it is none. */
static size_t character(const unsigned char *text, size_t size)
{
    unsigned char first = text[0], low = 0x80, high = 0xBF;
    size_t length;
    if (first < 0x80)
        return first >= ' ' && first != 0x7F;
    if (first >= 0xC2 && first <= 0xDF) {
        length = 2;
        if (first == 0xC2)
            low = 0xA0; /* those below are controls (C1) */
    } else if (first >= 0xE0 && first <= 0xEF) {
        length = 3;
        if (first == 0xE0)
            low = 0xA0; /* else it would be longer than needed */
        if (first == 0xED)
            high = 0x9F; /* surrogates */
    } else if (first >= 0xF0 && first <= 0xF4) {
        length = 4;
        if (first == 0xF0)
            low = 0x90;
        if (first == 0xF4)
            high = 0x8F;
    } else {
        return 0;
    }
    if (length > size || text[1] < low || text[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (text[i] < 0x80 || text[i] > 0xBF)
            return 0;
    return length;
}

/* Print the text of a refusal as one line of printable characters, and end with `status`. */
_Noreturn static void refuse(int status, const char *text, size_t size)
{
    char line[TEXT_SIZE + 1];
    size_t used = 0;
    for (size_t i = 0; i < size;) {
        size_t length = character((const unsigned char *)text + i, size - i);
        size_t taken = length ? length : 1;
        if (used + taken > TEXT_SIZE)
            break;
        if (length)
            memcpy(line + used, text + i, length);
        else
            line[used] = '?';
        used += taken;
        i += taken;
    }
    line[used++] = '\n';
    print(line, used);
    _exit(status);
}

/* Judge the answer, if its line is there; `whole`: whether the service had the whole message. */
static void judge(bool whole)
{
    char *end = memchr(answer, '\n', answered);
    if (!end) {
        if (answered == ANSWER_SIZE)
            put_off("gives no proper answer");
        return;
    }
    size_t size = (size_t)(end - answer);
    if (size + 1 != answered || size < 5 || answer[3] != ' ')
        put_off("gives no proper answer");
    if (memcmp(answer, "554", 3) == 0)
        refuse(REFUSED, answer + 4, size - 4);
    if (memcmp(answer, "451", 3) == 0)
        refuse(LATER, answer + 4, size - 4);
    if (memcmp(answer, "250", 3) == 0 && whole)
        _exit(TAKEN);
    put_off("gives no proper answer");
}

static void add(const char *text)
{
    size_t length = strlen(text);
    if (length > BUFFER_SIZE - filled)
        put_off("cannot be asked: the envelope is too long");
    memcpy(buffer + filled, text, length);
    filled += length;
}

/* One line of the preamble. A value with a control character could add lines of its own. */
static void add_line(const char *name, const char *variable)
{
    const char *value = getenv(variable);
    if (!value)
        put_off("cannot be asked: the envelope is incomplete");
    for (const char *at = value; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7F)
            put_off("cannot be asked: a control character is in the envelope");
    add(name);
    add(value);
    add("\n");
}

static int connected(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = getenv("TAMBO_POLICY"); /* tests; chasquid passes on no such variable */
    if (!path)
        path = "/run/tambo/policy.sock";
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        put_off("does not answer (no such socket)");
    memcpy(address.sun_path, path, length);
    /* It does not wait where too many wait already. */
    int service = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (service >= 0 && service <= STDERR_FILENO)
        put_off("cannot be asked: a standard file is closed");
    if (service < 0 || connect(service, (struct sockaddr *)&address, sizeof address) != 0)
        put_off("does not answer (no connection)");
    return service;
}

int main(void)
{
    int64_t deadline = now() + PATIENCE;
    bool reading = true; /* whether there may be more of the message */
    bool writing = true; /* whether the service may take more */
    bool whole = false;  /* whether it was handed the whole message */

    signal(SIGPIPE, SIG_IGN);
    add("tambo 1\n");
    add_line("login=", "AUTH_AS");
    add_line("from=", "MAIL_FROM");
    add_line("to=", "RCPT_TO");
    add_line("remote=", "REMOTE_ADDR");
    add_line("spf=", "SPF_PASS");
    add("\n");
    int service = connected();

    for (;;) {
        bool pending = writing && sent < filled;
        bool hungry = writing && reading && !pending;
        struct pollfd watched[] = {
            {.fd = service, .events = (short)(POLLIN | (pending ? POLLOUT : 0))},
            {.fd = hungry ? STDIN_FILENO : -1, .events = POLLIN},
        };
        int64_t left = deadline - now();
        int ready = left > 0 ? poll(watched, 2, (int)left) : 0;
        if (ready == 0)
            put_off("does not answer (time-out)");
        if (ready < 0) {
            if (errno == EINTR)
                continue;
            put_off("cannot be asked: poll failed");
        }

        if (watched[0].revents & ~POLLOUT) {
            ssize_t size = read(service, answer + answered, ANSWER_SIZE - answered);
            if (size > 0) {
                answered += (size_t)size;
                judge(whole);
            } else if (size == 0 || (errno != EINTR && errno != EAGAIN)) {
                put_off("does not answer (it hung up)");
            }
        }
        if (pending && watched[0].revents & POLLOUT) {
            ssize_t size = write(service, buffer + sent, filled - sent);
            if (size >= 0)
                sent += (size_t)size;
            else if (errno != EINTR && errno != EAGAIN)
                writing = false; /* it has heard enough; what it said can still be read */
        }
        if (watched[1].revents) {
            ssize_t size = read(STDIN_FILENO, buffer, BUFFER_SIZE);
            if (size > 0) {
                sent = 0;
                filled = (size_t)size;
            } else if (size == 0) {
                reading = false;
            } else if (errno != EINTR && errno != EAGAIN) {
                put_off("cannot be asked: the message cannot be read");
            }
        }
        if (writing && !reading && sent == filled) {
            writing = false;
            whole = shutdown(service, SHUT_WR) == 0;
        }
    }
}
