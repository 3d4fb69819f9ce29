package settings

import (
	"errors"
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailbag/cmd/internal/units"
	"mailbag/meter"
)

type duration = time.Duration

func onLimit(s *Settings) *meter.OnLimit   { return &s.Limits.OnLimit }
func location(s *Settings) **time.Location { return &s.Billing.Location }

// text refuses what is not a TOML string. want says what the key takes, in quotes.
func text(value any, want string) (string, error) {
	if s, ok := value.(string); ok {
		return s, nil
	}
	return "", fmt.Errorf("takes %s in quotes, not %s", want, tomlType(value))
}

func tomlType(value any) string {
	switch value.(type) {
	case string:
		return "a text"
	case int64:
		return "a number"
	case float64:
		return "a number with a point"
	case bool:
		return "true or false"
	case []any:
		return "a list"
	case time.Time:
		return "a date or time"
	}
	return "a table"
}

// optional reads an empty text as the zero value.
func optional[T any](read func(any) (T, error)) func(any) (T, error) {
	return func(value any) (T, error) {
		if value == "" {
			var zero T
			return zero, nil
		}
		return read(value)
	}
}

// maxList bounds the entries of a list.
const maxList = 100

func list[T any](read func(any) (T, error)) func(any) ([]T, error) {
	return func(value any) ([]T, error) {
		entries, ok := value.([]any)
		if !ok {
			return nil, fmt.Errorf(`takes a list such as ["…", "…"], not %s`, tomlType(value))
		}
		if len(entries) > maxList {
			return nil, fmt.Errorf("has %d entries, at most %d are allowed", len(entries), maxList)
		}
		var all []T
		for _, e := range entries {
			v, err := read(e)
			if err != nil {
				return nil, err
			}
			all = append(all, v)
		}
		return all, nil
	}
}

func boolean(value any) (bool, error) {
	b, ok := value.(bool)
	if !ok {
		return false, fmt.Errorf("takes true or false without quotes, not %s", tomlType(value))
	}
	return b, nil
}

// count reads a whole number from 1 to limit.
func count[T int | int64](limit T) func(any) (T, error) {
	return func(value any) (T, error) {
		n, ok := value.(int64)
		if !ok {
			return 0, fmt.Errorf("takes a whole number without quotes, not %s", tomlType(value))
		}
		if n < 1 || n > int64(limit) {
			return 0, fmt.Errorf("%d is out of range: from 1 to %d", n, limit)
		}
		return T(n), nil
	}
}

// size reads a size of at least one octet and at most meter.MaxLimit, as a text or as plain octets.
func size(value any) (int64, error) {
	if n, ok := value.(int64); ok {
		value = strconv.FormatInt(n, 10)
	}
	s, err := text(value, `a size such as "1GB"`)
	if err != nil {
		return 0, err
	}
	n, err := units.ParseSize(s)
	if err == nil && n == 0 {
		err = errors.New("a size of 0 cannot be a limit")
	}
	if err == nil && n > meter.MaxLimit {
		err = fmt.Errorf("%s is too large: at most %d octets", units.FormatSize(n), int64(meter.MaxLimit))
	}
	return n, err
}

func positiveDuration(value any, example string) (time.Duration, error) {
	s, err := text(value, "a duration such as "+strconv.Quote(example))
	if err != nil {
		return 0, err
	}
	d, err := units.ParseDuration(s)
	if err == nil && d == 0 {
		err = errors.New("the duration must be longer than 0")
	}
	return d, err
}

// maxWait is the longest wait within a turn: the customer's connection is open meanwhile.
const maxWait = time.Hour

func wait(value any) (time.Duration, error) {
	d, err := positiveDuration(value, "10s")
	if err == nil && d > maxWait {
		err = fmt.Errorf("%s is too long: at most %s", units.FormatDuration(d), units.FormatDuration(maxWait))
	}
	return d, err
}

// minRetention keeps evidence long enough to be read at all; a message that is asked about twice
// within it is still counted once.
const minRetention = 24 * time.Hour

func retention(value any) (time.Duration, error) {
	d, err := positiveDuration(value, "62d")
	if err == nil && d < minRetention {
		err = fmt.Errorf("%s is too short: at least %s", units.FormatDuration(d), units.FormatDuration(minRetention))
	}
	return d, err
}

// minSilence is far above what the ledger knows of who asks in vain, which is an hour old at the most.
const minSilence = 24 * time.Hour

func silence(value any) (time.Duration, error) {
	if n, ok := value.(int64); ok && n == 0 {
		return 0, nil
	}
	s, err := text(value, `a duration such as "7d"`)
	if err != nil {
		return 0, err
	}
	d, err := units.ParseDuration(s)
	if err == nil && d > 0 && d < minSilence {
		err = fmt.Errorf("%s is too short: at least %s, or 0 for no notices", units.FormatDuration(d), units.FormatDuration(minSilence))
	}
	return d, err
}

// database reads the path of a file, or the nodes that have the ledger.
func database(value any) (string, error) {
	s, err := text(value, "a path")
	if err != nil {
		return "", err
	}
	return ParseDatabase(s)
}

// ParseDatabase reads where a ledger is: the path of a file, or nodes of rqlite as in rqlite://127.0.0.1:4001,mx-b:4001.
func ParseDatabase(s string) (string, error) {
	if !meter.Remote(s) {
		if strings.Contains(s, "://") {
			return "", fmt.Errorf("%q is neither the path of a file nor nodes of rqlite, %sHOST:PORT", s, meter.Scheme)
		}
		return checkPath(s)
	}
	if strings.Contains(s, "@") { // not to be repeated in a log
		return "", errors.New("user and password go into the file that cluster.credentials names, not before a node")
	}
	nodes := strings.Split(strings.TrimPrefix(s, meter.Scheme), ",")
	if len(nodes) > maxList {
		return "", fmt.Errorf("has %d nodes, at most %d are allowed", len(nodes), maxList)
	}
	for i, node := range nodes {
		if err := checkNode(node); err != nil {
			return "", fmt.Errorf("%q is no node of rqlite: %w", node, err)
		}
		if slices.Contains(nodes[:i], node) {
			return "", fmt.Errorf("names the node %s twice", node)
		}
	}
	return s, nil
}

func checkNode(node string) error {
	host, port, err := net.SplitHostPort(node)
	switch {
	case strings.ContainsAny(node, " \t"):
		return errors.New("no blanks go between nodes, only commas")
	case strings.Contains(node, "/"):
		return fmt.Errorf("write HOST:PORT and nothing behind it; %s comes once, before the first node", meter.Scheme)
	case err != nil && strings.Count(node, ":") > 1:
		return errors.New("an IPv6 address takes brackets, and a port: [IPv6]:PORT")
	case err != nil:
		return errors.New("it lacks the port: write HOST:PORT, with commas between several")
	case host == "":
		return errors.New("it lacks the host: write HOST:PORT, with commas between several")
	case port == "0":
		return errors.New("nobody listens at port 0")
	}
	_, err = ParseAddress(node)
	return err
}

func absolutePath(value any) (string, error) {
	s, err := text(value, "a path")
	if err != nil {
		return "", err
	}
	return checkPath(s)
}

func checkPath(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("the path is empty")
	case !path.IsAbs(s):
		return "", fmt.Errorf("the path %q must begin with /", s)
	case strings.ContainsRune(s, 0):
		return "", errors.New("the path contains a NUL character")
	}
	return path.Clean(s), nil
}

// hostnameText is what may stand in a greeting: RFC 5321, section 4.1.2 (Domain), and at most 255 octets.
var hostnameText = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$`)

func hostname(value any) (string, error) {
	s, err := text(value, "a host name")
	if err == nil && (len(s) > 255 || !hostnameText.MatchString(s)) {
		err = fmt.Errorf("%.80q is not a host name", s)
	}
	return s, err
}

// mailAddress reads user@domain.
func mailAddress(value any) (string, error) {
	s, err := text(value, "a mail address")
	if err != nil {
		return "", err
	}
	a, err := meter.ParseAddress(s)
	return a.String(), err
}

func limitAction(value any) (meter.OnLimit, error) {
	s, err := text(value, `"bill", "defer" or "reject"`)
	if err != nil {
		return "", err
	}
	switch action := meter.OnLimit(s); action {
	case meter.Bill, meter.Defer, meter.Reject:
		return action, nil
	}
	return "", fmt.Errorf(`%q is none of "bill", "defer" and "reject"`, s)
}

var currencyText = regexp.MustCompile(`^[A-Z]{3}$`)

func currency(value any) (string, error) {
	s, err := text(value, `a currency such as "USD"`)
	if err == nil && !currencyText.MatchString(s) {
		err = fmt.Errorf(`%q is not a currency: write three capital letters such as "USD" (ISO 4217)`, s)
	}
	return s, err
}

// money reads an amount into hundredths. It must be in quotes, because TOML's floating point does
// not keep hundredths exactly.
func money(value any) (int64, error) {
	s, err := text(value, `an amount such as "10.00"`)
	if err != nil {
		return 0, err
	}
	return units.ParseMoney(s)
}

func timezone(value any) (*time.Location, error) {
	s, err := text(value, `a time zone such as "Europe/Berlin"`)
	if err != nil {
		return nil, err
	}
	// "Local" would let two programs with a different TZ disagree about a message's day.
	if s == "" || s == "Local" {
		return nil, errors.New(`the time zone must be named, for example "UTC" or "Europe/Berlin"`)
	}
	loc, err := time.LoadLocation(s)
	if err != nil {
		return nil, fmt.Errorf(`%q is not a known time zone: write for example "UTC" or "Europe/Berlin"`, s)
	}
	return loc, nil
}

func mailSystem(value any) (string, error) {
	s, err := text(value, `"auto", "postfix" or "exim"`)
	if err == nil && s != AutoMTA && s != "postfix" && s != "exim" {
		err = fmt.Errorf(`%q is none of "auto", "postfix" and "exim"`, s)
	}
	return s, err
}

// release reads the way of release: the MTA's own, which once was Postfix's, or a command that is given a queue ID.
func release(value any) (string, error) {
	s, err := text(value, `"mta" or a command`)
	switch {
	case err != nil:
		return "", err
	case s == "postfix":
		return ByMTA, nil
	case s != ByMTA && !strings.Contains(s, "{id}"):
		return "", fmt.Errorf(`%q is neither "mta" nor a command with {id} in it, such as "exim4 -qGmailbag -M {id}"`, s)
	}
	return s, nil
}
