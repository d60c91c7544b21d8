/*
 * pause holds a pod's namespaces open and reaps the orphans of a shared PID
 * namespace. It speaks to the kernel directly, without a C library, because
 * there is one such process per pod: it needs two pages, not hundreds.
 */

#include <asm/unistd.h>
#include <stddef.h>

enum { SIG_HUP = 1, SIG_INT = 2, SIG_TERM = 15, SIG_CHLD = 17, SIG_BLOCK_ = 0, WNOHANG_ = 1 };

#if defined(__x86_64__)
static long call4(long n, long a, long b, long c, long d)
{
	long ret;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
static long call4(long n, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
#else
#error "pause: unknown architecture"
#endif

static void reap(void)
{
	while (call4(__NR_wait4, -1, 0, WNOHANG_, 0) > 0)
		;
}

/*
 * Signals are blocked and taken one by one, so no handler, no stack switch and
 * no race between a check and a sleep: as PID 1 an unblocked signal without a
 * handler would be ignored by the kernel anyway.
 */
__attribute__((noreturn)) void _start(void)
{
	unsigned long set = 1UL << (SIG_INT - 1) | 1UL << (SIG_TERM - 1) | 1UL << (SIG_CHLD - 1);
	call4(__NR_rt_sigprocmask, SIG_BLOCK_, (long)&set, 0, sizeof set);
	reap();
	for (;;) {
		long sig = call4(__NR_rt_sigtimedwait, (long)&set, 0, 0, sizeof set);
		if (sig == SIG_CHLD)
			reap();
		if (sig == SIG_INT || sig == SIG_TERM)
			call4(__NR_exit_group, 0, 0, 0, 0);
	}
}
