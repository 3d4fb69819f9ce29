// Package eximtest is a private Exim for tests and the demo, as package postfixtest is a private Postfix. The peers that
// talk to it are those of that package.
//
// An [Instance] is Debian's exim4 with Debian's own configuration, and a root of its own: a mount namespace in which
// Exim's and mailbag's directories are the instance's, Exim's programs and its user are there, and Postfix is not. All else
// is the machine's, at the same paths, and so are the network and the processes. What is to run beside this Exim runs in
// that root by [Instance.Command]; what it has in its directories is seen from outside by [Instance.Root].
//
// It listens on 127.0.0.4 only, asks no DNS, and treats 127.0.0.1 as an outside client; 127.0.0.2 may send to everywhere.
// Mail to domains that nobody configured is discarded.
//
// Several instances may run at once. [Instance.Close] ends every process in the instance's root, and so does the kernel's
// end of the process that started the instance; with the last of them the root is gone.
//
// It needs root, and what make deps unpacks into .cache/exim.
package eximtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	postfixtest "mailbag/testdata/postfix"
)

// Config is what an instance has beyond Debian's defaults and privacy. Its zero value is an Exim that works.
type Config struct {
	// Main are lines for the beginning of the main section, such as the macros that Debian's configuration looks for.
	Main string
	// Parts are further files of /etc/exim4/conf.d, by their paths in it.
	Parts map[string]string
	// Relays are domains for which mail is taken from everybody, and the host:port to which it goes.
	Relays map[string]string
	// Local are domains of its own, whose mail is discarded.
	Local []string
	// Restless is an Exim that tries deferred mail again within seconds.
	Restless bool
}

// Instance is one private Exim. Its methods may be called from several goroutines, except Start, Stop and Close.
type Instance struct {
	dir      string
	addr     string
	interval string // between queue runs
	root     *root

	mu     sync.Mutex
	daemon *daemon // nil while stopped
}

// Hostname is what every instance calls itself.
const Hostname = "mx.provider.example"

// address is where every instance listens. Exim sends nothing to an address of its own, whatever the port, and the peers of
// the tests are at 127.0.0.1.
const address = "127.0.0.4"

// Where make deps unpacks Debian's packages.
var cache = func() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../.cache/exim")
}()

// Available is nil where a private Exim can run.
func Available() error {
	if os.Getuid() != 0 {
		return errors.New("a private Exim needs root; run the tests as root")
	}
	for _, name := range []string{"usr/sbin/exim4", "usr/sbin/update-exim4.conf", "usr/sbin/exim_tidydb"} {
		if _, err := os.Stat(filepath.Join(cache, name)); err != nil {
			return fmt.Errorf("there is no %s in %s; make deps puts it there on Debian", name, cache)
		}
	}
	return nil
}

// Prepare builds an instance for a test in a directory of its own, without starting it, so that the test can
// configure it. It is ended and removed when the test ends; a failed test shows the end of its log.
func Prepare(t testing.TB, c Config) *Instance {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	in, err := New(postfixtest.ServerDir(t, "exim"), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			panics, _ := os.ReadFile(in.Root("/var/log/exim4/paniclog")) // not there where all is well
			t.Logf("end of the log of Exim:\n%s\n%s", tail(in.Log(), 60), panics)
		}
		if err := in.Close(); err != nil {
			t.Error(err)
		}
	})
	return in
}

// Run is Prepare and Start.
func Run(t testing.TB, c Config) *Instance {
	t.Helper()
	in := Prepare(t, c)
	if err := in.Start(); err != nil {
		t.Fatal(err)
	}
	return in
}

// New builds an instance in dir, which must exist, be empty and be reachable by other users. It starts nothing. The
// instance has to be closed.
func New(dir string, c Config) (*Instance, error) {
	port, err := postfixtest.FreePort()
	if err != nil {
		return nil, err
	}
	in := &Instance{dir: dir, addr: fmt.Sprintf("%s:%d", address, port), interval: "30m"} // Debian's
	if c.Restless {
		in.interval = "1s"
	}
	if err := in.lay(c, port); err != nil {
		return nil, fmt.Errorf("cannot build an Exim instance in %s: %w", dir, err)
	}
	if in.root, err = enter(dir); err != nil {
		return nil, fmt.Errorf("cannot make the root of the Exim in %s: %w", dir, err)
	}
	if err := in.update(); err != nil { // as the package does when it is installed
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// Addr is the host and port at which the instance takes mail.
func (in *Instance) Addr() string { return in.addr }

// Path returns the path of name in the instance's directory, where tests may put files of their own. It is the same within
// the instance's root.
func (in *Instance) Path(name ...string) string {
	return filepath.Join(append([]string{in.dir}, name...)...)
}

// Root is where the instance has an absolute path that is in one of its own directories.
func (in *Instance) Root(path string) string { return filepath.Join(in.dir, "root", path) }

// Command is a program in the instance's root.
func (in *Instance) Command(path string, args ...string) *exec.Cmd {
	return in.root.command(path, args...)
}

// run runs a program in the instance's root and returns what it prints.
func (in *Instance) run(path string, args ...string) (string, error) {
	var out, diag strings.Builder
	cmd := in.Command(path, args...)
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, strings.TrimSpace(diag.String()))
	}
	return out.String(), nil
}

// lay writes the files of the instance: under root what it has for itself and under machine what the machine lacks.
func (in *Instance) lay(c Config, port int) error {
	for _, d := range append(slices.Clone(own), "machine/etc/default", "machine/usr/sbin", "private") {
		if strings.HasPrefix(d, "/") {
			d = filepath.Join("root", d)
		}
		if err := os.MkdirAll(filepath.Join(in.dir, d), 0o755); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{"etc/exim4/.": "root/etc/exim4", "usr/sbin/.": "machine/usr/sbin"} {
		// cp keeps links, owners and the setuid bit.
		if out, err := exec.Command("cp", "-a", cache+"/"+from, in.Path(to)).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
	}
	files := in.configuration(c, port)
	for name, text := range map[string]string{"passwd": passwd, "group": group, "hosts": hosts} {
		machines, err := os.ReadFile(filepath.Join("/etc", name))
		if err != nil {
			return err
		}
		files["machine/etc/"+name] = string(machines) + text
	}
	for name, text := range c.Parts {
		files["root/etc/exim4/conf.d/"+name] = text
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(in.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, d := range []struct {
		path string
		user int
		mode os.FileMode
	}{ // as the packages make them
		{"/var/spool/exim4", uid, 0o750},
		{"/var/log/exim4", uid, 0o750 | os.ModeSetgid},
		{"/var/lib/mailbag", mailbagUID, 0o751},
		{"/var/lib/mailbag/exim", mailbagUID, 0o750 | os.ModeSetgid},
		// Sockets inherit the group that systemd gives them there.
		{"/run/mailbag", mailbagUID, 0o755 | os.ModeSetgid},
	} {
		path := in.Root(d.path)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chown(path, d.user, uid), os.Chmod(path, d.mode)); err != nil {
			return err
		}
	}
	return nil
}

// These are Exim's user and group and those of mailbag's daemons. Debian's packages take what is free; the machine's users
// have others.
const (
	uid        = 899
	mailbagUID = 898
)

var (
	passwd = fmt.Sprintf("Debian-exim:x:%d:%d::/var/spool/exim4:/usr/sbin/nologin\nmailbag:x:%d:%d::/var/lib/mailbag:/usr/sbin/nologin\n", uid, uid, mailbagUID, mailbagUID)
	group  = fmt.Sprintf("Debian-exim:x:%d:\nmailbag:x:%d:\n", uid, mailbagUID)
	hosts  = address + " " + Hostname + "\n"
)

// configuration is what the administrator of this Exim has written, by its path in the instance.
func (in *Instance) configuration(c Config, port int) map[string]string {
	relays := slices.Sorted(maps.Keys(c.Relays))
	var hubbed strings.Builder
	for _, domain := range relays {
		fmt.Fprintf(&hubbed, "%s: %s\n", domain, strings.Replace(c.Relays[domain], ":", "::", 1))
	}
	files := map[string]string{
		"machine/etc/mailname":        Hostname + "\n",
		"machine/etc/resolv.conf":     "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", // nobody answers there
		"machine/etc/nsswitch.conf":   "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
		"machine/etc/aliases":         "",
		"machine/etc/email-addresses": "",
		"machine/etc/default/exim4":   "QUEUERUNNER='combined'\nQUEUEINTERVAL='" + in.interval + "'\n",
		"root/etc/exim4/hubbed_hosts": hubbed.String(),
		"root/etc/exim4/update-exim4.conf.conf": fmt.Sprintf(`dc_eximconfig_configtype='internet'
dc_other_hostnames='%s'
dc_local_interfaces='%s.%d'
dc_readhost=''
dc_relay_domains='%s'
dc_minimaldns='false'
dc_relay_nets='127.0.0.2'
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='true'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
`, strings.Join(append([]string{Hostname}, c.Local...), ":"), address, port, strings.Join(relays, ":")),
		// Load tests come from 127.0.0.1, an outside client here.
		"root/etc/exim4/conf.d/main/00_private": `MAIN_HARDCODE_PRIMARY_HOSTNAME = ` + Hostname + `
MAIN_RELAY_NETS = 127.0.0.2
MAIN_HOST_LOOKUP = :
tls_advertise_hosts =
notifier_socket =
smtp_accept_max = 500
smtp_connect_backlog = 500
` + c.Main + "\n",
		"root/etc/exim4/conf.d/router/190_private": `discard:
  driver = redirect
  domains = ! +local_domains : ! +relay_to_domains
  data = :blackhole:
`,
	}
	if len(c.Local) > 0 {
		files["root/etc/exim4/conf.d/router/010_private"] = `discard_local:
  driver = redirect
  domains = ` + strings.Join(c.Local, ":") + `
  data = :blackhole:
`
	}
	if c.Restless {
		files["root/etc/exim4/conf.d/retry/01_private"] = "* * F,101d,1s\n"
	}
	return files
}

// tail returns the last n lines of text.
func tail(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
