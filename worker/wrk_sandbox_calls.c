/*
 * System calls: a seccomp filter for all threads, and resource limits.
 *
 * Three answers: what serving needs is allowed; what no C library would try by
 * itself and an intruder would (a program, a process, a socket, a debugger)
 * ends the process; all else is refused with EPERM, because the next C
 * library may try something new and harmless.
 */

#include "worker/wrk_sandbox.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "worker/wrk_log.h"


#if defined(__x86_64__)
#define ARCH  AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH  AUDIT_ARCH_AARCH64
#endif

#define X32_BIT      0x40000000u    /* calls of the x32 ABI */
#define NOFILE_MAX   4096           /* generations bring descriptors */
#define FILTER_MAX   256

static const int  allowed[] = {
    /* memory */
    SYS_brk, SYS_munmap, SYS_mremap, SYS_madvise,
    /* descriptors that are already there, or come through the socket */
    SYS_read, SYS_write, SYS_writev, SYS_pread64, SYS_close, SYS_fstat,
    SYS_newfstatat, SYS_fcntl, SYS_lseek, SYS_recvmsg, SYS_sendmsg,
    SYS_pidfd_open, SYS_dup3,
    /* waiting */
    SYS_io_uring_enter, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2,
    SYS_ppoll, SYS_futex, SYS_nanosleep, SYS_clock_nanosleep,
    SYS_sched_yield, SYS_restart_syscall,
#if defined(SYS_poll)
    SYS_poll, SYS_epoll_wait,
#endif
    /* clocks and numbers */
    SYS_clock_gettime, SYS_gettimeofday, SYS_getrandom, SYS_getpid,
    SYS_gettid, SYS_getrusage, SYS_sched_getaffinity,
    /* a thread that has not run yet begins with these */
#if defined(SYS_rseq)
    SYS_rseq,
#endif
    SYS_set_robust_list,
    /* signals of our own, the end */
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_sigaltstack,
    SYS_exit, SYS_exit_group
};

/* Pages that are to be executed are refused. */
static const int  unless_exec[] = { SYS_mmap, SYS_mprotect };

static const int  deadly[] = {
    SYS_execve, SYS_execveat, SYS_ptrace, SYS_process_vm_readv,
    SYS_process_vm_writev, SYS_socket, SYS_connect, SYS_bind, SYS_listen,
    SYS_accept4, SYS_clone, SYS_kill, SYS_bpf, SYS_init_module,
    SYS_finit_module, SYS_mount, SYS_unshare, SYS_setns, SYS_pidfd_getfd,
    SYS_setuid, SYS_setgid, SYS_setresuid, SYS_setresgid
#if defined(SYS_fork)
    , SYS_fork, SYS_vfork
#endif
};

typedef struct {
    struct sock_filter  code[FILTER_MAX];
    unsigned short      n;
} filter_t;


static void
put(filter_t *f, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
    if (f->n < FILTER_MAX) {
        f->code[f->n] = (struct sock_filter) { code, jt, jf, k };
    }
    f->n++;
}


static void
load_word(filter_t *f, size_t offset)
{
    put(f, BPF_LD | BPF_W | BPF_ABS, (uint32_t) offset, 0, 0);
}


static void
answer(filter_t *f, uint32_t what)
{
    put(f, BPF_RET | BPF_K, what, 0, 0);
}


/* The call's number is in the accumulator, before and after. */
static void
on_calls(filter_t *f, const int *calls, size_t n, uint32_t what)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) calls[i], 0, 1);
        answer(f, what);
    }
}


/* Argument `arg` has none of the bits: allowed; else EPERM.  Only its low
 * word is looked at, where all flags are. */
static void
on_bits(filter_t *f, int call, unsigned arg, uint32_t bits)
{
    put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) call, 0, 4);
    load_word(f, offsetof(struct seccomp_data, args) + arg * 8);
    put(f, BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1);
    answer(f, SECCOMP_RET_ERRNO | EPERM);
    answer(f, SECCOMP_RET_ALLOW);
}


/* Argument `arg` is `value`: allowed; else the end. */
static void
on_value(filter_t *f, int call, unsigned arg, uint32_t value)
{
    put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t) call, 0, 4);
    load_word(f, offsetof(struct seccomp_data, args) + arg * 8);
    put(f, BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1);
    answer(f, SECCOMP_RET_ALLOW);
    answer(f, SECCOMP_RET_KILL_PROCESS);
}


static void
make_filter(filter_t *f)
{
    size_t  i;

#if defined(ARCH)
    load_word(f, offsetof(struct seccomp_data, arch));
    put(f, BPF_JMP | BPF_JEQ | BPF_K, ARCH, 1, 0);
    answer(f, SECCOMP_RET_KILL_PROCESS);
#endif
    load_word(f, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
    put(f, BPF_JMP | BPF_JGE | BPF_K, X32_BIT, 0, 1);
    answer(f, SECCOMP_RET_KILL_PROCESS);
#endif

    on_calls(f, allowed, sizeof(allowed) / sizeof(allowed[0]),
             SECCOMP_RET_ALLOW);
    for (i = 0; i < sizeof(unless_exec) / sizeof(unless_exec[0]); i++) {
        on_bits(f, unless_exec[i], 2, PROT_EXEC);
    }
    /* abort() sends its signal to itself; nobody else gets one */
    on_value(f, SYS_tgkill, 0, (uint32_t) getpid());
    on_calls(f, deadly, sizeof(deadly) / sizeof(deadly[0]),
             SECCOMP_RET_KILL_PROCESS);
    answer(f, SECCOMP_RET_ERRNO | EPERM);
}


static void
limit(int what, rlim_t max)
{
    struct rlimit  lim;

    if (getrlimit(what, &lim) != 0) {
        return;
    }
    if (lim.rlim_max > max) {
        lim.rlim_max = max;
    }
    if (lim.rlim_cur > lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
    }
    (void) setrlimit(what, &lim);
}


void
wrk_sandbox_calls(wrk_sandbox_t *s)
{
    static filter_t    filter;
    struct sock_fprog  prog;

    if (s->off) {
        return;
    }

    limit(RLIMIT_CORE, 0);          /* a core would hold prompts */
    limit(RLIMIT_NOFILE, NOFILE_MAX);

#if defined(ARCH)
    make_filter(&filter);
    prog.len = filter.n;
    prog.filter = filter.code;

    if (filter.n > FILTER_MAX) {
        wrk_log(WRK_LOG_ALERT, "seccomp: the filter is too long");
        return;
    }
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                SECCOMP_FILTER_FLAG_TSYNC, &prog) == 0)
    {
        s->seccomp = 1;
    }
#else
    (void) filter;
    (void) prog;
#endif
}
