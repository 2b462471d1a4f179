/* The least that a message's life can cost: the system calls of this project's life cycle, from C, and nothing else.
 *
 * What is left out: packing, checksums, metadata, ordering by priority, limits, error handling.  What is kept: each call on
 * the way of a message, in the same order, on files of the same size with names of the same length, with the same
 * recycling of finished files.  docs/explanation/states.md tells what each call is for.
 *
 *     floor DIRECTORY lazy|full|batch
 *
 * Commands and answers are those of worker.py; instead of a kind it reads the number of bytes of a file:
 *
 *     fill 1103 500 0.2            ->   0.0231 1500 0.0213
 *     produce 1103 500 in          ->   1234.1 1235.9 0.1
 *     consume TALLY 1000 2:0:in    ->   1234.1 1236.2 0.1
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NAME_BYTES = 80, POOL = 64, BATCH = 100, SYNCFS_FROM = 16, MAX_MESSAGE = 1 << 20 };
/* New files between two looks for spares of other processes, where the last look has not paid. */
enum { MISSES_BEFORE_LOOK = 8, PAID_FILES = 4 };
enum { LINE_BYTES = 4096, REST_NS = 500000, TIMEOUT_S = 60 };

struct draft {
    int fd;
    char name[NAME_BYTES];
};

static int in_fd, spare_fd, full, batch, filling;
static struct draft pool[POOL];
static int pooled, misses = MISSES_BEFORE_LOOK, had;
/* Files taken and not given back: so many are worth keeping open. */
static long lent;
/* Which of how many slices is taken from. */
static unsigned slice, slices = 1;
static char (*seen)[NAME_BYTES], (*due)[NAME_BYTES];
static size_t seen_count, seen_room, due_count, due_room, due_next;
static unsigned long names;
static char message[MAX_MESSAGE], buffer[MAX_MESSAGE];

static void must(int succeeded, const char *what)
{
    if (!succeeded) {
        printf("failed %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static double now_s(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static int ascending(const void *a, const void *b)
{
    return strcmp(a, b);
}

static unsigned digest_of(const char *name)
{
    const char *digest = strchr(name, '+');
    return digest ? (unsigned)strtoul((char[]){digest[1], digest[2], digest[3], digest[4], 0}, NULL, 16) : 0;
}

static size_t list(int directory, char (**names_out)[NAME_BYTES], size_t *room, const char *suffix)
{
    size_t count = 0;
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fdopendir(fd);
    must(stream != NULL, "list");
    for (struct dirent *entry; (entry = readdir(stream));) {
        size_t length = strlen(entry->d_name), cut = strlen(suffix);
        if (entry->d_name[0] == '.' || length < cut || strcmp(entry->d_name + length - cut, suffix))
            continue;
        if (count == *room) {
            *room = *room ? *room * 2 : 1024;
            *names_out = realloc(*names_out, *room * NAME_BYTES);
            must(*names_out != NULL, "memory");
        }
        if (slices > 1 && cut && digest_of(entry->d_name) % slices != slice)
            continue;
        memcpy((*names_out)[count], entry->d_name, length + 1);
        (*names_out)[count++][length - cut] = 0;
    }
    closedir(stream);
    qsort(*names_out, count, NAME_BYTES, ascending);
    return count;
}

/* Unique among the processes of a run. */
static void name_of(char *name)
{
    snprintf(name, NAME_BYTES, "%08lx%08x%024lx", (names * 2654435761UL) & 0xffffffff, (unsigned)getpid(), names);
    names++;
}

static void rotate(char (*list)[NAME_BYTES], size_t count)
{
    char swap[NAME_BYTES];
    size_t cut = count ? (size_t)getpid() * 2654435761UL % count : 0;
    for (size_t at = 0; at < cut && at + cut < count; at++) {
        memcpy(swap, list[at], NAME_BYTES);
        memcpy(list[at], list[at + cut], NAME_BYTES);
        memcpy(list[at + cut], swap, NAME_BYTES);
    }
}

/* Open, lock, and make sure that the name still leads to the locked file. */
static int open_locked(int directory, const char *name, struct stat *status)
{
    struct stat named;
    int fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, status) == 0 &&
        fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_ino == status->st_ino)
        return fd;
    close(fd);
    return -1;
}

static struct draft take_draft(void)
{
    struct draft draft;
    struct stat status;
    lent++;
    if (pooled) {
        draft = pool[--pooled];
        must(fstat(draft.fd, &status) == 0, "fstat");
        return draft;
    }
    if (seen_count == 0 && !filling && (had >= PAID_FILES || misses >= MISSES_BEFORE_LOOK)) {
        seen_count = list(spare_fd, &seen, &seen_room, "");
        /* Each process has names of its own, and begins with them, or all would try the same files. */
        rotate(seen, seen_count);
        misses = had = 0;
    }
    while (seen_count) {
        memcpy(draft.name, seen[--seen_count], NAME_BYTES);
        draft.fd = open_locked(spare_fd, draft.name, &status);
        if (draft.fd >= 0) {
            had++;
            return draft;
        }
    }
    misses++;
    for (;;) {
        struct stat named;
        name_of(draft.name);
        draft.fd = openat(spare_fd, draft.name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0660);
        must(draft.fd >= 0 && fstat(draft.fd, &status) == 0 && fchmod(draft.fd, 0660) == 0, "create");
        /* Another process may have found it before it was locked. */
        if (flock(draft.fd, LOCK_EX | LOCK_NB) == 0 &&
            fstatat(spare_fd, draft.name, &named, AT_SYMLINK_NOFOLLOW) == 0 && named.st_ino == status.st_ino)
            return draft;
        close(draft.fd);
    }
}

static void put(size_t size, int count)
{
    struct draft drafts[BATCH];
    char name[NAME_BYTES], digest[NAME_BYTES];
    struct timespec when;
    for (int n = 0; n < count; n++) {
        drafts[n] = take_draft();
        must(pwrite(drafts[n].fd, message, size, 0) == (ssize_t)size, "pwrite");
    }
    for (int n = 0; n < count; n++) {
        clock_gettime(CLOCK_REALTIME, &when);
        name_of(digest);
        snprintf(name, NAME_BYTES, "%010ld.%09ld+%.40s.pck", when.tv_sec, when.tv_nsec, digest);
        must(renameat(spare_fd, drafts[n].name, in_fd, name) == 0, "publish");
    }
    if (full && count >= SYNCFS_FROM)
        must(syncfs(drafts[0].fd) == 0, "syncfs");
    else if (full)
        for (int n = 0; n < count; n++)
            must(fsync(drafts[n].fd) == 0, "fsync");
    for (int n = 0; n < count; n++) {
        flock(drafts[n].fd, LOCK_UN);
        close(drafts[n].fd);
    }
}

/* Take the next one, and finish it; 0 if there is none that its producer has let go of. */
static int take_one(void)
{
    char ready[NAME_BYTES + 4], claimed[NAME_BYTES + 4];
    struct stat status;
    struct draft draft;
    int looks = 0;
    do {
        if (due_next == due_count) {
            due_count = looks++ ? 0 : list(in_fd, &due, &due_room, ".pck");
            due_next = 0;
            if (!due_count)
                return 0;
        }
        snprintf(ready, sizeof ready, "%s.pck", due[due_next]);
        snprintf(claimed, sizeof claimed, "%s.bak", due[due_next]);
        due_next++;
        draft.fd = open_locked(in_fd, ready, &status);
    } while (draft.fd < 0);
    must(renameat(in_fd, ready, in_fd, claimed) == 0, "rename to .bak");
    must(pread(draft.fd, buffer, status.st_size, 0) == status.st_size, "pread");
    must(renameat(in_fd, claimed, spare_fd, claimed) == 0, "finish");
    if (lent > 0 && pooled < POOL) {
        snprintf(draft.name, NAME_BYTES, "%.75s", claimed);
        pool[pooled++] = draft;
    } else {
        flock(draft.fd, LOCK_UN);
        close(draft.fd);
    }
    lent -= lent > 0;
    return 1;
}

static void take(void)
{
    must(take_one(), "nothing there");
}

static void fill(size_t size, int count)
{
    for (int done = 0; done < count; done += batch)
        put(size, count - done < batch ? count - done : batch);
    for (int done = 0; done < count; done++)
        take();
}

static void pingpong(size_t size, int count)
{
    for (int done = 0; done < count; done++) {
        put(size, 1);
        take();
    }
}

/* Put and leave. */
static void prefill(size_t size, int count)
{
    filling = 1;
    for (int done = 0; done < count; done++)
        put(size, 1);
    filling = 0;
}

static int open_directory(const char *root, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", root, name);
    mkdir(path, 0770);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Begin and end on the clock that all processes share, and this process's processor time. */
static void tell(double begun_s, double cpu_s)
{
    printf("%.9f %.9f %.9f\n", begun_s, now_s(CLOCK_MONOTONIC), now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_s);
}

static void produce(size_t size, int count)
{
    double begun_s = now_s(CLOCK_MONOTONIC), cpu_s = now_s(CLOCK_PROCESS_CPUTIME_ID);
    for (int done = 0; done < count; done++)
        put(size, 1);
    tell(begun_s, cpu_s);
}

/* Take until all consumers together have had `count`; each counts in a number of its own, in a page that they share. */
static void consume(const char *tally, long count)
{
    double begun_s = now_s(CLOCK_MONOTONIC), cpu_s = now_s(CLOCK_PROCESS_CPUTIME_ID);
    const struct timespec rest = {0, REST_NS};
    int fd = open(tally, O_RDWR | O_CLOEXEC);
    volatile long *had_by =
        mmap(NULL, slices * sizeof *had_by, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    must(fd >= 0 && had_by != MAP_FAILED, tally);
    for (;;) {
        long total = 0;
        for (unsigned n = 0; n < slices; n++)
            total += had_by[n];
        if (total >= count)
            break;
        if (take_one()) {
            had_by[slice]++;
            continue;
        }
        must(now_s(CLOCK_MONOTONIC) < begun_s + TIMEOUT_S, "too few came");
        nanosleep(&rest, NULL);
    }
    munmap((void *)had_by, slices * sizeof *had_by);
    close(fd);
    tell(begun_s, cpu_s);
}

static void timed(const char *workload, size_t size, int count, double least_s)
{
    double begun_s = now_s(CLOCK_MONOTONIC), cpu_s = now_s(CLOCK_PROCESS_CPUTIME_ID), took_s;
    long done = 0;
    void (*work)(size_t, int) = pingpong;
    if (strcmp(workload, "fill") == 0)
        work = fill;
    else if (strcmp(workload, "prefill") == 0)
        work = prefill;
    must(size <= sizeof message, "size");
    do {
        work(size, count);
        done += count;
        took_s = now_s(CLOCK_MONOTONIC) - begun_s;
    } while (took_s < least_s);
    printf("%.9f %ld %.9f\n", took_s, done, now_s(CLOCK_PROCESS_CPUTIME_ID) - cpu_s);
}

int main(int argc, char **argv)
{
    static char line[LINE_BYTES], workload[LINE_BYTES], what[LINE_BYTES], rest[LINE_BYTES];
    int count;
    must(argc == 3, "floor DIRECTORY lazy|full|batch");
    full = strcmp(argv[2], "lazy") != 0;
    batch = strcmp(argv[2], "batch") ? 1 : BATCH;
    in_fd = open_directory(argv[1], "in");
    spare_fd = open_directory(argv[1], ".spare");
    must(in_fd >= 0 && spare_fd >= 0, argv[1]);
    memset(message, 'x', sizeof message);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%s %s %d %s", workload, what, &count, rest) == 4) {
        if (strcmp(workload, "consume") == 0) {
            must(sscanf(rest, "%u:%u:", &slices, &slice) == 2 && slice < slices, rest);
            consume(what, count);
        } else if (strcmp(workload, "produce") == 0)
            produce(strtoul(what, NULL, 10), count);
        else
            timed(workload, strtoul(what, NULL, 10), count, atof(rest));
        fflush(stdout);
    }
    return 0;
}
