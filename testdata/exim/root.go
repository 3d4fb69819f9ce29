package eximtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// own are the directories that an instance has for itself.
var own = []string{"/etc/exim4", "/var/lib/exim4", "/var/spool/exim4", "/var/log/exim4", "/run/mailbag", "/var/lib/mailbag"}

// A root is a mount namespace. It is there as long as its file is open, or a process runs in it.
type root struct {
	namespace *os.File
	id        string // as the links in /proc say it

	guard     *exec.Cmd
	guardLine io.WriteCloser // the guard acts when this is closed without a word
}

// The machine's directories are covered with ones of which it is the lower part (overlayfs); what is to be in the upper
// one lies in $dir/machine. A character device 0/0 there hides what the machine has.
const build = `set -e
dir=$1 uid=$2; shift 2
mount --make-rprivate /
cd "$dir/private"
mount -t tmpfs -o mode=755 tmpfs .
cd "$dir/private"
mkdir -p etc usr/sbin lib log spool scratch/etc scratch/usr scratch/lib scratch/log scratch/spool
cp -a ../machine/. .
for name in /usr/sbin/post* /etc/postfix /usr/lib/postfix; do
	[ ! -e "$name" ] || { mkdir -p ".${name%/*}"; mknod ".$name" c 0 0; }
done
for upper in etc usr lib:/var/lib log:/var/log spool:/var/spool; do
	lower=/${upper#*:/}; upper=${upper%%:*}
	mount -t overlay -o "lowerdir=$lower,upperdir=$dir/private/$upper,workdir=$dir/private/scratch/$upper" private "$lower"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/lock /run/exim4
chown "$uid:$uid" /run/exim4
chmod 750 /run/exim4
for own; do
	mkdir -p "$own"
	mount --bind "$dir/root$own" "$own"
done
echo built
read -r line`

// enter makes the root of the instance in dir.
func enter(dir string) (*root, error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", build, "sh", dir, strconv.Itoa(uid)}, own...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Setsid: true}
	var diag strings.Builder
	cmd.Stderr = &diag
	in, inErr := cmd.StdinPipe() // the shell stays until it is closed
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &root{}
	said, err := bufio.NewReader(out).ReadString('\n')
	if said != "built\n" {
		err = errors.Join(err, errors.New("its mounts cannot be made"))
	} else if r.namespace, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid)); err == nil {
		if r.id, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid)); err == nil {
			err = r.startGuard()
		}
	}
	in.Close()
	_ = cmd.Wait() // read(1) fails at the end of its input
	if err != nil {
		r.namespace.Close()
		return nil, fmt.Errorf("%w: %s", err, diag.String())
	}
	return r, nil
}

// command is a program in the root. It is the process itself that is started, which has the caller's environment, files and
// working directory.
func (r *root) command(path string, args ...string) *exec.Cmd {
	namespace := fmt.Sprintf("--mount=/proc/%d/fd/%d", os.Getpid(), r.namespace.Fd())
	return exec.Command("nsenter", append([]string{namespace, "--", path}, args...)...)
}

// startGuard starts a shell that kills what runs in the root when this process ends in whatever way, which closes the pipe.
func (r *root) startGuard() error {
	r.guard = exec.Command("/bin/sh", "-c", `read -r word && exit
while pids=$(ls -l /proc/[0-9]*/ns/mnt 2>/dev/null | sed -n "s,.* /proc/\([0-9]*\)/ns/mnt -> $1\$,\1,p"); [ -n "$pids" ]; do
	kill -s KILL $pids
done`, "guard", strings.NewReplacer("[", `\[`, "]", `\]`).Replace(r.id))
	r.guard.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // out of reach of a ^C at the terminal
	var err error
	if r.guardLine, err = r.guard.StdinPipe(); err != nil {
		return err
	}
	return r.guard.Start()
}

// close kills what runs in the root, and thereby ends it.
func (r *root) close() error {
	err := postfixtest.Wait("the processes in Exim's root to end", func() bool {
		pids := r.processes()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	_, guardErr := io.WriteString(r.guardLine, "dismissed\n")
	return errors.Join(err, guardErr, r.guard.Wait(), r.namespace.Close())
}

// processes are those in the root, without any that ended and were not waited for yet.
func (r *root) processes() []int {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/mnt")
	var pids []int
	for _, link := range links {
		if id, err := os.Readlink(link); err != nil || id != r.id {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

const stopWithin = time.Minute // a deadline that only a broken Exim meets
