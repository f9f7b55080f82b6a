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

static void load(const char *path, unsigned int capturing)
{
	struct bpf_object *object = bpf_object__open(path);
	struct bpf_map *constant = object ? bpf_object__find_map_by_name(object, ".rodata.capture") : NULL;
	if (constant)
		bpf_map__set_initial_value(constant, &capturing, sizeof(capturing));
	printf("loaded %s%s: %d\n", path, capturing ? " capturing" : "", object ? bpf_object__load(object) : -1);
	bpf_object__close(object);
}

int main(void)
{
	mkdir("/sys", 0755);
	mkdir("/proc", 0755);
	mount("sysfs", "/sys", "sysfs", 0, NULL); // the kernel's types: /sys/kernel/btf/vmlinux
	mount("proc", "/proc", "proc", 0, NULL);
	libbpf_set_print(print);
	load("/lb.bpf.o", 0);
	load("/lb.bpf.o", 1);
	load("/lease.bpf.o", 0);
	fflush(stdout);
	sync();
	return reboot(RB_POWER_OFF);
}
