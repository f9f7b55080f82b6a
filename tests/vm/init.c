// SPDX-License-Identifier: Apache-2.0
// The first process of a virtual machine, in its initramfs: loads the modules that a virtio file system takes, makes the
// host's root directory the guest's, and goes on as ../uml/guest.sh there.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int not_hidden(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

static void fail(const char *what)
{
	perror(what);
	reboot(RB_POWER_OFF);
}

int main(void)
{
	struct dirent **modules;
	int count = chdir("/modules") ? -1 : scandir(".", &modules, not_hidden, alphasort);
	for (int i = 0; i < count; i++) {
		int file = open(modules[i]->d_name, O_RDONLY);
		if (syscall(SYS_finit_module, file, "", 0))
			perror(modules[i]->d_name);
		close(file);
	}
	mkdir("/root", 0755);
	if (mount("root", "/root", "virtiofs", 0, NULL))
		fail("mount virtiofs");
	if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fail("switch root");
	execl("/bin/bash", "bash", getenv("lb_guest"), NULL);
	fail("/bin/bash");
}
