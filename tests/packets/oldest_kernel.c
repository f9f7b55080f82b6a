// SPDX-License-Identifier: Apache-2.0
// The first and only process of a virtual machine: loads the BPF objects given as its files, runs what needs no
// packet, tells the result, ends.
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

static int print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_DEBUG ? 0 : vprintf(format, arguments);
}

// As lbnode's loader: without programs for frames of several buffers at XDP where the kernel has none.
static bool has_frags(void)
{
	const struct bpf_insn pass[] = {{.code = BPF_ALU64 | BPF_MOV, .imm = XDP_PASS}, {.code = BPF_JMP | BPF_EXIT}};
	LIBBPF_OPTS(bpf_prog_load_opts, options, .prog_flags = BPF_F_XDP_HAS_FRAGS);
	int fd = bpf_prog_load(BPF_PROG_TYPE_XDP, NULL, "Apache-2.0", pass, 2, &options);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

static void run(struct bpf_object *object, const char *name, void *context, unsigned int size)
{
	struct bpf_program *program = bpf_object__find_program_by_name(object, name);
	LIBBPF_OPTS(bpf_test_run_opts, options, .ctx_in = context, .ctx_size_in = size);
	if (program && !bpf_prog_test_run_opts(bpf_program__fd(program), &options))
		printf("ran %s: %d\n", name, (int)options.retval);
}

static void load(const char *path, unsigned int capturing)
{
	struct { unsigned int now_ms, removed; } sweep = {}; // struct sweep_args
	struct bpf_object *object = bpf_object__open(path);
	struct bpf_map *constant = object ? bpf_object__find_map_by_name(object, ".rodata.capture") : NULL;
	if (constant)
		bpf_map__set_initial_value(constant, &capturing, sizeof(capturing));
	struct bpf_program *program;
	bpf_object__for_each_program(program, object)
		if (!strcmp(bpf_program__section_name(program), "xdp.frags"))
			bpf_program__set_autoload(program, has_frags());
	printf("loaded %s%s: %d\n", path, capturing ? " capturing" : "", object ? bpf_object__load(object) : -1);
	run(object, "start", NULL, 0);
	run(object, "sweep", &sweep, sizeof(sweep));
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
