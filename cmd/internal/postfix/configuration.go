package postfix

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A configuration is what main.cf and master.cf say at one moment.
type configuration struct {
	explicit map[string]string // parameters that main.cf sets, with their text
	inForce  map[string]string // every parameter, defaults among them, with its text
	expanded map[string]string // the same with every $name replaced
	defaults map[string]string // what this Postfix knows, with its default
	former   map[string]string // texts of before setup that name what nothing else does, with every $name replaced
	services []service
}

// A service is one entry of master.cf.
type service struct {
	name, kind string            // "smtp", "inet"
	chroot     string            // "y", "n" or "-"
	command    string            // "smtpd"
	entry      string            // as postconf -M prints it, in single spaces
	options    map[string]string // its -o parameters, expanded
}

func (s service) id() string { return s.name + "/" + s.kind }

// value is what a parameter is for this service.
func (c configuration) value(s service, name string) string {
	if v, ok := s.options[name]; ok {
		return v
	}
	return c.expanded[name]
}

// named is the value of a parameter, one of the operator's own making too.
func (c configuration) named(name string) (string, bool) {
	if v, ok := c.expanded[name]; ok {
		return v, true
	}
	v, ok := c.explicit[name]
	return v, ok
}

// macro is $name, ${name} or $(name).
var macro = regexp.MustCompile(`\$(\w+|\{\w+\}|\(\w+\))`)

// expand replaces the macros in a text that is not in force. What it does not know stays.
func (c configuration) expand(text string) string {
	if expanded, known := c.former[text]; known {
		return expanded
	}
	for range 10 { // as deep as anybody nests them
		fresh := macro.ReplaceAllStringFunc(text, func(m string) string {
			if v, ok := c.named(strings.Trim(m, "${}()")); ok {
				return v
			}
			return m
		})
		if fresh == text {
			break
		}
		text = fresh
	}
	return text
}

func (c configuration) service(id string) (service, bool) {
	i := slices.IndexFunc(c.services, func(s service) bool { return s.id() == id })
	if i < 0 {
		return service{}, false
	}
	return c.services[i], true
}

// smtpds are the services through which mail comes in by SMTP.
func (c configuration) smtpds() []service {
	var out []service
	for _, s := range c.services {
		if s.command == "smtpd" {
			out = append(out, s)
		}
	}
	return out
}

// read asks postconf for everything at once.
func (in Instance) read(ctx context.Context) (configuration, error) {
	c := configuration{former: map[string]string{}}
	for _, part := range []struct {
		into *map[string]string
		flag string
	}{{&c.explicit, "-n"}, {&c.inForce, ""}, {&c.expanded, "-x"}, {&c.defaults, "-d"}} {
		args := []string{part.flag}
		if part.flag == "" {
			args = nil
		}
		out, err := in.run(ctx, "", "postconf", args...)
		if err != nil {
			return c, fmt.Errorf("%w: %w", errBroken, err)
		}
		*part.into = assignments(out)
	}
	entries, err := in.run(ctx, "", "postconf", "-M")
	if err != nil {
		return c, fmt.Errorf("%w: %w", errBroken, err)
	}
	options, err := in.run(ctx, "", "postconf", "-Px")
	if err != nil {
		return c, fmt.Errorf("%w: %w", errBroken, err)
	}
	c.services = services(entries, options)
	return c, nil
}

// assignments reads lines of the form "name = value".
func assignments(text string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ="); ok {
			out[name] = strings.TrimSpace(value)
		}
	}
	return out
}

// services reads what postconf -M and postconf -Px print.
func services(entries, options string) []service {
	byID := map[string]map[string]string{}
	for name, value := range assignments(options) {
		// name/type/parameter; a name may have slashes, the others not.
		i := strings.LastIndexByte(name, '/')
		if i < 0 {
			continue
		}
		if byID[name[:i]] == nil {
			byID[name[:i]] = map[string]string{}
		}
		byID[name[:i]][name[i+1:]] = value
	}
	var out []service
	for line := range strings.Lines(entries) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue
		}
		s := service{name: f[0], kind: f[1], chroot: f[4], command: f[7], entry: strings.Join(f, " ")}
		s.options = byID[s.id()]
		out = append(out, s)
	}
	return out
}
