package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"syscall"
)

// NewLog returns a logger that writes lines of text to w, from the given level on: "debug", "info",
// "warn" or "error". Where w is the journal's stream, the lines have no time stamp, because the
// journal has its own.
func NewLog(w io.Writer, level string) (*slog.Logger, error) {
	var from slog.Level
	if err := from.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("%q is not a log level: write debug, info, warn or error", level)
	}
	options := &slog.HandlerOptions{Level: from}
	if isJournal(w, os.Getenv("JOURNAL_STREAM")) {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// isJournal compares w with the device and inode that systemd gives in JOURNAL_STREAM (systemd.exec(5)):
// the variable is inherited even where standard error was redirected.
func isJournal(w io.Writer, stream string) bool {
	file, ok := w.(*os.File)
	if !ok || stream == "" {
		return false
	}
	status, err := file.Stat()
	if err != nil {
		return false
	}
	sys, ok := status.Sys().(*syscall.Stat_t)
	return ok && stream == journalStream(sys)
}

func journalStream(s *syscall.Stat_t) string { return fmt.Sprintf("%d:%d", s.Dev, s.Ino) }
