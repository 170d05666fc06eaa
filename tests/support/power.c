// Beside each file that is synced, note how many of its bytes are on disk by then: PATH.synced.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int synced(const char *call, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    struct stat before;
    char link[64], path[4096 + 8], size[32];
    if (fstat(file, &before) != 0 || real(file) != 0) return -1;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 4096);
    if (length > 0 && S_ISREG(before.st_mode)) {
        strcpy(path + length, ".synced");
        int note = open(path, O_WRONLY | O_CREAT, 0600);
        snprintf(size, sizeof size, "%020lld", (long long)before.st_size);
        if (note >= 0) {
            if (pwrite(note, size, 20, 0) != 20) _exit(70);
            close(note);
        }
    }
    return 0;
}

int fsync(int file) { return synced("fsync", file); }
int fdatasync(int file) { return synced("fdatasync", file); }
