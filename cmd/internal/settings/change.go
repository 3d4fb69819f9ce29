package settings

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"mailbag/cmd/internal/units"
)

// A use is which daemons use a key, and whether those that run take another value of it only with a restart. What none of
// them uses is the command's alone, which reads the file each time.
type use struct {
	daemons []string
	restart bool
}

const (
	policyd = "mailbag-policyd"
	turnd   = "mailbag-turnd"
	popd    = "mailbag-popd"
	eximd   = "mailbag-eximd"
)

var command = use{}

func reload(daemons ...string) use  { return use{daemons: daemons} }
func restart(daemons ...string) use { return use{daemons: daemons, restart: true} }

// A place is where the value of a key is.
type place struct {
	set  func(s *Settings, value any) error // as the file has it
	copy func(to, from *Settings)
	text func(s *Settings) string // for people
}

// into joins where a value goes and how it is read.
func into[T any](field func(*Settings) *T, read func(any) (T, error)) place {
	return place{
		set: func(s *Settings, value any) error {
			v, err := read(value)
			if err != nil {
				return err
			}
			*field(s) = v
			return nil
		},
		copy: func(to, from *Settings) { *field(to) = *field(from) },
		text: func(s *Settings) string { return written(*field(s)) },
	}
}

// written is a value as the file might write it, sizes in octets and money in hundredths.
func written(value any) string {
	switch v := value.(type) {
	case bool, int, int64:
		return fmt.Sprint(v)
	case duration:
		return "'" + units.FormatDuration(v) + "'"
	}
	return strings.ReplaceAll(fmt.Sprintf("%q", value), `"`, "'")
}

// A Change is a key that has another value than before.
type Change struct {
	Key      string // with its section
	From, To string
	Restart  bool // a daemon that runs cannot take it
}

// Renew returns the settings of a daemon that runs by s and finds others in the file: those, but for what takes a restart. The
// changes are those of keys that it uses, in the order of the file.
func (s *Settings) Renew(program string, file *Settings) (renewed *Settings, changes []Change) {
	next := *file
	for _, k := range keys {
		if from, to := k.text(s), k.text(file); from != to && slices.Contains(k.use.daemons, program) {
			changes = append(changes, Change{k.name, from, to, k.use.restart})
		}
		if k.use.restart {
			k.copy(&next, s)
		}
	}
	return &next, changes
}

// Hashes tell the settings of a daemon from others: of the keys that it takes with a reload, and of those that take a restart.
func (s *Settings) Hashes(program string) (reload, restart float64) {
	each := map[bool]float64{}
	for _, takesRestart := range []bool{false, true} {
		sum := fnv.New64a()
		for _, k := range keys {
			if k.use.restart == takesRestart && slices.Contains(k.use.daemons, program) {
				fmt.Fprintln(sum, k.name, k.text(s))
			}
		}
		each[takesRestart] = float64(sum.Sum64() >> 11) // as many bits as it holds exactly
	}
	return each[false], each[true]
}
