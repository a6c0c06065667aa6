/* What is on the disk for certain: a part of disk.c, which says what the images are. */

static int image_path(char *path, const char *name, const char *ending)
{
	int length = snprintf(path, PATH_MAX, "%s/%s%s", images, name, ending);
	return length > 0 && length < PATH_MAX;
}

static int has_image(const char *name)
{
	char path[PATH_MAX];
	return (image_path(path, name, ".new") && access(path, F_OK) == 0) || (image_path(path, name, "") && access(path, F_OK) == 0);
}

/* The image of what `file` is now: of a new entry, or of one that is there for certain. */
static int image_open(const struct file *file)
{
	char path[PATH_MAX];
	int image = -1;
	if (image_path(path, file->name, ".new"))
		image = real_open(path, O_RDWR | O_CLOEXEC);
	if (image < 0 && image_path(path, file->name, ""))
		image = real_open(path, O_RDWR | O_CLOEXEC);
	if (image < 0)
		give_up("there is no image of", file->name);
	return image;
}

static void copy(int from, int to, off_t at, off_t end, const char *name)
{
	char buffer[65536];
	while (at < end) {
		size_t wanted = end - at < (off_t)sizeof buffer ? (size_t)(end - at) : sizeof buffer;
		ssize_t count = pread(from, buffer, wanted, at);
		if (count < 0)
			give_up("cannot read", name);
		if (count == 0)
			return; /* it is shorter */
		if (real_pwrite(to, buffer, (size_t)count, at) != count)
			give_up("cannot write", name);
		at += count;
	}
}

static off_t size_of(int fd, const char *name)
{
	struct stat known;
	if (fstat(fd, &known) != 0)
		give_up("cannot look at", name);
	return known.st_size;
}

/* A file from before the layer: all of it is on the disk. Another program may be killed in the middle of this. */
static void image_of_old(const char *name, int fd)
{
	char path[PATH_MAX], made[PATH_MAX];
	if (!image_path(path, name, "") || !image_path(made, name, ".made"))
		give_up("too long a name", name);
	int image = real_open(made, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (image < 0)
		give_up("cannot make an image of", name);
	/* A descriptor for writing only cannot be read. */
	char source_path[64];
	snprintf(source_path, sizeof source_path, "/proc/self/fd/%d", fd);
	int source = real_open(source_path, O_RDONLY | O_CLOEXEC);
	copy(source, image, 0, size_of(source, name), name);
	real_close(source);
	real_close(image);
	if (real_rename(made, path) != 0)
		give_up("cannot make an image of", name);
}

static void image_of_new(const char *name)
{
	char path[PATH_MAX];
	int image = image_path(path, name, ".new") ? real_open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
	if (image < 0)
		give_up("cannot make an image of", name);
	real_close(image);
}

/* For each run of dirty sectors from `from` to `to`, which are open. */
static void copy_dirty(const struct file *file, int from, int to)
{
	size_t sectors = file->dirty_bytes * 8;
	for (size_t first = 0; first < sectors; first++) {
		if (first % 8 == 0 && !file->dirty[first / 8]) {
			first += 7;
			continue;
		}
		if (!(file->dirty[first / 8] & (1 << first % 8)))
			continue;
		size_t end = first;
		while (end < sectors && file->dirty[end / 8] & (1 << end % 8))
			end++;
		copy(from, to, (off_t)first * SECTOR, (off_t)end * SECTOR, file->name);
		first = end;
	}
}

/* What is in the file now is on the disk. */
static void saved(struct file *file, int fd)
{
	if (file->removed)
		return;
	int image = image_open(file);
	copy_dirty(file, fd, image);
	off_t size = size_of(fd, file->name);
	if (size != size_of(image, file->name) && real_ftruncate(image, size) != 0)
		give_up("cannot cut the image of", file->name);
	real_close(image);
	if (file->dirty_bytes)
		memset(file->dirty, 0, file->dirty_bytes);
}

/* A sync has failed: Linux takes what it could not write for written, and may forget it (`visibly`) or show it until it
 * needs the memory. It will never be on the disk either way. */
static void not_saved(struct file *file, int fd, int visibly)
{
	if (visibly && !file->removed) {
		int image = image_open(file);
		copy_dirty(file, image, fd);
		if (real_ftruncate(fd, size_of(image, file->name)) != 0)
			give_up("cannot cut", file->name);
		real_close(image);
	}
	if (file->dirty_bytes)
		memset(file->dirty, 0, file->dirty_bytes);
}

/* The directory was synced: its entries are as they are now. */
static void entries_saved(void)
{
	DIR *list = opendir(images);
	if (!list)
		give_up("cannot read", images);
	char path[PATH_MAX], other[PATH_MAX];
	for (struct dirent *entry; (entry = readdir(list));) {
		size_t length = strlen(entry->d_name);
		if (entry->d_name[0] == '.' || length >= NAME_BYTES)
			continue;
		if (length > 4 && strcmp(entry->d_name + length - 4, ".new") == 0) {
			char name[NAME_BYTES];
			memcpy(name, entry->d_name, length - 4);
			name[length - 4] = 0;
			if (!image_path(path, entry->d_name, "") || !image_path(other, name, "") || real_rename(path, other) != 0)
				give_up("cannot rename", entry->d_name);
		} else if (snprintf(other, sizeof other, "%s/%s", directory, entry->d_name) < (int)sizeof other
			   && access(other, F_OK) != 0) {
			if (!image_path(path, entry->d_name, "") || real_unlink(path) != 0)
				give_up("cannot remove", entry->d_name);
		}
	}
	closedir(list);
}
