/* Error codes of shm/: functions return 0 or one of these, negated. */

#ifndef SHR_ERROR_H
#define SHR_ERROR_H


enum {
    SHR_OK = 0,
    SHR_EAGAIN,                 /* nothing there now */
    SHR_EFULL,                  /* ring, slots or chunks are used up */
    SHR_ESTALE,                 /* the slot has moved on to a new generation */
    SHR_EDONE,                  /* the response has ended */
    SHR_ELOST,                  /* its worker died while it ran */
    SHR_EBROKEN,                /* the other side wrote what cannot be */
    SHR_EINVAL,                 /* an argument is out of its bounds */
    SHR_ETOOBIG,                /* longer than the buffer or the frame limit */
    SHR_ESYS                    /* a system call failed; errno says why */
};


/* A short text for a code, negated or not. */
const char *shr_strerror(int code);


#endif /* SHR_ERROR_H */
