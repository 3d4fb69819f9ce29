package daemon

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	"mailbag/cmd/internal/host"
	"mailbag/cmd/internal/settings"
)

// A force is the settings by which a daemon goes, and what keeps them from being those of the file.
type force struct {
	program string
	config  string // the flag --config
	log     *slog.Logger

	current atomic.Pointer[settings.Settings]
	lacking atomic.Pointer[string] // empty: nothing
}

func newForce(program, config string, s *settings.Settings, log *slog.Logger) *force {
	f := &force{program: program, config: config, log: log}
	f.current.Store(s)
	f.lacking.Store(new(string))
	return f
}

func (f *force) now() *settings.Settings { return f.current.Load() }

// renew reads the file again. What a daemon that runs can take is in force then, and what it cannot is said; of a file with a
// mistake nothing is taken.
func (f *force) renew() {
	lacking := ""
	defer func() { f.lacking.Store(&lacking) }()
	file, _, err := host.Load(f.config)
	if err != nil {
		lacking = "; the former settings stay in force: " + oneLine(err)
		f.log.Error("settings were not taken, and those of before stay in force; once they are mended, run: systemctl reload "+f.program, "error", err)
		return
	}
	next, changes := f.now().Renew(f.program, file)
	f.current.Store(next)
	var taken, untaken, keys []string
	for _, c := range changes {
		text := fmt.Sprintf("%s %s -> %s", c.Key, c.From, c.To)
		if c.Restart {
			untaken, keys = append(untaken, text), append(keys, c.Key)
		} else {
			taken = append(taken, text)
		}
	}
	f.log.Info("settings were read again", "settings", next.File, "in_force", strings.Join(taken, ", "))
	if len(keys) > 0 {
		lacking = "; needs a restart: " + strings.Join(keys, ", ")
		f.log.Warn("not everything is in force: this needs a restart; run: systemctl restart "+f.program, "settings", next.File, "restart", strings.Join(untaken, ", "))
	}
}

// remark is the end of the status line.
func (f *force) remark() string { return *f.lacking.Load() }
