/*
 * What a worker can still do once it is inside: its work; and what it cannot:
 * everything that one who has taken it over would try.  Each act runs in a
 * process of its own that enters the sandbox first; refused means an error
 * or the end of that process by the kernel, never success.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "worker/wrk_sandbox.h"


#define SUCCEEDED  42               /* exit status of an act */

typedef struct {
    const char  *name;
    int        (*act)(void);        /* 0: it worked */
} act_t;

static char  folder[] = "/tmp/infer-sandbox-XXXXXX";
static char  allowed_file[64], other_file[64], new_file[64];
static int   inside;                /* a socket made before */


static int
read_file(const char *path)
{
    int  fd = open(path, O_RDONLY);

    return fd < 0 ? -1 : close(fd);
}


static int
write_file(const char *path)
{
    int  fd = open(path, O_WRONLY | O_CREAT, 0600);

    return fd < 0 ? -1 : close(fd);
}


static int
act_read_passwd(void)
{
    return read_file("/etc/passwd");
}


static int
act_read_model_again(void)
{
    return read_file(allowed_file);
}


static int
act_create(void)
{
    return write_file(new_file);
}


static int
act_overwrite(void)
{
    return write_file(other_file);
}


static int
act_truncate(void)
{
    return truncate(other_file, 0);
}


static int
act_unlink(void)
{
    return unlink(other_file);
}


static int
act_rename(void)
{
    return rename(other_file, new_file);
}


static int
act_link(void)
{
    return symlink("/etc/passwd", new_file);
}


static int
act_mkdir(void)
{
    return mkdir(new_file, 0700);
}


static int
act_chmod(void)
{
    return chmod(other_file, 0777);
}


static int
act_chdir(void)
{
    return chdir("/");
}


static int
act_exec(void)
{
    char  *const  none[] = { NULL };

    return execve("/bin/true", none, none);
}


static int
act_fork(void)
{
    return fork() < 0 ? -1 : 0;
}


static void *
nothing(void *arg)
{
    return arg;
}


static int
act_thread(void)
{
    pthread_t  thread;

    return pthread_create(&thread, NULL, nothing, NULL) == 0 ? 0 : -1;
}


static int
act_tcp(void)
{
    return socket(AF_INET, SOCK_STREAM, 0) < 0 ? -1 : 0;
}


static int
act_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? -1 : 0;
}


static int
act_connect(void)
{
    struct sockaddr_in  sin = { .sin_family = AF_INET };

    sin.sin_port = htons(9);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    (void) connect(inside, (struct sockaddr *) &sin, sizeof(sin));

    return errno == ECONNREFUSED ? 0 : -1;      /* it got out */
}


static int
act_bind(void)
{
    struct sockaddr_in  sin = { .sin_family = AF_INET };

    return bind(inside, (struct sockaddr *) &sin, sizeof(sin));
}


static int
act_kill(void)
{
    return kill(getppid(), 0);
}


static int
act_tgkill(void)
{
    return (int) syscall(SYS_tgkill, getppid(), getppid(), 0);
}


static int
act_ptrace(void)
{
    return ptrace(PTRACE_SEIZE, getppid(), 0, 0) < 0 ? -1 : 0;
}


static int
act_peek(void)
{
    char          byte;
    struct iovec  here = { &byte, 1 }, there = { folder, 1 };

    return process_vm_readv(getppid(), &here, 1, &there, 1, 0) == 1 ? 0 : -1;
}


static int
act_steal_fd(void)
{
    int  fd = (int) syscall(SYS_pidfd_open, getppid(), 0);

    return syscall(SYS_pidfd_getfd, fd, 0, 0) < 0 ? -1 : 0;
}


static int
act_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}


static int
act_make_code(void)
{
    void  *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return mprotect(p, 4096, PROT_READ | PROT_EXEC);
}


static int
act_ring(void)
{
    struct io_uring_params  params;

    memset(&params, 0, sizeof(params));

    return syscall(SYS_io_uring_setup, 4, &params) < 0 ? -1 : 0;
}


static int
act_memfd(void)
{
    return (int) syscall(SYS_memfd_create, "x", 0) < 0 ? -1 : 0;
}


static int
act_unshare(void)
{
    return unshare(CLONE_NEWUSER);
}


static int
act_mount(void)
{
    return mount("none", folder, "tmpfs", 0, NULL);
}


static int
act_setuid(void)
{
    return setuid(getuid());
}


static int
act_limits(void)
{
    struct rlimit  lim = { 1, 1 };

    return setrlimit(RLIMIT_NOFILE, &lim);
}


static int
act_dumpable(void)
{
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}


static int
act_keyring(void)
{
    return syscall(SYS_keyctl, 0, 0, 0) < 0 ? -1 : 0;
}


static const act_t  acts[] = {
    { "read a file", act_read_passwd },
    { "open the model again", act_read_model_again },
    { "create a file", act_create },
    { "open a file for writing", act_overwrite },
    { "truncate a file", act_truncate },
    { "remove a file", act_unlink },
    { "rename a file", act_rename },
    { "make a link", act_link },
    { "make a folder", act_mkdir },
    { "change a mode", act_chmod },
    { "change the folder", act_chdir },
    { "run a program", act_exec },
    { "make a process", act_fork },
    { "make a thread", act_thread },
    { "make a TCP socket", act_tcp },
    { "make a local socket", act_unix },
    { "connect", act_connect },
    { "bind", act_bind },
    { "signal another process", act_kill },
    { "signal another thread", act_tgkill },
    { "trace a process", act_ptrace },
    { "read a process", act_peek },
    { "take a descriptor", act_steal_fd },
    { "map code", act_code },
    { "turn memory into code", act_make_code },
    { "make an io_uring ring", act_ring },
    { "make a memory file", act_memfd },
    { "make a user namespace", act_unshare },
    { "mount", act_mount },
    { "set the user", act_setuid },
    { "set a limit", act_limits },
    { "become dumpable", act_dumpable },
    { "use a keyring", act_keyring },
};


/* In the child only. */
static void
enter(wrk_sandbox_t *s)
{
    wrk_sandbox_path_t  paths[] = { { allowed_file, WRK_SANDBOX_READ } };

    (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    wrk_sandbox_files(s, paths, 1);
    wrk_sandbox_calls(s);
}


/* The status of a child that does it inside. */
static int
try(int (*act)(void))
{
    int            status;
    pid_t          pid;
    wrk_sandbox_t  s = { 0, 0, 0 };

    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        enter(&s);
        _exit(act() == 0 ? SUCCEEDED : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);

    return status;
}


static int
has_seccomp(void)
{
    int            status;
    wrk_sandbox_t  s = { 0, 0, 0 };

    fflush(NULL);
    if (fork() == 0) {
        enter(&s);
        _exit(s.seccomp ? SUCCEEDED : 0);
    }
    (void) wait(&status);

    return WIFEXITED(status) && WEXITSTATUS(status) == SUCCEEDED;
}


static void
test_refused(void **state)
{
    int     status, bad = 0;
    size_t  i;

    (void) state;

    if (!has_seccomp()) {
        skip();
    }
    for (i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        status = try(acts[i].act);
        if (WIFEXITED(status) && WEXITSTATUS(status) == SUCCEEDED) {
            print_error("inside one can %s\n", acts[i].name);
            bad = 1;
        }
    }
    assert_int_equal(bad, 0);

    /* An act that fails outside as well proves nothing. */
    assert_int_equal(act_read_passwd(), 0);
    assert_int_equal(act_code(), 0);
    assert_int_equal(act_tcp(), 0);
    assert_int_equal(act_create(), 0);
    assert_int_equal(act_thread(), 0);
}


static int
work(void)
{
    int              pair[2], event;
    char             byte = 'x', buf[64];
    uint64_t         one = 1;
    struct iovec     iov = { &byte, 1 };
    struct msghdr    msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    struct timespec  ts = { 0, 1000 };

    pair[0] = inside;
    pair[1] = inside + 1;
    event = inside + 2;

    if (sendmsg(pair[0], &msg, 0) != 1 || recvmsg(pair[1], &msg, 0) != 1
        || write(event, &one, sizeof(one)) != sizeof(one)
        || read(event, &one, sizeof(one)) != sizeof(one)
        || nanosleep(&ts, NULL) != 0
        || snprintf(buf, sizeof(buf), "%d", (int) getpid()) <= 0)
    {
        return -1;
    }
    free(malloc(1 << 24));          /* mmap and munmap */

    return mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}


static int
work_abort(void)
{
    abort();
}


static void
test_allowed(void **state)
{
    int  status, pair[2], event, old = inside;

    (void) state;

    if (!has_seccomp()) {
        skip();
    }

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    event = eventfd(0, 0);
    assert_int_equal(pair[1], pair[0] + 1);
    assert_int_equal(event, pair[0] + 2);
    inside = pair[0];

    status = try(work);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), SUCCEEDED);

    /* A failed assertion still ends as one. */
    status = try(work_abort);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);

    inside = old;
    close(pair[0]);
    close(pair[1]);
    close(event);
}


static int
files_only(void)
{
    wrk_sandbox_t       s = { 0, 0, 0 };
    wrk_sandbox_path_t  paths[] = {
        { allowed_file, WRK_SANDBOX_READ },
        { "/nowhere/at/all", WRK_SANDBOX_READ },
        { "", WRK_SANDBOX_CACHE },
        { NULL, WRK_SANDBOX_READ }
    };

    (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    wrk_sandbox_files(&s, paths, sizeof(paths) / sizeof(paths[0]));
    if (s.landlock == 0) {
        return 77;
    }

    return read_file(allowed_file) == 0 && write_file(allowed_file) != 0
           && read_file(other_file) != 0 && read_file("/etc/passwd") != 0
           && write_file(new_file) != 0 ? SUCCEEDED : 1;
}


static int
cache_and_links(void)
{
    char                link[128], root[128], beyond[160];
    wrk_sandbox_t       s = { 0, 0, 0 };
    wrk_sandbox_path_t  paths[] = {
        { folder, WRK_SANDBOX_READ },
        { "/dev/shm", WRK_SANDBOX_CACHE }
    };

    /* a link out of the folder, as download caches have them */
    snprintf(link, sizeof(link), "%s/link", folder);
    /* and one to a folder, which no model needs: nothing below it opens */
    snprintf(root, sizeof(root), "%s/root", folder);
    snprintf(beyond, sizeof(beyond), "%s/etc/passwd", root);
    if (symlink(other_file, link) != 0 || symlink("/", root) != 0
        || read_file(beyond) != 0)
    {
        return 1;
    }
    (void) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    wrk_sandbox_files(&s, paths, sizeof(paths) / sizeof(paths[0]));
    snprintf(new_file, sizeof(new_file), "/dev/shm/infer-sandbox-%d",
             (int) getpid());

    return read_file(allowed_file) == 0 && write_file(allowed_file) != 0
           && read_file(link) == 0 && read_file("/etc/passwd") != 0
           && read_file(beyond) != 0
           && write_file(new_file) == 0 && unlink(new_file) == 0
           && unlink(link) != 0 ? SUCCEEDED : 1;
}


static void
in_child(int (*act)(void))
{
    int    status;
    pid_t  pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        _exit(act());
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), SUCCEEDED);
}


static void
test_files(void **state)
{
    (void) state;

    in_child(files_only);
    in_child(cache_and_links);
}


static void
test_text(void **state)
{
    char           text[64];
    wrk_sandbox_t  s = { 0, 5, 1 };

    (void) state;

    wrk_sandbox_text(&s, text, sizeof(text));
    assert_string_equal(text, "landlock 5, seccomp");
    s.landlock = s.seccomp = 0;
    wrk_sandbox_text(&s, text, sizeof(text));
    assert_string_equal(text, "no landlock, no seccomp");
    s.off = 1;
    wrk_sandbox_text(&s, text, sizeof(text));
    assert_string_equal(text, "no sandbox");
}


static int
setup(void **state)
{
    (void) state;

    if (mkdtemp(folder) == NULL) {
        return -1;
    }
    snprintf(allowed_file, sizeof(allowed_file), "%s/model", folder);
    snprintf(other_file, sizeof(other_file), "%s.other", folder);
    snprintf(new_file, sizeof(new_file), "%s.new", folder);
    inside = socket(AF_INET, SOCK_STREAM, 0);

    return write_file(allowed_file) + write_file(other_file);
}


static int
teardown(void **state)
{
    char  link[128];

    (void) state;

    snprintf(link, sizeof(link), "%s/link", folder);
    (void) unlink(link);
    snprintf(link, sizeof(link), "%s/root", folder);
    (void) unlink(link);
    (void) unlink(allowed_file);
    (void) unlink(other_file);
    (void) unlink(new_file);
    (void) rmdir(folder);

    return 0;
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_text),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
