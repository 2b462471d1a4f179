/* The steps of a message's life, one call each.
 *
 * docs/explanation/states.md tells what each step is, and what a crash between two of its calls leaves.  Here are the same system calls in
 * the same order as in pool.py, publishing.py and claims.py, and nothing else: the straight way, on which a message goes unless there is
 * trouble.  Every function either has done the whole step, or has undone what it did of it and says so; then Python takes the
 * step from its beginning, by its own calls, meets the trouble itself, and knows what to do about it.  So no rule stands in two
 * places: which error is raised, who follows a renewed directory, when more files may be opened, what becomes of another user's file.
 *
 *     rewrite(fd, size, content)                      spare (kept open) -> draft
 *     take_spare(directory, name, content)            spare -> draft
 *     move(directory, name, to, new_name, fd)         draft -> ready, unlocked; claimed -> spare
 *     claim(directory, ready, claimed)                ready -> claimed, and read
 *     names(directory, most)                          the names in a directory
 *
 * A crash leaves what it leaves of the same calls from Python.  The lock of the interpreter is given up for each step, once.  There is no state
 * here, so nothing is shared by threads or inherited by a child.  A call that a signal interrupts counts as trouble: Python repeats it, and
 * runs the signal's handler.
 *
 * Only what all versions of Python from 3.11 on have in common is used, so one build serves all of them.
 */
#define _GNU_SOURCE
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    /* Of a file of ours, see FILE_MODE in disk.py. */
    FILE_MODE = 0660,
    /* O_NOFOLLOW: no symbolic link is ever followed.  O_NONBLOCK: opening a fifo or a device never waits. */
    OPEN_FLAGS = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
    /* A larger file is read by Python: it would not fit on every thread's stack. */
    READ_BYTES = 16 * 1024,
    /* Names are kept in pieces of so many bytes until they become objects. */
    NAMES_BYTES = 64 * 1024,
};

/* The answers of a step: it is done; not now, for somebody else has the file, or the name leads to another one by now, or nowhere; or it is left
 * to Python, and nothing was done. */
enum answer { DONE, NOT_NOW, LEFT };

/* The arguments. */

static int is_given(Py_ssize_t count, Py_ssize_t wanted)
{
    if (count != wanted)
        PyErr_Format(PyExc_TypeError, "%zd arguments, and not %zd", wanted, count);
    return count == wanted;
}

static int number_of(PyObject *argument)
{
    long number = PyLong_AsLong(argument);
    if (number != (int)number && !PyErr_Occurred())
        PyErr_SetString(PyExc_OverflowError, "no descriptor");
    return (int)number;
}

/* A name as the kernel wants it.  NULL, and no error: it has characters that the kernel knows under other bytes, so Python is to see to it. */
static const char *name_of(PyObject *argument)
{
    Py_ssize_t length;
    const char *name = PyUnicode_AsUTF8AndSize(argument, &length);
    if (name == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
        PyErr_Clear();
    else if (name != NULL)
        for (Py_ssize_t at = 0; at < length; at++)
            if (name[at] <= 0)
                return NULL;
    return name;
}

static PyObject *answered(enum answer answer)
{
    PyObject *object = answer == DONE ? Py_True : answer == LEFT ? Py_False : Py_None;
    Py_INCREF(object);
    return object;
}

static PyObject *left(void)
{
    return PyErr_Occurred() ? NULL : answered(LEFT);
}

/* What the steps are made of.  They are called without the lock of the interpreter. */

/* Lock first: open a regular file, lock it without waiting, and make sure that the name still leads to it. */
static enum answer open_locked(int directory, const char *name, int *opened, struct stat *status)
{
    struct stat named;
    enum answer answer = LEFT;
    int fd = openat(directory, name, OPEN_FLAGS);
    if (fd < 0)
        return errno == ENOENT ? NOT_NOW : LEFT;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        answer = errno == EWOULDBLOCK ? NOT_NOW : LEFT;
    /* The status from before the lock would be old: the last holder may have written. */
    else if (fstat(fd, status) != 0 || !S_ISREG(status->st_mode))
        answer = LEFT;
    else if (fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) != 0)
        answer = errno == ENOENT ? NOT_NOW : LEFT;
    else
        answer = named.st_ino == status->st_ino && named.st_dev == status->st_dev ? DONE : NOT_NOW;
    if (answer == DONE)
        *opened = fd;
    else
        close(fd);
    return answer;
}

/* Is it a file of ours with one name, so that nobody else can have it open and no backup changes with it? */
static int is_usable(const struct stat *status)
{
    return status->st_nlink == 1 && status->st_uid == geteuid() && (status->st_mode & 07777) == FILE_MODE;
}

/* Write the whole message over what the file holds.  What is half written is a draft, and means nothing. */
static enum answer write_whole(int fd, off_t size, const char *content, Py_ssize_t length)
{
    if (pwrite(fd, content, (size_t)length, 0) != length)
        return LEFT;
    return size > length && ftruncate(fd, length) != 0 ? LEFT : DONE;
}

/* Unlock first: a process that waits for the close finds the lock free. */
static void unlock_and_close(int fd)
{
    flock(fd, LOCK_UN);
    close(fd);
}

PyDoc_STRVAR(rewrite_doc,
             "rewrite(fd, size, content)\n--\n\n"
             "Write a message into a spare that is kept open and locked.\n\n"
             ":param size: of what it holds.\n"
             ":return: True, or False: it may not be used, or not be written.");

static PyObject *rewrite(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    struct stat status;
    enum answer answer;
    char *content;
    Py_ssize_t length;
    if (!is_given(count, 3))
        return NULL;
    int fd = number_of(arguments[0]);
    long long size = PyLong_AsLongLong(arguments[1]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(arguments[2], &content, &length) != 0)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    /* It may have come from anywhere, as somebody's own entry, and somebody may have given it another name since. */
    answer = fstat(fd, &status) == 0 && is_usable(&status) ? write_whole(fd, size, content, length) : LEFT;
    Py_END_ALLOW_THREADS
    return answered(answer);
}

PyDoc_STRVAR(take_spare_doc,
             "take_spare(directory, name, content)\n--\n\n"
             "Take a spare by its name, and write a message into it.\n\n"
             ":return: its descriptor, which holds the lock; None: somebody else has it; False: left to Python.");

static PyObject *take_spare(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    struct stat status;
    enum answer answer;
    char *content;
    Py_ssize_t length;
    int fd = -1;
    if (!is_given(count, 3))
        return NULL;
    int directory = number_of(arguments[0]);
    if (PyErr_Occurred() || PyBytes_AsStringAndSize(arguments[2], &content, &length) != 0)
        return NULL;
    const char *name = name_of(arguments[1]);
    if (name == NULL)
        return left();
    Py_BEGIN_ALLOW_THREADS
    answer = open_locked(directory, name, &fd, &status);
    if (answer == DONE) {
        answer = is_usable(&status) ? write_whole(fd, status.st_size, content, length) : LEFT;
        if (answer != DONE)
            unlock_and_close(fd);
    }
    Py_END_ALLOW_THREADS
    return answer == DONE ? PyLong_FromLong(fd) : answered(answer);
}

PyDoc_STRVAR(move_doc,
             "move(directory, name, to, new_name, fd)\n--\n\n"
             "Rename a file, and then unlock and close it: the lock outlives the name.\n\n"
             ":param fd: -1 keeps it open and locked.\n"
             ":return: True, or False: it was not renamed, and is still open and locked.");

static PyObject *move(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    enum answer answer;
    if (!is_given(count, 5))
        return NULL;
    int directory = number_of(arguments[0]), to = number_of(arguments[2]), fd = number_of(arguments[4]);
    if (PyErr_Occurred())
        return NULL;
    const char *name = name_of(arguments[1]), *new_name = name == NULL ? NULL : name_of(arguments[3]);
    if (new_name == NULL)
        return left();
    Py_BEGIN_ALLOW_THREADS
    answer = renameat(directory, name, to, new_name) == 0 ? DONE : LEFT;
    if (answer == DONE && fd >= 0)
        unlock_and_close(fd);
    Py_END_ALLOW_THREADS
    return answered(answer);
}

PyDoc_STRVAR(claim_doc,
             "claim(directory, ready, claimed)\n--\n\n"
             "Claim an entry: open, lock, check the name, rename; and read it, if it is small.\n\n"
             ":return: descriptor, size, owner, modification time in nanoseconds, and the content or None; None instead of all: somebody else was\n"
             "    faster; False: left to Python.");

static PyObject *claim(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    struct stat status;
    enum answer answer;
    char content[READ_BYTES];
    ssize_t length = -1;
    int fd = -1;
    if (!is_given(count, 3))
        return NULL;
    int directory = number_of(arguments[0]);
    if (PyErr_Occurred())
        return NULL;
    const char *ready = name_of(arguments[1]), *claimed = ready == NULL ? NULL : name_of(arguments[2]);
    if (claimed == NULL)
        return left();
    Py_BEGIN_ALLOW_THREADS
    answer = open_locked(directory, ready, &fd, &status);
    /* Name after.  A file with a second name is left to Python, for a rename from one to the other would do nothing. */
    if (answer == DONE && (status.st_nlink != 1 || renameat(directory, ready, directory, claimed) != 0)) {
        unlock_and_close(fd);
        answer = LEFT;
    }
    /* From here on it is claimed.  What cannot be read now is read, or refused, by Python. */
    if (answer == DONE && status.st_size <= READ_BYTES)
        length = pread(fd, content, (size_t)status.st_size, 0);
    Py_END_ALLOW_THREADS
    if (answer != DONE)
        return answered(answer);
    PyObject *taken = Py_BuildValue("iLkLy#", fd, (long long)status.st_size, (unsigned long)status.st_uid,
                                    status.st_mtim.tv_sec * 1000000000LL + status.st_mtim.tv_nsec,
                                    length == status.st_size ? content : NULL,
                                    length == status.st_size ? (Py_ssize_t)length : 0);
    if (taken == NULL) { /* no memory: as if it had never been claimed */
        renameat(directory, claimed, directory, ready);
        unlock_and_close(fd);
    }
    return taken;
}

/* The names that were read, one behind the other, each with a zero byte. */
struct names {
    char *bytes;
    size_t used, room;
    Py_ssize_t count;
};

static enum answer read_names(int directory, Py_ssize_t most, struct names *names, long long *size)
{
    struct stat status;
    struct dirent *entry;
    /* A descriptor of its own: the position of the other one is shared by all who inherited it. */
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return LEFT;
    DIR *stream = fstat(fd, &status) == 0 && status.st_nlink > 0 ? fdopendir(fd) : NULL;
    if (stream == NULL) {
        close(fd);
        return LEFT;
    }
    *size = status.st_size;
    errno = 0;
    while (names->count <= most && (entry = readdir(stream)) != NULL) {
        size_t length = strlen(entry->d_name) + 1;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (names->used + length > names->room) {
            char *more = realloc(names->bytes, names->room + NAMES_BYTES);
            if (more == NULL)
                break;
            names->bytes = more;
            names->room += NAMES_BYTES;
        }
        memcpy(names->bytes + names->used, entry->d_name, length);
        names->used += length;
        names->count++;
    }
    enum answer answer = errno == 0 && names->count <= most ? DONE : LEFT;
    closedir(stream);
    return answer;
}

PyDoc_STRVAR(names_doc,
             "names(directory, most)\n--\n\n"
             "Read a directory.\n\n"
             ":return: the names in it, and its size in bytes; False: they are more than `most`, or left to Python.");

static PyObject *names(PyObject *Py_UNUSED(module), PyObject *const *arguments, Py_ssize_t count)
{
    struct names found = {NULL, 0, 0, 0};
    enum answer answer;
    long long size = 0;
    if (!is_given(count, 2))
        return NULL;
    int directory = number_of(arguments[0]), most = number_of(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    answer = read_names(directory, most, &found, &size);
    Py_END_ALLOW_THREADS
    PyObject *list = NULL, *result = NULL;
    if (answer != DONE) {
        result = answered(LEFT);
        goto end;
    }
    if ((list = PyList_New(found.count)) == NULL)
        goto end;
    const char *name = found.bytes;
    for (Py_ssize_t at = 0; at < found.count; at++, name += strlen(name) + 1) {
        PyObject *decoded = PyUnicode_DecodeFSDefault(name);
        if (decoded == NULL || PyList_SetItem(list, at, decoded) != 0)
            goto end;
    }
    result = Py_BuildValue("OL", list, size);
end:
    Py_XDECREF(list);
    free(found.bytes);
    return result;
}

#define STEP(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, name##_doc}

static PyMethodDef steps[] = {STEP(rewrite), STEP(take_spare), STEP(move), STEP(claim), STEP(names), {NULL, NULL, 0, NULL}};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "switchboard_accelerator",
    .m_doc = "The steps of a message's life, one call each.  See switchboard/store/accelerator.c.",
    .m_size = 0,
    .m_methods = steps,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit_switchboard_accelerator(void)
{
    return PyModuleDef_Init(&module);
}
