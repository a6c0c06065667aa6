/*
 * A layer under the files of a program, for tests: a disk that loses what was not synced when the power fails, and that
 * fails when it is told to. It is loaded into the program with LD_PRELOAD and stands between it and the C library.
 *
 *   cc -shared -fPIC -O2 -Wall -Wextra -Werror -o disk.so disk.c -ldl -lpthread
 *   BESTER_DISK=/a/state BESTER_DISK_IMAGE=/a/durable BESTER_DISK_CONTROL=/a/control LD_PRELOAD=/a/disk.so program
 *
 * BESTER_DISK is a directory, without symbolic links in its path, whose databases are looked after: the files in it that
 * end with .db, -wal or -journal. (SQLite makes -shm anew whenever nobody has it open.)
 *
 * What a power cut leaves. BESTER_DISK_IMAGE, an existing directory, holds what is on the disk for certain:
 *
 *   NAME       what the directory's entry NAME leads to after a power cut, as it was at its last fsync or fdatasync
 *   NAME.new   the same of a file that was made since the directory itself was synced: its entry may be lost
 *
 * When the program was killed, disk-cut (cut.c) makes from the files and these images what a power cut leaves. The images
 * are only changed after the true sync has returned, so that a sync counts only when the program could have known of it.
 *
 * Trouble. BESTER_DISK_CONTROL is a file that is looked at before each write, truncation and sync. Replace it as a whole
 * (write another, rename it). Its one line is one of
 *
 *   ok
 *   writes ERROR      each write, truncation and new file fails
 *   syncs ERROR       each sync fails, and nothing that it should have saved will ever be on the disk
 *   drops ERROR       the same, and the program cannot read it any longer either: the file is as it was at the last sync
 *   all ERROR         both writes and syncs
 *   nth N ERROR       the N-th write, truncation or sync from now on fails, and none after it
 *   from N ERROR      that one and all after it
 *
 * with ERROR among EIO, ENOSPC, EROFS, EDQUOT. A write that fails with EIO has written the first half. What has failed is
 * told in a line each in the file beside it with the ending .told, which is how one learns whether there was an N-th.
 *
 * Time. If BESTER_DISK_LATER names a file, the eight bytes in it are a number of seconds by which it is later than it is, for
 * all of the program's clocks; it may be changed at any time, in place. What the program waits for with a limit takes as much
 * longer, so whoever makes it late must give it something to do.
 *
 * What it cannot do: see a program's writes through a mapping, through a descriptor that it has duplicated, or with system
 * calls of its own; look after two programs at once. Nothing in SQLite does the former.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SECTOR 512
#define NAME_BYTES 128
/* Descriptors with higher numbers are not looked after; the program would have to have more open than that. */
#define DESCRIPTORS 65536

/* A file as the program has it: an entry with the same name may lead to another one later. */
struct file {
	struct file *next;
	char name[NAME_BYTES];
	dev_t device;
	ino_t inode;
	int removed;          /* no entry leads to it any longer, so nothing of it is there after a power cut */
	unsigned char *dirty; /* a bit for each sector that was written since the last sync */
	size_t dirty_bytes;
};

/* What stands for the directory itself among the descriptors. */
static struct file directory_itself;

static const char *directory, *images, *control;
static char control_told[PATH_MAX];
static struct file *files;
static _Atomic(struct file *) descriptors[DESCRIPTORS];
/* Over everything here but `descriptors`; never held during a true sync, so that others write meanwhile. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The C library's own. */
static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, off_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static int (*real_clock)(clockid_t, struct timespec *);

/* NULL: it is as late as it is. */
static volatile const int64_t *later;

/* The program may open files before our constructor has run: each function calls this first. */
static void find_real(void)
{
	static atomic_int found;
	if (atomic_load(&found))
		return;
	*(void **)&real_open = dlsym(RTLD_NEXT, "open64");
	*(void **)&real_openat = dlsym(RTLD_NEXT, "openat64");
	*(void **)&real_close = dlsym(RTLD_NEXT, "close");
	*(void **)&real_write = dlsym(RTLD_NEXT, "write");
	*(void **)&real_writev = dlsym(RTLD_NEXT, "writev");
	*(void **)&real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
	*(void **)&real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
	*(void **)&real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
	*(void **)&real_fsync = dlsym(RTLD_NEXT, "fsync");
	*(void **)&real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
	*(void **)&real_unlink = dlsym(RTLD_NEXT, "unlink");
	*(void **)&real_rename = dlsym(RTLD_NEXT, "rename");
	*(void **)&real_clock = dlsym(RTLD_NEXT, "clock_gettime");
	directory = getenv("BESTER_DISK");
	images = getenv("BESTER_DISK_IMAGE");
	control = getenv("BESTER_DISK_CONTROL");
	if (directory && !images)
		directory = NULL;
	if (control)
		snprintf(control_told, sizeof control_told, "%s.told", control);
	atomic_store(&found, 1);
}

__attribute__((constructor)) static void start(void)
{
	find_real();
	const char *path = getenv("BESTER_DISK_LATER");
	int fd = path ? real_open(path, O_RDONLY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		void *mapped = mmap(NULL, sizeof *later, PROT_READ, MAP_SHARED, fd, 0);
		if (mapped != MAP_FAILED)
			later = mapped;
		real_close(fd);
	}
}

/* The layer itself is broken, or the machine is: a test must not go on and find all well. */
static void give_up(const char *what, const char *name)
{
	fprintf(stderr, "disk: %s %s: %s\n", what, name, strerror(errno));
	abort();
}

#include "images.h"
#include "trouble.h"

/* ---- What is looked after ---- */

static int ends_with(const char *name, const char *ending)
{
	size_t length = strlen(name), wanted = strlen(ending);
	return length >= wanted && strcmp(name + length - wanted, ending) == 0;
}

/* The name in our directory that a path leads to if it is looked after, else NULL. `name` has room for it. */
static const char *tracked(const char *path, char *name)
{
	const char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : path;
	if (!directory || strlen(last) >= NAME_BYTES - 8)
		return NULL;
	if (!ends_with(last, ".db") && !ends_with(last, "-wal") && !ends_with(last, "-journal"))
		return NULL;
	char parent[PATH_MAX], real[PATH_MAX];
	size_t length = slash ? (size_t)(slash - path) : 0;
	if (length >= sizeof parent)
		return NULL;
	memcpy(parent, path, length);
	parent[length] = 0;
	if (!realpath(slash ? (length ? parent : "/") : ".", real) || strcmp(real, directory) != 0)
		return NULL;
	return strcpy(name, last);
}

static struct file *file_of(int fd)
{
	return fd >= 0 && fd < DESCRIPTORS ? atomic_load(&descriptors[fd]) : NULL;
}

static void remember(int fd, struct file *file)
{
	if (fd < DESCRIPTORS)
		atomic_store(&descriptors[fd], file);
	else if (file)
		give_up("too many descriptors for", file->name);
}

static void wrote(struct file *file, off_t at, off_t end)
{
	if (end <= at)
		return;
	size_t last = (size_t)((end - 1) / SECTOR);
	if (last / 8 >= file->dirty_bytes) {
		size_t bytes = (last / 8 + 1) * 2;
		unsigned char *more = realloc(file->dirty, bytes);
		if (!more)
			give_up("no memory for", file->name);
		memset(more + file->dirty_bytes, 0, bytes - file->dirty_bytes);
		file->dirty = more;
		file->dirty_bytes = bytes;
	}
	for (size_t sector = (size_t)(at / SECTOR); sector <= last; sector++)
		file->dirty[sector / 8] |= (unsigned char)(1 << sector % 8);
}

static void opened(int fd, const char *name, int made)
{
	struct stat known;
	if (fstat(fd, &known) != 0)
		give_up("cannot look at", name);
	pthread_mutex_lock(&lock);
	struct file *file = files;
	while (file && (file->removed || file->device != known.st_dev || file->inode != known.st_ino || strcmp(file->name, name) != 0))
		file = file->next;
	if (!file) {
		file = calloc(1, sizeof *file);
		if (!file)
			give_up("no memory for", name);
		strcpy(file->name, name);
		file->device = known.st_dev;
		file->inode = known.st_ino;
		file->next = files;
		files = file;
		if (made)
			image_of_new(name);
		else if (!has_image(name))
			image_of_old(name, fd);
		else /* a program before us may have been killed with something unsynced: our sync will save that, too */
			wrote(file, 0, known.st_size);
	}
	remember(fd, file);
	pthread_mutex_unlock(&lock);
}

/* ---- The functions that the program calls ---- */

static int open_at(int place, const char *path, int flags, mode_t mode)
{
	char name[NAME_BYTES];
	find_real();
	if (!directory || (place != AT_FDCWD && path[0] != '/') || !tracked(path, name)) {
		int fd = real_openat(place, path, flags, mode);
		char real[PATH_MAX];
		if (fd >= 0 && directory && !(flags & (O_WRONLY | O_RDWR)) && realpath(path, real) && strcmp(real, directory) == 0)
			remember(fd, &directory_itself);
		return fd;
	}
	int made = flags & O_CREAT && access(path, F_OK) != 0;
	if (made || flags & O_TRUNC) {
		pthread_mutex_lock(&lock);
		int error = fails(WRITE, "open", name);
		if (error)
			return fail(error);
		pthread_mutex_unlock(&lock);
	}
	int fd = real_openat(place, path, flags, mode);
	if (fd >= 0)
		opened(fd, name, made);
	return fd;
}

static mode_t mode_of(int flags, va_list *arguments)
{
	return flags & (O_CREAT) ? va_arg(*arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, &arguments);
	va_end(arguments);
	return open_at(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int openat(int place, const char *path, int flags, ...)
{
	va_list arguments;
	va_start(arguments, flags);
	mode_t mode = mode_of(flags, &arguments);
	va_end(arguments);
	return open_at(place, path, flags, mode);
}

int openat64(int place, const char *path, int flags, ...) __attribute__((alias("openat")));

int close(int fd)
{
	find_real();
	if (fd >= 0 && fd < DESCRIPTORS)
		atomic_store(&descriptors[fd], NULL);
	return real_close(fd);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at)
{
	find_real();
	struct file *file = file_of(fd);
	if (!file || file == &directory_itself)
		return real_pwrite(fd, bytes, count, at);
	pthread_mutex_lock(&lock);
	int error = fails(WRITE, "write", file->name);
	size_t much = error == 0 ? count : error == EIO ? count / 2 : 0;
	ssize_t written = much || !error ? real_pwrite(fd, bytes, much, at) : 0;
	int true_error = errno;
	if (written > 0)
		wrote(file, at, at + written);
	if (error)
		return fail(error);
	pthread_mutex_unlock(&lock);
	errno = true_error;
	return written;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) __attribute__((alias("pwrite")));

/* Nothing appends to these files; where the descriptor stands is where the bytes go. */
ssize_t write(int fd, const void *bytes, size_t count)
{
	find_real();
	struct file *file = file_of(fd);
	if (!file || file == &directory_itself)
		return real_write(fd, bytes, count);
	ssize_t written = pwrite(fd, bytes, count, lseek(fd, 0, SEEK_CUR));
	if (written > 0)
		lseek(fd, written, SEEK_CUR);
	return written;
}

ssize_t writev(int fd, const struct iovec *pieces, int count)
{
	find_real();
	struct file *file = file_of(fd);
	if (!file || file == &directory_itself || count < 1)
		return real_writev(fd, pieces, count);
	return write(fd, pieces[0].iov_base, pieces[0].iov_len); /* fewer than asked for is allowed */
}

int ftruncate(int fd, off_t size)
{
	find_real();
	struct file *file = file_of(fd);
	if (!file || file == &directory_itself)
		return real_ftruncate(fd, size);
	pthread_mutex_lock(&lock);
	int error = fails(WRITE, "truncate", file->name);
	if (error)
		return fail(error);
	off_t before = size_of(fd, file->name);
	int result = real_ftruncate(fd, size);
	if (result == 0) /* what was cut off, or is zero now, is not so on the disk yet */
		wrote(file, size < before ? size : before, size < before ? before : size);
	pthread_mutex_unlock(&lock);
	return result;
}

int ftruncate64(int fd, off64_t size) __attribute__((alias("ftruncate")));

/* Gives the error, and does not set errno. Only the size of the file changes, which each sync looks at. */
int posix_fallocate(int fd, off_t at, off_t length)
{
	find_real();
	struct file *file = file_of(fd);
	if (file && file != &directory_itself) {
		pthread_mutex_lock(&lock);
		int error = fails(WRITE, "allocate", file->name);
		pthread_mutex_unlock(&lock);
		if (error)
			return error;
	}
	return real_fallocate(fd, at, length);
}

int posix_fallocate64(int fd, off64_t at, off64_t length) __attribute__((alias("posix_fallocate")));

static int sync_with(int fd, int (*real)(int))
{
	struct file *file = file_of(fd);
	if (!file)
		return real(fd);
	pthread_mutex_lock(&lock);
	const char *name = file == &directory_itself ? "." : file->name;
	int error = fails(SYNC, "sync", name);
	if (error) {
		if (file != &directory_itself)
			not_saved(file, fd, trouble.drops);
		return fail(error);
	}
	pthread_mutex_unlock(&lock);
	int result = real(fd);
	pthread_mutex_lock(&lock);
	if (result == 0 && file == &directory_itself)
		entries_saved();
	else if (result == 0)
		saved(file, fd);
	pthread_mutex_unlock(&lock);
	return result;
}

int fsync(int fd)
{
	find_real();
	return sync_with(fd, real_fsync);
}

int fdatasync(int fd)
{
	find_real();
	return sync_with(fd, real_fdatasync);
}

int unlink(const char *path)
{
	char name[NAME_BYTES], image[PATH_MAX];
	find_real();
	if (!directory || !tracked(path, name))
		return real_unlink(path);
	pthread_mutex_lock(&lock);
	int error = fails(WRITE, "unlink", name);
	if (error)
		return fail(error);
	int result = real_unlink(path);
	int true_error = errno;
	if (result == 0) {
		for (struct file *file = files; file; file = file->next)
			file->removed |= strcmp(file->name, name) == 0;
		if (image_path(image, name, ".new"))
			real_unlink(image); /* there may be none */
	}
	pthread_mutex_unlock(&lock);
	errno = true_error;
	return result;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
	find_real();
	int result = real_clock(clock, now);
	if (result == 0 && later && (clock == CLOCK_REALTIME || clock == CLOCK_MONOTONIC))
		now->tv_sec += (time_t)*later;
	return result;
}

/* What the images mean could not be told after it, and nothing in the program does it: should that change, a test sees. */
int rename(const char *from, const char *to)
{
	char name[NAME_BYTES];
	find_real();
	if (directory && (tracked(from, name) || tracked(to, name))) {
		errno = EXDEV;
		return -1;
	}
	return real_rename(from, to);
}
