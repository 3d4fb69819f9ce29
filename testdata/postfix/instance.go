// Package postfixtest is a private Postfix for tests and the demo, and the peers that talk to it: an SMTP client that
// plays scripts ([Dialogue]) and a small SMTP server that records what it is given ([Sink]).
//
// An [Instance] is a whole Postfix in one directory: its own main.cf and master.cf (Debian's, so smtpd and
// trivial-rewrite run chrooted as they do on a customer's machine), queue, data directory and log. It listens on
// 127.0.0.1 only, asks no DNS, and treats 127.0.0.1 as an outside client; 127.0.0.2 is in mynetworks. Mail to domains
// that nobody configured is discarded. The Postfix of the machine (/etc/postfix, /var/spool/postfix) is neither read
// for settings nor changed; only its programs are used.
//
// Several instances may run at once. [Instance.Stop] ends every process of the instance, and the kernel ends them when
// the process that started the instance dies without calling it.
//
// It needs root, because Postfix does. Whoever can write to the directory of an instance can act as root through it,
// so a directory is created with mode 0755 and owned by root.
package postfixtest

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is what an instance has beyond the private defaults. Its zero value is a Postfix that works.
type Config struct {
	// Main holds main.cf parameters, in place of those the instance would have.
	Main map[string]string
	// Master holds further master.cf entries, each with its -o lines behind it.
	Master []string
	// Hosts maps host names to addresses for the smtp client, which runs chrooted and asks no DNS. With any, postfix
	// check warns that the chroot's etc/hosts is not the machine's.
	Hosts map[string]string
}

// Instance is one private Postfix. Its methods may be called from several goroutines, except Start and Stop.
type Instance struct {
	dir  string
	addr string

	mu     sync.Mutex
	master *master // nil while stopped
}

// New builds an instance in dir, which must exist, be empty and be reachable by the user postfix. It starts nothing.
func New(dir string, c Config) (*Instance, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot resolve the directory of the instance: %w", err)
	}
	if err := reachable(dir); err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	in := &Instance{dir: dir, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	if err := in.lay(c); err != nil {
		return nil, fmt.Errorf("cannot build a Postfix instance in %s: %w", dir, err)
	}
	return in, nil
}

// Addr is the host and port of the instance's smtpd.
func (in *Instance) Addr() string { return in.addr }

// ConfigDir is the directory of main.cf, for postconf -c and MAIL_CONFIG.
func (in *Instance) ConfigDir() string { return filepath.Join(in.dir, "etc") }

// QueueDir is the instance's queue_directory, which is also what the chrooted services see as their root.
func (in *Instance) QueueDir() string { return filepath.Join(in.dir, "spool") }

// Path returns the path of name in the instance's directory, where tests may put files of their own.
func (in *Instance) Path(name ...string) string {
	return filepath.Join(append([]string{in.dir}, name...)...)
}

// Private is the path of a socket or file in private/ of the queue directory.
func (in *Instance) Private(name string) string { return filepath.Join(in.QueueDir(), "private", name) }

// reachable makes sure that the user postfix can get to dir: a parent that is closed to others would show up as
// a Postfix that accepts connections and never answers.
func reachable(dir string) error {
	for d := dir; ; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err != nil {
			return fmt.Errorf("cannot use %s for a Postfix instance: %w", dir, err)
		}
		if st.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("cannot use %s for a Postfix instance: %s is closed to other users; open it with chmod o+x", dir, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

// lay writes the files of the instance.
func (in *Instance) lay(c Config) error {
	for _, d := range []string{"etc", "spool", "spool/etc", "spool/pid", "spool/private", "data", "log"} {
		if err := os.MkdirAll(filepath.Join(in.dir, d), 0o755); err != nil {
			return err
		}
		// The umask of whoever runs the tests must not close the directories to Postfix.
		if err := os.Chmod(filepath.Join(in.dir, d), 0o755); err != nil {
			return err
		}
	}
	uid, gid, err := postfixUser()
	if err != nil {
		return err
	}
	if err := os.Chown(filepath.Join(in.dir, "data"), uid, gid); err != nil {
		return err
	}
	// private/ is made here, not by postfix check, so that tests can put sockets into it before the start.
	private := filepath.Join(in.QueueDir(), "private")
	if err := errors.Join(os.Chown(private, uid, 0), os.Chmod(private, 0o700)); err != nil {
		return err
	}
	for name, text := range in.files(c) {
		if err := os.WriteFile(filepath.Join(in.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	text, err := in.masterCf(c.Master)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(in.dir, "etc/master.cf"), []byte(text), 0o644); err != nil {
		return err
	}
	return in.age()
}

// age makes main.cf look some seconds old. Every Postfix program that reads a main.cf of the last second waits until it
// is older, lest it reads half of an edit: without this a start takes five times as long.
func (in *Instance) age() error {
	then := time.Now().Add(-10 * time.Second)
	return os.Chtimes(filepath.Join(in.ConfigDir(), "main.cf"), then, then)
}

// files returns main.cf and the files of the chroot, by their path in the instance.
func (in *Instance) files(c Config) map[string]string {
	main := map[string]string{
		"compatibility_level":   "3.6",
		"queue_directory":       in.QueueDir(),
		"data_directory":        filepath.Join(in.dir, "data"),
		"maillog_file":          in.logFile(),
		"maillog_file_prefixes": in.dir,

		"myhostname":                   "mx.provider.example",
		"mydomain":                     "provider.example",
		"mydestination":                "$myhostname, localhost",
		"mynetworks":                   "127.0.0.2/32",
		"smtpd_relay_restrictions":     "permit_mynetworks permit_sasl_authenticated defer_unauth_destination",
		"append_dot_mydomain":          "no",
		"biff":                         "no",
		"alias_maps":                   "",
		"alias_database":               "",
		"recipient_delimiter":          "+",
		"default_transport":            "discard",
		"inet_interfaces":              "loopback-only",
		"inet_protocols":               "ipv4",
		"smtpd_peername_lookup":        "no",
		"smtp_dns_support_level":       "disabled",
		"smtp_host_lookup":             "native",
		"smtp_tls_security_level":      "none",
		"smtpd_tls_security_level":     "none",
		"smtpd_error_sleep_time":       "0",
		"debugger_command":             "",
		"smtp_address_preference":      "ipv4",
		"lmtp_dns_support_level":       "disabled",
		"lmtp_host_lookup":             "native",
		"local_header_rewrite_clients": "",
		// Load tests come from 127.0.0.1, an outside client here.
		"smtpd_client_event_limit_exceptions": "127.0.0.0/8",
	}
	for k, v := range c.Main {
		main[k] = v
	}
	var text strings.Builder
	for _, k := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&text, "%s = %s\n", k, main[k])
	}
	files := map[string]string{"etc/main.cf": text.String()}
	// What the smtp client needs in its chroot. Copies, so that postfix check does not complain of differences; no
	// resolv.conf, so that no name server is asked.
	for _, name := range []string{"etc/hosts", "etc/services"} {
		if text, err := os.ReadFile("/" + name); err == nil {
			files["spool/"+name] = string(text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Hosts)) {
		files["spool/etc/hosts"] += c.Hosts[name] + " " + name + "\n"
	}
	return files
}

var smtpdLine = regexp.MustCompile(`(?m)^smtp(\s+inet\s)`)

// masterCf is Debian's master.cf with the port of the instance in place of 25.
func (in *Instance) masterCf(further []string) (string, error) {
	var text []byte
	var err error
	for _, name := range []string{"/etc/postfix/master.cf.proto", "/usr/share/postfix/master.cf.dist"} {
		if text, err = os.ReadFile(name); err == nil {
			break
		}
	}
	if err != nil {
		return "", err
	}
	if !smtpdLine.Match(text) {
		return "", errors.New("the distributed master.cf has no smtp inet service")
	}
	out := smtpdLine.ReplaceAllString(string(text), in.addr+"$1")
	if len(further) > 0 {
		out += strings.Join(further, "\n") + "\n"
	}
	return out, nil
}

func (in *Instance) logFile() string { return filepath.Join(in.dir, "log/maillog") }

// Postconf runs postconf on the instance's configuration and returns what it prints.
func (in *Instance) Postconf(args ...string) (string, error) { return in.run("postconf", args...) }

// Set changes one main.cf parameter. A running Postfix sees it after Reload.
func (in *Instance) Set(name, value string) error {
	if _, err := in.Postconf("-e", name+"="+value); err != nil {
		return err
	}
	return in.age()
}

// AddSMTPD adds an smtpd on a free port of 127.0.0.1, with options of the form name=value, and returns its address.
// A running Postfix opens the port at Reload.
func (in *Instance) AddSMTPD(options ...string) (addr string, err error) {
	port, err := FreePort()
	if err != nil {
		return "", err
	}
	addr = fmt.Sprintf("127.0.0.1:%d", port)
	if _, err := in.Postconf("-Me", addr+"/inet="+addr+" inet n - y - - smtpd"); err != nil {
		return "", err
	}
	for _, o := range options {
		if _, err := in.Postconf("-Pe", addr+"/inet/"+o); err != nil {
			return "", err
		}
	}
	return addr, nil
}

// run executes one of Postfix's commands on the instance.
func (in *Instance) run(name string, args ...string) (string, error) {
	path, err := program(name)
	if err != nil {
		return "", err
	}
	var out, diag strings.Builder
	cmd := exec.Command(path, append([]string{"-c", in.ConfigDir()}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &diag
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(diag.String()))
	}
	return out.String(), nil
}
