/* Makes calls fail as network file systems do, for paths below $NETWORK_FOLDER. The letters of $NETWORK_FAULTS:
   f: flock fails with ENOLCK; l: fcntl locks fail with ENOLCK; d: fsync of a folder fails with EINVAL. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int fails(int fd, char fault) {
    char link[64], path[4096];
    const char *root = getenv("NETWORK_FOLDER"), *faults = getenv("NETWORK_FAULTS");
    if (!root || !faults || !strchr(faults, fault)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && (size_t)length >= strlen(root) && !strncmp(path, root, strlen(root));
}

int flock(int fd, int operation) {
    if (!(operation & LOCK_UN) && fails(fd, 'f')) return errno = ENOLCK, -1;
    return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(fd, operation);
}

static int lock_fails(int fd, int command, void *argument) {
    int locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK;
    return locks && ((struct flock *)argument)->l_type != F_UNLCK && fails(fd, 'l');
}

#define FCNTL(name)                                                                        \
    int name(int fd, int command, ...) {                                                   \
        va_list list;                                                                      \
        va_start(list, command);                                                           \
        void *argument = va_arg(list, void *);                                             \
        va_end(list);                                                                      \
        if (lock_fails(fd, command, argument)) return errno = ENOLCK, -1;                  \
        return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, #name))(fd, command, argument);   \
    }
FCNTL(fcntl)
FCNTL(fcntl64)

int fsync(int fd) {
    struct stat status;
    if (fstat(fd, &status) == 0 && S_ISDIR(status.st_mode) && fails(fd, 'd')) return errno = EINVAL, -1;
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
