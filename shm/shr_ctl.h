/*
 * The control socket between the nginx keeper and a pool's supervisor, and
 * between the supervisor and its workers: SOCK_SEQPACKET, in a 0700 directory,
 * peer credentials checked.  Messages are fixed structures; descriptors travel
 * by SCM_RIGHTS, at most SHR_CTL_FDS_MAX in a message.
 */

#ifndef SHR_CTL_H
#define SHR_CTL_H

#include "shm/shr_layout.h"


#define SHR_CTL_FDS_MAX     200
#define SHR_CTL_TEXT_MAX    4096

typedef enum {
    SHR_CTL_ATTACH = 1,     /* keeper: a generation; descriptors follow */
    SHR_CTL_FDS,            /* a part of the descriptors, in order */
    SHR_CTL_OK,             /* answer; text: empty */
    SHR_CTL_REFUSED,        /* answer; text: the reason */
    SHR_CTL_PING,           /* keeper: is this generation attached? */
    SHR_CTL_READY,          /* worker to supervisor: loaded and serving */
    SHR_CTL_DETACH,         /* keeper: this generation needs it no more */
    SHR_CTL_LOG,            /* keeper, supervisor: one descriptor, where log
                               lines go from now on */
    SHR_CTL_MAX
} shr_ctl_type_t;

/*
 * Descriptors of a generation, in this order: lifeline (read end), client
 * regions [nclients], worker regions [nworkers], client bells [nclients],
 * worker doorbells [nworkers].
 */
#define shr_ctl_nfds(geom) (1u + 2u * (geom)->nclients + 2u * (geom)->nworkers)

typedef struct {
    uint32_t    type;                       /* shr_ctl_type_t */
    uint32_t    nfds;                       /* in this message */
    uint64_t    abi_hash;                   /* shr_abi_hash() */
    uint64_t    model_hash;                 /* of the model's configuration */
    uint64_t    generation[2];              /* random, names the generation */
    shr_geom_t  geom;
    uint32_t    worker;                     /* to a worker: its index */
    uint32_t    text_len;
    char        text[SHR_CTL_TEXT_MAX];     /* model configuration or reason */
} shr_ctl_msg_t;


/* Listens at (or connects to) a path; the fd is close-on-exec, non-blocking.
 * Listening replaces a stale socket but not one that answers.  -SHR_ESYS. */
int shr_ctl_listen(const char *path);
int shr_ctl_connect(const char *path);

/* Accepts; refuses (-SHR_EINVAL) a peer that is neither root nor our uid. */
int shr_ctl_accept(int fd);
/* Checks the same of a connected peer. */
int shr_ctl_check_peer(int fd);

/* Sends one message with msg->nfds descriptors; 0, -SHR_EAGAIN, -SHR_ESYS. */
int shr_ctl_send(int fd, const shr_ctl_msg_t *msg, const int *fds);

/* Receives one message; fds must hold SHR_CTL_FDS_MAX.  All descriptors are
 * close-on-exec; after an error none is left open.  0; -SHR_EAGAIN; -SHR_EDONE:
 * the peer has gone; -SHR_EBROKEN; -SHR_ESYS. */
int shr_ctl_recv(int fd, shr_ctl_msg_t *msg, int *fds);

/* Sends an ATTACH with all its descriptors (SHR_CTL_FDS messages as needed). */
int shr_ctl_send_generation(int fd, shr_ctl_msg_t *msg, const int *fds);


#endif /* SHR_CTL_H */
