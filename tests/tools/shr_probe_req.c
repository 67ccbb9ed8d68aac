/*
 * The requests of shr_probe: built with shr_msg.h, sent and read with
 * shr_client.h, as nginx's module does it, but with text in and out.
 */

#include "tests/tools/shr_probe.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/shr_error.h"
#include "shm/shr_msg.h"


static const char *const  type_names[SHR_F_MAX] = {
    "?", "start", "text", "logprob", "finish", "ids", "offsets", "usage",
    "error", "end", "values", "labels"
};

static uint8_t  request_buf[REQ_MAX] __attribute__((aligned(8)));


static size_t
build(const char *text, uint32_t max_tokens, int chat)
{
    int                rc;
    char               json[LINE_MAX_ + 64];
    shr_req_t          req;
    shr_req_writer_t   w;

    memset(&req, 0, sizeof(req));
    req.task = chat ? SHR_TASK_CHAT : SHR_TASK_COMPLETE;
    req.max_tokens = max_tokens;
    req.n = 1;
    req.top_p = 1;
    req.repetition_penalty = 1;
    req.queued_ns = probe_clock();

    shr_req_begin(&w, request_buf, sizeof(request_buf), &req);
    if (chat) {
        rc = snprintf(json, sizeof(json),
                      "[{\"role\":\"user\",\"content\":\"%s\"}]", text);
        shr_req_add(&w, SHR_R_MESSAGES, json, (size_t) rc);
    } else {
        shr_req_add(&w, SHR_R_PROMPT, text, strlen(text));
    }
    if (shr_req_end(&w) != 0 || shr_req_check(request_buf, w.len) != 0) {
        errno = E2BIG;
        probe_die("request");
    }
    return w.len;
}


int
probe_send(shr_client_t *c, const char *text, uint32_t max_tokens,
    int chat, uint32_t worker, uint32_t *slot)
{
    int     rc;
    size_t  len = build(text, max_tokens, chat);

    rc = shr_client_claim(c, slot);
    if (rc != 0) {
        return rc;
    }
    rc = shr_client_write(c, *slot, request_buf, len);
    if (rc == 0) {
        rc = shr_client_submit(c, *slot, worker);
    }
    if (rc != 0) {
        shr_client_release(c, *slot);
    }
    return rc;
}


request_t *
probe_find(probe_t *p, const char *name)
{
    uint32_t  i;

    for (i = 0; i < REQUESTS_MAX; i++) {
        if (p->requests[i].used && strcmp(p->requests[i].name, name) == 0) {
            return &p->requests[i];
        }
    }
    return NULL;
}


static request_t *
new_request(probe_t *p, const char *name)
{
    uint32_t  i;

    for (i = 0; i < REQUESTS_MAX; i++) {
        if (!p->requests[i].used) {
            memset(&p->requests[i], 0, sizeof(request_t));
            p->requests[i].used = 1;
            snprintf(p->requests[i].name, NAME_MAX_, "%s", name);
            return &p->requests[i];
        }
    }
    errno = ENOSPC;
    probe_die("requests");
    return NULL;
}


void
probe_submit(probe_t *p, const char *name, uint32_t worker, uint32_t max_tokens,
    const char *text, int chat)
{
    int         rc;
    request_t  *r = new_request(p, name);

    r->begin_ns = probe_clock();
    rc = probe_send(p->me, text, max_tokens, chat, worker, &r->slot);
    if (rc != 0) {
        r->used = 0;
        probe_say("error %s: %s", name, shr_strerror(rc));
        return;
    }
    probe_say("submitted %s", name);
}


static void
print_text(const uint8_t *s, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (s[i] < 0x20 || s[i] == '\\' || s[i] == 0x7f) {
            printf("\\x%02x", s[i]);
        } else {
            putchar(s[i]);
        }
    }
}


static void
print_frame(const request_t *r, const shr_frame_t *f, const uint8_t *payload)
{
    shr_error_t   error;
    shr_usage_t   usage;
    shr_finish_t  finish;

    printf("frame %s %s %u ", r->name,
           f->type < SHR_F_MAX ? type_names[f->type] : "?", f->choice);

    switch (f->type) {
    case SHR_F_TEXT:
        print_text(payload, f->len);
        break;
    case SHR_F_ERROR:
        memcpy(&error, payload, sizeof(error));
        printf("%u ", error.code);
        print_text(payload + sizeof(error), f->len - sizeof(error));
        break;
    case SHR_F_USAGE:
        memcpy(&usage, payload, sizeof(usage));
        printf("%u %u %" PRIu64 " %" PRIu64 " %" PRIu64, usage.prompt_tokens,
               usage.completion_tokens, usage.queue_us, usage.prefill_us,
               usage.decode_us);
        break;
    case SHR_F_FINISH:
        memcpy(&finish, payload, sizeof(finish));
        printf("%u %u", finish.reason, finish.tokens);
        break;
    default:
        break;
    }
    putchar('\n');
    fflush(stdout);
}


/* Reads what there is; 1 when something came. */
static int
drain(probe_t *p, request_t *r)
{
    int           rc, news = 0;
    uint8_t       payload[SHR_PAYLOAD_MAX];
    shr_frame_t   frame;

    if (!r->used || r->ended || r->paused) {
        return 0;
    }

    for ( ;; ) {
        rc = shr_client_read(p->me, r->slot, &frame, payload);
        if (rc == -SHR_EAGAIN) {
            if (shr_client_state(p->me, r->slot) == SHR_REQ_LOST) {
                r->ended = 1;
                probe_say("lost %s", r->name);
                return 1;
            }
            return news;
        }
        if (rc != 0) {
            r->ended = 1;
            if (!p->quiet) {
                probe_say("done %s%s%s", r->name, rc == -SHR_EDONE ? "" : " ",
                    rc == -SHR_EDONE ? "" : shr_strerror(rc));
            }
            return 1;
        }
        news = 1;
        if (shr_frame_check(&frame, payload) != 0) {
            probe_say("broken %s", r->name);
        }
        if (frame.type == SHR_F_USAGE) {
            shr_usage_t  usage;

            memcpy(&usage, payload, sizeof(usage));
            p->tokens += usage.completion_tokens;
        }
        if (!p->quiet) {
            print_frame(r, &frame, payload);
        }
    }
}


static void
clear_bell(int fd)
{
    uint64_t  n;

    if (read(fd, &n, sizeof(n)) < 0 && errno != EAGAIN) {
        probe_die("bell");
    }
}


/* 1: somebody had news; waits at most until end_ns. */
static int
wait_news(probe_t *p, uint64_t end_ns)
{
    uint64_t       now = probe_clock();
    struct pollfd  wait;

    if (shr_client_arm(p->me)) {
        return 1;
    }
    wait.fd = probe_bell(p, 0);
    wait.events = POLLIN;
    (void) poll(&wait, 1, now < end_ns
                          ? (int) ((end_ns - now) / 1000000) + 1 : 0);
    clear_bell(wait.fd);
    return probe_clock() < end_ns;
}


static void
poll_workers(probe_t *p)
{
    int       rc;
    uint32_t  w, slot;

    /* Slots are looked at in any case; this empties the completion rings. */
    for (w = 0; w < p->geom.nworkers; w++) {
        while ((rc = shr_client_poll(p->me, w, &slot)) == 0) {
            /* next */
        }
        if (rc == -SHR_EBROKEN) {
            probe_say("broken worker %u", w);
        }
    }
}


void
probe_read(probe_t *p, uint32_t ms)
{
    uint32_t  i, open;
    uint64_t  end = probe_clock() + (uint64_t) ms * 1000000;

    for ( ;; ) {
        poll_workers(p);
        open = 0;
        for (i = 0; i < REQUESTS_MAX; i++) {
            (void) drain(p, &p->requests[i]);
            open += p->requests[i].used && !p->requests[i].ended
                    && !p->requests[i].paused;
        }
        if (open == 0) {
            probe_say("idle");
            return;
        }
        if (!wait_news(p, end)) {
            probe_say("timeout");
            return;
        }
    }
}


/* ---- measuring ---------------------------------------------------------- */

static int
compare(const void *a, const void *b)
{
    uint32_t  x = *(const uint32_t *) a, y = *(const uint32_t *) b;

    return x < y ? -1 : x > y;
}


void
probe_bench(probe_t *p, uint32_t total, uint32_t concurrent, uint32_t worker,
    uint32_t max_tokens, const char *text)
{
    int        rc, news;
    uint32_t   i, sent = 0, done = 0, *us;
    uint64_t   begin = probe_clock(), tokens = p->tokens;

    if (total == 0 || total > BENCH_MAX || concurrent == 0
        || concurrent > REQUESTS_MAX
        || (us = calloc(total, sizeof(*us))) == NULL)
    {
        probe_say("error bench");
        return;
    }
    p->quiet = 1;

    while (done < total) {
        poll_workers(p);
        news = 0;
        for (i = 0; i < concurrent; i++) {
            request_t  *r = &p->requests[i];

            news |= drain(p, r);
            if (r->used && r->ended) {
                us[done++] = (uint32_t) ((probe_clock() - r->begin_ns) / 1000);
                shr_client_release(p->me, r->slot);
                r->used = 0;
            }
            if (!r->used && sent < total) {
                r = new_request(p, "b");
                r->begin_ns = probe_clock();
                rc = probe_send(p->me, text, max_tokens, 0, worker,
                                  &r->slot);
                if (rc != 0) {
                    probe_die(shr_strerror(rc));
                }
                sent++;
                news = 1;
            }
        }
        if (!news && done < total
            && !wait_news(p, probe_clock() + 10000000000ull))
        {
            probe_say("error bench: no answer in 10 s");
            break;
        }
    }

    qsort(us, done, sizeof(*us), compare);
    probe_say("bench %u %.6f %u %u %" PRIu64, done,
        (double) (probe_clock() - begin) / 1e9, done ? us[done / 2] : 0,
        done ? us[(size_t) done * 99 / 100] : 0, p->tokens - tokens);
    p->quiet = 0;
    free(us);
}
