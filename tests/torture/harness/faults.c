/* Fault injection for file system calls. Counts every call that changes something below the folder `root`. At call
 * number `at`, depending on the mode, this call or all calls from it on fail, the process group is killed, or the folder
 * is moved away.
 *
 * Loaded with LD_PRELOAD; inactive until faults_arm is called. Writes one line per call to `log`: number, kind, bytes,
 * path.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum {
    COUNT,  /* only count and log */
    ONCE,   /* call `at` fails with errno `reason` */
    ALWAYS, /* call `at` and all later ones fail */
    KILL,   /* SIGKILL to the process group before call `at` */
    TORN,   /* the same after the first half of the write */
    MOVE    /* rename the folder before call `at` */
};

static char root[PATH_MAX];
static int log_file = -1, mode = COUNT, reason, at;
static int *calls; /* shared with child processes */

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void arm(const char *folder, const char *log, int mode_, int at_, int reason_) {
    char count[PATH_MAX + 8];
    int file;
    snprintf(count, sizeof count, "%s.calls", log);
    file = REAL(open)(count, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (REAL(ftruncate)(file, sizeof *calls)) abort();
    calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    strncpy(root, folder, sizeof root - 1);
    mode = mode_, at = at_, reason = reason_;
    log_file = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

void faults_arm(const char *folder, const char *log, int mode_, int at_, int reason_) {
    arm(folder, log, mode_, at_, reason_);
    *calls = 0;
}

/* Arm the child processes: LGBATCH_FAULTS holds the lines folder, log, mode, at and reason. */
__attribute__((constructor)) static void arm_child(void) {
    char folder[PATH_MAX], log[PATH_MAX], *faults = getenv("LGBATCH_FAULTS");
    int mode_, at_, reason_;
    if (faults && sscanf(faults, "%[^\n]\n%[^\n]\n%d\n%d\n%d", folder, log, &mode_, &at_, &reason_) == 5)
        arm(folder, log, mode_, at_, reason_);
}

static int inside(const char *path) {
    size_t length = strlen(root);
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

/* Whether a path is below `root`, relative to the open folder `folder`. NULL means the open file `folder` itself. */
static int is_watched(int folder, const char *path) {
    char link[64], full[2 * PATH_MAX] = "";
    if (log_file < 0) return 0;
    if (!path || path[0] != '/') {
        ssize_t n;
        snprintf(link, sizeof link, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        if ((n = readlink(link, full, PATH_MAX - 1)) < 0) return 0;
        full[n] = 0;
        if (path) strcat(strcat(full, "/"), path);
        return inside(full);
    }
    return inside(path);
}

/* Count and log a call. Returns 1 if it has to fail, with errno set. `grows`: the call needs disk space. `bytes`: size of
 * a write. Sets *half if the caller has to write the first half only. */
static int fails(const char *what, int folder, const char *path, int grows, size_t bytes, int *half) {
    char line[PATH_MAX + 64], link[64], full[PATH_MAX + 8] = "";
    int number, now, length, saved = errno;
    if (!is_watched(folder, path)) { errno = saved; return 0; }
    number = __atomic_add_fetch(calls, 1, __ATOMIC_SEQ_CST);
    if (!path) {
        ssize_t n;
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if ((n = readlink(link, full, PATH_MAX - 1)) > 0) full[n] = 0;
    }
    length = snprintf(line, sizeof line, "%d\t%s\t%zu\t%s\n", number, what, bytes, path ? path : full);
    if (REAL(write)(log_file, line, length) != length) abort();
    errno = saved;
    now = number == at || (mode == ALWAYS && number > at);
    if (mode == COUNT || !now) return 0;
    if (mode == KILL) kill(0, SIGKILL);
    if (mode == MOVE) {
        snprintf(full, sizeof full, "%s moved", root);
        if (REAL(rename)(root, full)) abort();
        errno = saved;
        return 0;
    }
    if (mode == TORN) {
        *half = bytes > 1;
        if (!*half) kill(0, SIGKILL);
        return 0;
    }
    if (!grows && (reason == ENOSPC || reason == EDQUOT)) return 0;
    if (mode == ALWAYS && number == at && bytes > 1 && (reason == ENOSPC || reason == EDQUOT)) {
        *half = 1; /* the last write before the disk is full is a short one */
        return 0;
    }
    errno = reason;
    return 1;
}

/* In mode TORN, die after the first half of a write. */
static ssize_t after_half(ssize_t done) {
    if (mode == TORN) kill(0, SIGKILL);
    return done;
}

#define FAIL(result, what, folder, path, grows) \
    do { int half_ = 0; if (fails(what, folder, path, grows, 0, &half_)) return result; } while (0)

ssize_t write(int fd, const void *data, size_t n) {
    int half = 0;
    if (fails("write", fd, NULL, 1, n, &half)) return -1;
    return half ? after_half(REAL(write)(fd, data, n / 2)) : REAL(write)(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t where) {
    int half = 0;
    if (fails("pwrite", fd, NULL, 1, n, &half)) return -1;
    return half ? after_half(REAL(pwrite)(fd, data, n / 2, where)) : REAL(pwrite)(fd, data, n, where);
}

ssize_t pwrite64(int fd, const void *data, size_t n, off64_t where) { return pwrite(fd, data, n, where); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t n = 0;
    int half = 0, i;
    for (i = 0; i < count; i++) n += parts[i].iov_len;
    if (fails("writev", fd, NULL, 1, n, &half)) return -1;
    return half ? after_half(REAL(write)(fd, parts[0].iov_base, parts[0].iov_len)) : REAL(writev)(fd, parts, count);
}

ssize_t sendfile(int to, int from, off_t *where, size_t n) {
    ssize_t (*real)(int, int, off_t *, size_t) = dlsym(RTLD_NEXT, "sendfile");
    FAIL(-1, "sendfile", to, NULL, 1);
    return real(to, from, where, n);
}

ssize_t sendfile64(int to, int from, off_t *where, size_t n) { return sendfile(to, from, where, n); }

ssize_t copy_file_range(int from, off_t *where, int to, off_t *there, size_t n, unsigned flags) {
    FAIL(-1, "copy_file_range", to, NULL, 1);
    return REAL(copy_file_range)(from, where, to, there, n, flags);
}

int fsync(int fd) { FAIL(-1, "fsync", fd, NULL, 1); return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL(-1, "fdatasync", fd, NULL, 1); return REAL(fdatasync)(fd); }

int ftruncate(int fd, off_t size) {
    struct stat now;
    int grows = fstat(fd, &now) || size > now.st_size;
    FAIL(-1, "ftruncate", fd, NULL, grows);
    return REAL(ftruncate)(fd, size);
}

int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT; }

#define OPENED(call) \
    mode_t mode_ = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list rest; va_start(rest, flags); mode_ = va_arg(rest, mode_t); va_end(rest); } \
    if (writes(flags)) FAIL(-1, "open", folder, path, flags & O_CREAT); \
    return call

int openat(int folder, const char *path, int flags, ...) { OPENED(REAL(openat)(folder, path, flags, mode_)); }
int openat64(int folder, const char *path, int flags, ...) { OPENED(REAL(openat)(folder, path, flags, mode_)); }
int open(const char *path, int flags, ...) { int folder = AT_FDCWD; OPENED(REAL(openat)(folder, path, flags, mode_)); }
int open64(const char *path, int flags, ...) { int folder = AT_FDCWD; OPENED(REAL(openat)(folder, path, flags, mode_)); }

FILE *fopen(const char *path, const char *how) {
    if (strpbrk(how, "wa+")) FAIL(NULL, "open", AT_FDCWD, path, 1);
    return REAL(fopen)(path, how);
}

FILE *fopen64(const char *path, const char *how) { return fopen(path, how); }

int mkdirat(int folder, const char *path, mode_t m) { FAIL(-1, "mkdir", folder, path, 1); return REAL(mkdirat)(folder, path, m); }
int mkdir(const char *path, mode_t m) { return mkdirat(AT_FDCWD, path, m); }
int unlinkat(int folder, const char *path, int flags) {
    FAIL(-1, flags ? "rmdir" : "unlink", folder, path, 0);
    return REAL(unlinkat)(folder, path, flags);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) { struct stat s; return !lstat(path, &s) && S_ISDIR(s.st_mode) ? rmdir(path) : unlink(path); }
int renameat(int a, const char *from, int b, const char *to) { FAIL(-1, "rename", b, to, 1); return REAL(renameat)(a, from, b, to); }
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }
