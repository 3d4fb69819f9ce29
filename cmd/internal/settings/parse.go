package settings

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// A KeyError is one mistake in the text of the settings.
type KeyError struct {
	Line int    // from 1; 0 where TOML does not tell
	Key  string // with its section: "limits.bytes"; empty where the text is no TOML at all
	Err  error
}

func (e *KeyError) Error() string {
	text := e.Err.Error()
	if e.Key != "" {
		text = e.Key + ": " + text
	}
	if e.Line > 0 {
		text = fmt.Sprintf("line %d: %s", e.Line, text)
	}
	return text
}

func (e *KeyError) Unwrap() error { return e.Err }

// Parse reads the text of a settings file. Its error joins one [*KeyError] for each mistake, in the
// order of the lines.
func Parse(text string) (*Settings, error) {
	var top map[string]toml.Primitive
	meta, err := toml.Decode(text, &top)
	if err != nil {
		return nil, syntaxError(err)
	}
	r := reader{meta: &meta, settings: Default()}
	for name, value := range top {
		if len(section(name)) > 0 && name != "" {
			r.section(name, value)
		} else {
			r.key(toml.Key{name}, value)
		}
	}
	if len(r.mistakes) == 0 {
		r.agree()
	}
	if len(r.mistakes) == 0 {
		return r.settings, nil
	}
	slices.SortFunc(r.mistakes, func(a, b *KeyError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	var all []error
	for _, m := range r.mistakes {
		all = append(all, m)
	}
	return nil, errors.Join(all...)
}

func syntaxError(err error) error {
	var p toml.ParseError
	if !errors.As(err, &p) {
		return &KeyError{Err: err}
	}
	// The last key read is often the one before the mistake; only the line is certain.
	return &KeyError{Line: p.Position.Line, Err: errors.New("not TOML: " + p.Message)}
}

// A reader carries one text into one Settings.
type reader struct {
	meta     *toml.MetaData
	settings *Settings
	mistakes []*KeyError
}

func (r *reader) section(name string, value toml.Primitive) {
	r.read(toml.Key{name}, value, func(v any) error {
		if _, ok := v.(map[string]any); !ok {
			return fmt.Errorf("is a section: write [%s] on a line of its own, and its keys below", name)
		}
		return nil
	})
	var inside map[string]toml.Primitive
	if r.meta.PrimitiveDecode(value, &inside) != nil {
		return // said above
	}
	for key, v := range inside {
		r.key(toml.Key{name, key}, v)
	}
}

func (r *reader) key(name toml.Key, value toml.Primitive) {
	known := findKey(name.String())
	if why, former := formerKeys[name.String()]; former {
		r.settings.Ignored = append(r.settings.Ignored, name.String()+": "+why)
		return
	}
	if known == nil {
		r.unknown(name, value)
		return
	}
	r.read(name, value, func(v any) error { return known.set(r.settings, v) })
}

// unknown reports a key that we do not have; of a whole table it reports the table, or, where a
// dotted key made it and it has no line of its own, what is in it.
func (r *reader) unknown(name toml.Key, value toml.Primitive) {
	before := len(r.mistakes)
	r.read(name, value, func(any) error {
		if len(name) > 1 {
			return fmt.Errorf("there is no such key; [%s] has %s", name[0], strings.Join(section(name[0]), ", "))
		}
		return fmt.Errorf("there is no such key or section; the keys outside a section are %s, the sections %s",
			strings.Join(section(""), ", "), strings.Join(sections(), ", "))
	})
	if len(r.mistakes) == before || r.mistakes[before].Line > 0 {
		return
	}
	var inside map[string]toml.Primitive
	if r.meta.PrimitiveDecode(value, &inside) != nil || len(inside) == 0 {
		return
	}
	r.mistakes = r.mistakes[:before]
	for key, v := range inside {
		r.unknown(append(slices.Clone(name), key), v)
	}
}

// agree notes what is wrong with keys together.
func (r *reader) agree() {
	c := r.settings.Cluster
	switch {
	case (c.Certificate == "") != (c.Key == ""):
		r.mistakes = append(r.mistakes, &KeyError{Key: "cluster.certificate", Err: errors.New("goes with cluster.key: name both files, or none")})
	case c.Certificate != "" && c.CA == "":
		r.mistakes = append(r.mistakes, &KeyError{Key: "cluster.certificate", Err: errors.New("is of no use without cluster.ca, by which TLS is spoken at all")})
	}
}

// read hands the value of a key to take and notes what take says against it, with the line.
// MetaData tells a line only in the error of an Unmarshaler, so take is called as one.
func (r *reader) read(name toml.Key, value toml.Primitive, take func(any) error) {
	err := r.meta.PrimitiveDecode(value, unmarshaler(take))
	if err == nil {
		return
	}
	mistake := &KeyError{Key: name.String(), Err: err}
	var p toml.ParseError
	if errors.As(err, &p) {
		mistake.Line, mistake.Err = p.Position.Line, errors.New(p.Message)
	}
	r.mistakes = append(r.mistakes, mistake)
}

type unmarshaler func(any) error

func (u unmarshaler) UnmarshalTOML(value any) error { return u(value) }
