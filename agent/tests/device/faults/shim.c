// What power, disk and clock do to a program: preloaded into the agent by the tests of faults.
//
// Counts the program's operations on files below one folder, and lets a chosen stretch of them
// fail, come short, or end the process by SIGKILL. A kill takes the power along: what was written
// and not flushed by then is cut to half its length. Never part of a product.
//
//   FAULT_FOLDER   operations on files below it are counted; nothing else is touched
//   FAULT_COUNTED  which: any of the letters o(pen) r(ead) w(rite) f(sync) m(ove) u(nlink) t(runcate)
//   FAULT_AMONG    of these, only paths that hold this text are counted; empty: all
//   FAULT_HOW      enospc, eio, short (writes only), kill (before the operation), killed (after it)
//   FAULT_FIRST, FAULT_LAST   the first and the last counted operation that it happens to, from 1
//   FAULT_LOG      gets a line for each of them: its number, its letter, its path
//   FAULT_CLOCK    a file with a number of seconds, by which the clock is ahead

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

// Descriptors that are watched; the agent has a few dozen.
#define FILES_MAX 4096
// Descriptors from here on keep files that were closed before they were flushed.
#define KEPT_FROM 512
// Files that were written and closed without a flush, at most.
#define UNFLUSHED_MAX 256

enum fate { AS_EVER, FAILS, COMES_SHORT, KILLED_AFTER };

static char folder[4096], counted[16] = "orwfmut", how[16], among[256], clock_file[4096];
static size_t folder_length;
static unsigned long first = 0, last = 0;
static int log_file = -1;
static atomic_ulong operations;
// 1: below the folder; 2: and written since it was flushed.
static atomic_char watched[FILES_MAX];
static atomic_int unflushed[UNFLUSHED_MAX];
static atomic_uint unflushed_next;

static void copied(char *to, size_t size, const char *name) {
    const char *value = getenv(name);
    if (value) snprintf(to, size, "%s", value);
}

__attribute__((constructor)) static void begin(void) {
    copied(folder, sizeof folder, "FAULT_FOLDER");
    folder_length = strlen(folder);
    copied(counted, sizeof counted, "FAULT_COUNTED");
    copied(among, sizeof among, "FAULT_AMONG");
    copied(how, sizeof how, "FAULT_HOW");
    copied(clock_file, sizeof clock_file, "FAULT_CLOCK");
    char number[32] = "0";
    copied(number, sizeof number, "FAULT_FIRST");
    first = strtoul(number, NULL, 10);
    copied(number, sizeof number, "FAULT_LAST");
    last = strtoul(number, NULL, 10);
    const char *log = getenv("FAULT_LOG");
    if (log) log_file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    // The worker runs without it.
    unsetenv("LD_PRELOAD");
}

static int is_below(const char *path) {
    return folder_length > 0 && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

// Where a watched descriptor leads; "" if it is another file by now.
static void path_of(int file, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}

static int is_watched(int file) { return file >= 0 && file < FILES_MAX && watched[file]; }

static void cut(int file) {
    struct stat about;
    if (file >= 0 && fstat(file, &about) == 0 && S_ISREG(about.st_mode))
        syscall(SYS_ftruncate, file, about.st_size / 2);
}

static void lose_power(void) {
    for (int file = 0; file < FILES_MAX; file++)
        if (watched[file] == 2) cut(file);
    for (int i = 0; i < UNFLUSHED_MAX; i++)
        if (unflushed[i]) cut(unflushed[i] - 1);
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

// Counts an operation and says what becomes of it; errno is set if it fails.
static enum fate fate(char letter, const char *path) {
    if (!strchr(counted, letter) || !strstr(path, among)) return AS_EVER;
    unsigned long number = ++operations;
    if (number < first || number > last) return AS_EVER;
    if (!strcmp(how, "short") && letter != 'w') return AS_EVER;
    if (log_file >= 0) {
        char line[4200];
        int length = snprintf(line, sizeof line, "%lu %c %s\n", number, letter, path);
        syscall(SYS_write, log_file, line, (size_t)length);
    }
    if (!strcmp(how, "kill")) lose_power();
    if (!strcmp(how, "killed")) return KILLED_AFTER;
    if (!strcmp(how, "short")) return COMES_SHORT;
    errno = !strcmp(how, "enospc") ? ENOSPC : EIO;
    return FAILS;
}

static enum fate fate_of_file(char letter, int file) {
    if (!is_watched(file)) return AS_EVER;
    char path[4096];
    path_of(file, path, sizeof path);
    return is_below(path) ? fate(letter, path) : AS_EVER;
}

static long ended(enum fate fate, long result) {
    if (fate == KILLED_AFTER) lose_power();
    return result;
}

static int opened(int folder_file, const char *path, int flags, mode_t mode) {
    enum fate fate_here = is_below(path) ? fate('o', path) : AS_EVER;
    if (fate_here == FAILS) return -1;
    int file = syscall(SYS_openat, folder_file, path, flags, mode);
    if (file >= 0 && file < FILES_MAX) watched[file] = is_below(path) ? 1 : 0;
    return ended(fate_here, file);
}

#define OPENS(name, ...)                                   \
    int name(__VA_ARGS__ const char *path, int flags, ...) { \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode_t mode = va_arg(rest, mode_t);                \
        va_end(rest);

OPENS(open, )
    return opened(AT_FDCWD, path, flags, mode);
}
OPENS(open64, )
    return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}
OPENS(openat, int at,)
    return opened(at, path, flags, mode);
}
OPENS(openat64, int at,)
    return opened(at, path, flags | O_LARGEFILE, mode);
}

int close(int file) {
    if (is_watched(file)) {
        // The power may yet go before it is flushed.
        if (watched[file] == 2) {
            int kept = syscall(SYS_fcntl, file, F_DUPFD_CLOEXEC, KEPT_FROM);
            if (kept >= 0) unflushed[unflushed_next++ % UNFLUSHED_MAX] = kept + 1;
        }
        watched[file] = 0;
    }
    return syscall(SYS_close, file);
}

ssize_t read(int file, void *bytes, size_t length) {
    enum fate fate = fate_of_file('r', file);
    if (fate == FAILS) return -1;
    return ended(fate, syscall(SYS_read, file, bytes, length));
}

ssize_t write(int file, const void *bytes, size_t length) {
    enum fate fate = fate_of_file('w', file);
    if (fate == FAILS) return -1;
    if (fate == COMES_SHORT) length = (length + 1) / 2;
    if (is_watched(file)) watched[file] = 2;
    return ended(fate, syscall(SYS_write, file, bytes, length));
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    // A program may be given less than it asked for: one part is enough where it is watched.
    if (is_watched(file)) return count > 0 ? write(file, parts[0].iov_base, parts[0].iov_len) : 0;
    return syscall(SYS_writev, file, parts, count);
}

// The file is flushed, and with it what was written to it before it was last closed.
static void forget_unflushed(int file) {
    struct stat here, there;
    watched[file] = 1;
    if (fstat(file, &here)) return;
    for (int i = 0; i < UNFLUSHED_MAX; i++) {
        int kept = unflushed[i] - 1;
        if (kept < 0 || fstat(kept, &there) || there.st_ino != here.st_ino) continue;
        unflushed[i] = 0;
        syscall(SYS_close, kept);
    }
}

static int flushed(int file, long call) {
    enum fate fate = fate_of_file('f', file);
    if (fate == FAILS) return -1;
    int result = syscall(call, file);
    if (result == 0 && is_watched(file)) forget_unflushed(file);
    return ended(fate, result);
}

int fsync(int file) { return flushed(file, SYS_fsync); }
int fdatasync(int file) { return flushed(file, SYS_fdatasync); }

int rename(const char *from, const char *to) {
    enum fate fate_here = is_below(to) ? fate('m', to) : AS_EVER;
    if (fate_here == FAILS) return -1;
    return ended(fate_here, syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

int unlink(const char *path) {
    enum fate fate_here = is_below(path) ? fate('u', path) : AS_EVER;
    if (fate_here == FAILS) return -1;
    return ended(fate_here, syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}

static int truncated(int file, off_t length) {
    enum fate fate = fate_of_file('t', file);
    if (fate == FAILS) return -1;
    return ended(fate, syscall(SYS_ftruncate, file, length));
}

int ftruncate(int file, off_t length) { return truncated(file, length); }
int ftruncate64(int file, off64_t length) { return truncated(file, length); }

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && clock_file[0]) {
        char text[32] = "0";
        int file = syscall(SYS_openat, AT_FDCWD, clock_file, O_RDONLY | O_CLOEXEC, 0);
        if (file >= 0) {
            ssize_t length = syscall(SYS_read, file, text, sizeof text - 1);
            text[length < 0 ? 0 : length] = 0;
            syscall(SYS_close, file);
        }
        time->tv_sec += strtol(text, NULL, 10);
    }
    return result;
}
