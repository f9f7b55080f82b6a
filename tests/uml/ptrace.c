// SPDX-License-Identifier: Apache-2.0
// ptrace() for a User-Mode Linux kernel on a processor with AMX, by LD_PRELOAD.
//
// Linux takes a traced process's extended registers (NT_X86_XSTATE) only whole: 11 KB with AMX. The UML kernel of
// Debian 12 has room for less and dies of EFAULT. What it leaves out is filled up with what the process has.

enum { PTRACE_PEEKTEXT = 1, PTRACE_PEEKUSR = 3, PTRACE_GETREGSET = 0x4204, PTRACE_SETREGSET = 0x4205 };
enum { NT_X86_XSTATE = 0x202, SYS_ptrace = 101, EFAULT = 14, ROOM = 1 << 16 };

struct iovec {
	void *base;
	unsigned long len;
};

extern int *__errno_location(void);

static long call(long request, long pid, long address, void *data)
{
	register void *data_register asm("r10") = data;
	long result;

	asm volatile("syscall"
		     : "=a"(result)
		     : "a"(SYS_ptrace), "D"(request), "S"(pid), "d"(address), "r"(data_register)
		     : "rcx", "r11", "memory");
	return result;
}

static long set_whole(long pid, const struct iovec *part)
{
	static char room[ROOM];
	struct iovec whole = { room, ROOM };
	long result = call(PTRACE_GETREGSET, pid, NT_X86_XSTATE, &whole);

	if (result < 0)
		return result;
	for (unsigned long i = 0; i < part->len && i < whole.len; i++)
		room[i] = ((const char *)part->base)[i];
	return call(PTRACE_SETREGSET, pid, NT_X86_XSTATE, &whole);
}

long ptrace(int request, ...)
{
	__builtin_va_list arguments;
	long pid, address, result, peeked = 0;
	void *data;

	__builtin_va_start(arguments, request);
	pid = __builtin_va_arg(arguments, int);
	address = __builtin_va_arg(arguments, long);
	data = __builtin_va_arg(arguments, void *);
	__builtin_va_end(arguments);

	if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSR)
		data = &peeked; // the system call stores the word, the C library's function returns it
	result = call(request, pid, address, data);
	if (result == -EFAULT && request == PTRACE_SETREGSET && address == NT_X86_XSTATE)
		result = set_whole(pid, data);
	if (result < 0) {
		*__errno_location() = (int)-result;
		return -1;
	}
	return data == &peeked ? peeked : result;
}
