// SPDX-License-Identifier: Apache-2.0
// The first and only process of a virtual machine: loads the BPF objects given as its files, tells the result, ends.
#include <stdarg.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bpf/libbpf.h>

static int print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_DEBUG ? 0 : vprintf(format, arguments);
}

static void load(const char *path)
{
	struct bpf_object *object = bpf_object__open(path);
	printf("loaded %s: %d\n", path, object ? bpf_object__load(object) : -1);
}

int main(void)
{
	mkdir("/sys", 0755);
	mkdir("/proc", 0755);
	mount("sysfs", "/sys", "sysfs", 0, NULL); // the kernel's types: /sys/kernel/btf/vmlinux
	mount("proc", "/proc", "proc", 0, NULL);
	libbpf_set_print(print);
	load("/lb.bpf.o");
	load("/lease.bpf.o");
	fflush(stdout);
	sync();
	return reboot(RB_POWER_OFF);
}
