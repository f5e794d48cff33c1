/* Preloaded into a program, makes one private mapping of $BALLAST bytes out of
 * two, neither of which the kernel would find too large, with a page on either
 * side that keeps it from merging further. What the program starts gets none. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static void *map(char *at, size_t n, int prot, int flags) {
	void *p = mmap(at, n, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (p == MAP_FAILED) {
		perror("ballast");
		exit(3);
	}
	return p;
}

__attribute__((constructor)) static void ballast(void) {
	const char *text = getenv("BALLAST");
	if (!text)
		return;
	const size_t page = 4096, n = strtoull(text, NULL, 10) & ~(page - 1), half = n / 2 & ~(page - 1);
	char *p = (char *)map(NULL, n + 2 * page, PROT_NONE, MAP_NORESERVE) + page;
	munmap(p, n);
	map(p, half, PROT_READ | PROT_WRITE, MAP_FIXED);
	map(p + half, n - half, PROT_READ | PROT_WRITE, MAP_FIXED);
	unsetenv("BALLAST");
	unsetenv("LD_PRELOAD");
}
