/* What is to fail: a part of disk.c, which says what one can order. */

enum { WRITE = 1, SYNC = 2 };

static struct {
	struct timespec changed;
	ino_t inode;
	int what, error, drops; /* what fails with which error */
	long left, lasting;     /* how many go well before, if that is counted: else -1; whether all after it fail too */
} trouble = { .left = -1 };

static int error_named(const char *name)
{
	static const struct { const char *name; int number; } errors[] = {
		{ "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EROFS", EROFS }, { "EDQUOT", EDQUOT },
	};
	for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
		if (strcmp(errors[i].name, name) == 0)
			return errors[i].number;
	errno = EINVAL;
	give_up("no such error in the control file:", name);
	return 0;
}

static void read_control(void)
{
	struct stat known;
	if (!control || stat(control, &known) != 0) {
		trouble.what = 0;
		return;
	}
	if (known.st_ino == trouble.inode && memcmp(&known.st_mtim, &trouble.changed, sizeof known.st_mtim) == 0)
		return;
	char text[128], error[32];
	int fd = real_open(control, O_RDONLY | O_CLOEXEC);
	ssize_t count = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (count < 0)
		give_up("cannot read", control);
	real_close(fd);
	text[count] = 0;
	memset(&trouble, 0, sizeof trouble);
	trouble.inode = known.st_ino;
	trouble.changed = known.st_mtim;
	trouble.left = -1;
	if (sscanf(text, "nth %ld %31s", &trouble.left, error) == 2)
		trouble.what = WRITE | SYNC;
	else if (sscanf(text, "from %ld %31s", &trouble.left, error) == 2)
		trouble.what = WRITE | SYNC, trouble.lasting = 1;
	else if (sscanf(text, "writes %31s", error) == 1)
		trouble.what = WRITE;
	else if (sscanf(text, "syncs %31s", error) == 1)
		trouble.what = SYNC;
	else if (sscanf(text, "drops %31s", error) == 1)
		trouble.what = SYNC, trouble.drops = 1;
	else if (sscanf(text, "all %31s", error) == 1)
		trouble.what = WRITE | SYNC;
	else if (strncmp(text, "ok", 2) != 0) {
		errno = EINVAL;
		give_up("cannot understand", control);
	}
	if (trouble.what)
		trouble.error = error_named(error);
	if (trouble.left > 0)
		trouble.left--;
}

/* The error that this is to fail with, or 0. Under the lock. */
static int fails(int what, const char *call, const char *name)
{
	read_control();
	if (!(trouble.what & what))
		return 0;
	if (trouble.left > 0) {
		trouble.left--;
		return 0;
	}
	if (trouble.left == 0) {
		trouble.left = -1;
		if (!trouble.lasting)
			trouble.what = 0;
	}
	int fd = real_open(control_told, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	char line[NAME_BYTES + 64];
	int length = snprintf(line, sizeof line, "%s %s %s\n", call, name, strerror(trouble.error));
	if (fd < 0 || real_write(fd, line, (size_t)length) != length)
		give_up("cannot write", control_told);
	real_close(fd);
	return trouble.error;
}

static int fail(int error)
{
	pthread_mutex_unlock(&lock);
	errno = error;
	return -1;
}
