/*
 * Makes of files what a power cut leaves of them. The program that used them was killed, and had disk.c under it.
 *
 *   cc -O2 -Wall -Wextra -Werror -o disk-cut cut.c
 *   disk-cut DIRECTORY IMAGES SEED PERCENT
 *
 * Of what was not synced, about PERCENT of a hundred is there: 0 is nothing; 100 is all, as if only the program had been
 * killed. Each sector of 512 bytes is there or not by itself, and so are the new length of a file, its entry in the
 * directory if that is new, and its removal. SEED makes it the same again. Prints what it did, a line for each file. Exit
 * codes: 0, 64 called wrongly, 74 a file cannot be read or written.
 *
 * Where a sector was written twice since the last sync, only the first and the last of the three states are considered.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECTOR 512
#define FILES_MAX 64

static uint64_t state;
static unsigned percent;

static uint64_t next(void)
{
	/* splitmix64 */
	uint64_t z = state += 0x9e3779b97f4a7c15u;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static int chance(void)
{
	return next() % 100 < percent;
}

static void give_up(const char *path)
{
	fprintf(stderr, "disk-cut: %s: %s\n", path, strerror(errno));
	exit(74);
}

struct content {
	char *bytes;
	size_t size;
};

/* All of a file, NULL if there is none. */
static struct content content_of(const char *path)
{
	struct content content = { NULL, 0 };
	FILE *file = fopen(path, "rb");
	if (!file) {
		if (errno == ENOENT)
			return content;
		give_up(path);
	}
	fseek(file, 0, SEEK_END);
	content.size = (size_t)ftell(file);
	rewind(file);
	content.bytes = malloc(content.size + 1);
	if (!content.bytes || fread(content.bytes, 1, content.size, file) != content.size)
		give_up(path);
	fclose(file);
	return content;
}

static void put(const char *path, const char *bytes, size_t size)
{
	FILE *file = fopen(path, "r+b"); /* keeps permissions and inode where there is one */
	if (!file)
		file = fopen(path, "w+b");
	if (!file || fwrite(bytes, 1, size, file) != size || fflush(file) != 0 || ftruncate(fileno(file), (off_t)size) != 0)
		give_up(path);
	fclose(file);
}

/* `now` is what the program saw, `durable` what was synced. */
static void mix(const char *name, const char *path, struct content now, struct content durable)
{
	size_t size = now.size != durable.size && chance() ? now.size : durable.size;
	size_t most = now.size > durable.size ? now.size : durable.size;
	char *bytes = calloc(1, most + 1);
	if (!bytes)
		give_up(name);
	memcpy(bytes, durable.bytes, durable.size);
	size_t unsynced = 0, kept = 0;
	for (size_t at = 0; at < now.size; at += SECTOR) {
		size_t count = now.size - at < SECTOR ? now.size - at : SECTOR;
		if (at + count <= durable.size && memcmp(bytes + at, now.bytes + at, count) == 0)
			continue;
		unsynced++;
		if (chance()) {
			memcpy(bytes + at, now.bytes + at, count);
			kept++;
		}
	}
	put(path, bytes, size);
	printf("%s: %zu of %zu unsynced sectors are there, its length was %zu and is %zu\n", name, kept, unsynced, now.size, size);
	free(bytes);
}

static void cut(const char *directory, const char *images, const char *name)
{
	char path[PATH_MAX], image[PATH_MAX], new_image[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/%s", directory, name) >= PATH_MAX || snprintf(image, sizeof image, "%s/%s", images, name) >= PATH_MAX
	    || snprintf(new_image, sizeof new_image, "%s/%s.new", images, name) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		give_up(name);
	}
	struct content now = content_of(path), durable = content_of(image), durable_new = content_of(new_image);
	if (durable_new.bytes && now.bytes && chance()) {
		mix(name, path, now, durable_new); /* the entry is there, and with it what was synced of the file */
	} else if (durable_new.bytes || !now.bytes) {
		/* Made or removed without a word on the disk; what the entry led to before was not touched since. */
		if (durable.bytes && (durable_new.bytes || !chance())) {
			put(path, durable.bytes, durable.size);
			printf("%s: is what it was before it was removed\n", name);
		} else {
			if (now.bytes && unlink(path) != 0)
				give_up(path);
			printf("%s: is not there\n", name);
		}
	} else if (durable.bytes) {
		mix(name, path, now, durable);
	} else {
		/* The program never opened it. */
		printf("%s: as it was\n", name);
	}
	free(now.bytes);
	free(durable.bytes);
	free(durable_new.bytes);
	/* From now on this is what is on the disk. */
	now = content_of(path);
	if (now.bytes)
		put(image, now.bytes, now.size);
	else if (unlink(image) != 0 && errno != ENOENT)
		give_up(image);
	if (unlink(new_image) != 0 && errno != ENOENT)
		give_up(new_image);
	free(now.bytes);
}

int main(int count, char **arguments)
{
	if (count != 5) {
		fprintf(stderr, "usage: disk-cut DIRECTORY IMAGES SEED PERCENT\n");
		return 64;
	}
	umask(077); /* a file that comes back is nobody else's */
	state = strtoull(arguments[3], NULL, 10);
	percent = (unsigned)strtoul(arguments[4], NULL, 10);
	static char names[FILES_MAX][256];
	size_t known = 0;
	DIR *list = opendir(arguments[2]);
	if (!list)
		give_up(arguments[2]);
	for (struct dirent *entry; (entry = readdir(list));) {
		if (entry->d_name[0] == '.' || strstr(entry->d_name, ".made"))
			continue;
		char *name = names[known];
		snprintf(name, sizeof names[0], "%s", entry->d_name);
		char *ending = strrchr(name, '.');
		if (ending && strcmp(ending, ".new") == 0)
			*ending = 0;
		size_t other = 0;
		while (strcmp(names[other], name) != 0)
			other++;
		if (other == known && ++known == FILES_MAX)
			give_up("too many files");
	}
	closedir(list);
	/* The order in which a directory is read differs from one run to the next, and what a seed means must not. */
	qsort(names, known, sizeof names[0], (int (*)(const void *, const void *))strcmp);
	for (size_t i = 0; i < known; i++)
		cut(arguments[1], arguments[2], names[i]);
	return 0;
}
