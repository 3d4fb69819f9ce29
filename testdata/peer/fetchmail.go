package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Fetchmail is how fetchmail(1) is to ask a server once for its mail.
type Fetchmail struct {
	Protocol string   // "odmr" or "etrn"
	Server   string   // host and port of the server
	User     string   // of odmr
	Password string   // of odmr
	Domains  []string // whose mail is asked for
	SMTP     string   // odmr: host and port of the customer's own mail server, to which fetchmail connects the turned line
	// TLS from the start. The server's certificate is taken as it is: the tests have one that they signed themselves.
	// (For STARTTLS in these two protocols fetchmail has no option.)
	TLS bool
}

// FetchmailAvailable is nil where fetchmail is installed.
func FetchmailAvailable() error {
	if _, err := exec.LookPath("fetchmail"); err != nil {
		return fmt.Errorf("there is no fetchmail; install it (apt-get install fetchmail): %w", err)
	}
	return nil
}

// Run asks once and returns what fetchmail says on both streams. dir is where it keeps its settings and state: an
// existing directory that nobody else uses at the moment. That there is no mail is no error (fetchmail's exit status
// 1); whatever else it does not like is one.
func (f Fetchmail) Run(ctx context.Context, dir string) (string, error) {
	settings := filepath.Join(dir, "fetchmailrc")
	text, err := f.settings()
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(settings, []byte(text), 0o600); err != nil { // it insists on the mode
		return "", err
	}
	cmd := exec.CommandContext(ctx, "fetchmail", "--nodetach", "--nosyslog", "--verbose", "--fetchmailrc", settings,
		"--pidfile", filepath.Join(dir, "fetchmail.pid"))
	cmd.Env = append(os.Environ(), "HOME="+dir, "FETCHMAILHOME="+dir, "LC_ALL=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("fetchmail: %w\n%s", err, &out)
	}
	return out.String(), err
}

func (f Fetchmail) settings() (string, error) {
	host, port, err := net.SplitHostPort(f.Server)
	if err != nil {
		return "", err
	}
	tls := "sslproto ''"
	if f.TLS {
		tls = "ssl no sslcertck"
	}
	text := fmt.Sprintf("poll %s protocol %s port %s timeout 60 no dns\n\tuser %q password %q fetchdomains %s %s\n",
		host, f.Protocol, port, f.User, f.Password, strings.Join(f.Domains, " "), tls)
	if f.SMTP != "" {
		text += fmt.Sprintf("\tsmtphost %q\n", strings.Replace(f.SMTP, ":", "/", 1))
	}
	return text, nil
}
