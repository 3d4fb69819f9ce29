// Package settings reads the settings file, mailbag.toml, which all daemons and the command line share.
//
// It promises that a [Settings] it returns is complete and valid but for what depends on the MTA, which package host fills
// in: every key that the file leaves out has its default, and an unknown key or a bad value is an error that names the key and the line. All
// mistakes of a file are reported together. The file is read once; a program that wants to see a
// change reads it again.
//
// It does not look whether the files, directories and sockets that the settings name exist: programs
// must start without some of them.
//
// Security: the file holds no secret. A file larger than 1 MiB is refused.
package settings

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	// Billing days must not depend on whether the system's zone files are installed; those go first.
	_ "time/tzdata"

	"mailbag/meter"
)

// DefaultFile is read where neither --config nor MAILBAG_CONFIG names a file. It need not exist.
const DefaultFile = "/etc/mailbag/mailbag.toml"

// Environment is the variable that names the settings file where --config does not.
const Environment = "MAILBAG_CONFIG"

// maxFile bounds a settings file, in octets.
const maxFile = 1 << 20

// Settings are the values of every key. See packaging/mailbag.toml for what they mean to the operator.
type Settings struct {
	File     string       // what was read; empty when there is no file and all is default
	Ignored  []string     // keys in it that have no meaning any more, and what became of them
	Hostname string       // empty: the host's own name
	MTA      string       // "postfix", "exim", or AutoMTA
	Database string       // path of the ledger, or where its nodes are: see [meter.Remote]
	Proxies  []netip.Addr // whose connections to customers' ports begin with a PROXY header

	Cluster   Cluster
	TLS       TLS
	Limits    Limits
	Billing   Billing
	Retention Retention
	Notices   Notices
	Policy    Policy
	Turn      Turn
	POP       POP
}

// AutoMTA stands for the MTA that is installed.
const AutoMTA = "auto"

// ByMTA is to release mail by the MTA's own way.
const ByMTA = "mta"

// Cluster is how a ledger on nodes of rqlite is reached. What no file is named for is not needed.
type Cluster struct {
	Credentials string // file with the line USER:PASSWORD
	CA          string // PEM file of who signed the nodes' certificates; empty: they are reached without TLS
	Certificate string // PEM file of the chain by which the nodes know this host
	Key         string // and of its key
	State       string // directory of what is this host's own of the ledger
}

// TLS names the PEM files of the certificate chain and its key.
type TLS struct {
	Certificate string
	Key         string
}

// Limits are the monthly limits, and so the tier sizes, of accounts that have none of their own.
type Limits struct {
	Messages int64
	Bytes    int64 // octets
	OnLimit  meter.OnLimit
}

// Billing is the tariff. Prices are in hundredths of the currency.
type Billing struct {
	Currency  string // three upper-case letters, ISO 4217
	BasePrice int64
	TierPrice int64
	Prorate   bool           // of an account's first month the base price is by days
	Location  *time.Location // in which days and months begin
}

// Retention is how long evidence is kept.
type Retention struct {
	Messages time.Duration
	Turns    time.Duration
	Sessions time.Duration
}

// Notices are mail to customers about their limits, their waiting mail and their silence, and of the last to the operator.
type Notices struct {
	From      string        // address of the header From; empty: postmaster at the host name
	Copy      string        // address of the operator; empty: no copy
	Templates string        // directory of texts that take the place of the built-in ones
	Silent    time.Duration // after which a customer who does not fetch is told of; 0: never
}

// Policy belongs to mailbag-policyd.
type Policy struct {
	Milter  Address // zero: where the MTA has it, if it has one
	Listen  Address // zero: where the MTA has it
	Tables  string  // directory of the files that the MTA reads; empty: where it has them
	Metrics Address // zero: no metrics
}

// Turn belongs to mailbag-turnd.
type Turn struct {
	Listen    []Address
	ListenTLS []Address
	Sockets   string // directory of the accounts' sockets
	Control   Address
	Release   string // ByMTA, or a command with {id} in it
	Window    int    // messages released at a time
	MaxTurns  int    // turns open at a time
	FirstWait time.Duration
	IdleWait  time.Duration
	Metrics   Address // zero: no metrics
}

// POP belongs to mailbag-popd.
type POP struct {
	Listen     []Address
	ListenTLS  []Address
	PlainLogin bool // passwords may cross the network in the clear
	Deliver    Address
	Maildirs   string
	Metrics    Address // zero: no metrics
}

// Beside is how the paths begin of what belongs to the ledger and is this host's own.
func (s *Settings) Beside() string {
	if meter.Remote(s.Database) {
		return filepath.Join(s.Cluster.State, "mailbag.db")
	}
	return s.Database
}

// Ledger is what the settings say of how to open it.
func (s *Settings) Ledger() meter.Options {
	return meter.Options{
		Location:    s.Billing.Location,
		Beside:      s.Beside(),
		Credentials: s.Cluster.Credentials,
		CA:          s.Cluster.CA, Certificate: s.Cluster.Certificate, Key: s.Cluster.Key,
	}
}

// Load reads the file that the flag --config names, else the one that MAILBAG_CONFIG names, else
// [DefaultFile]. Only the last may be missing, which stands for all defaults.
func Load(flag string) (*Settings, error) {
	path, named := flag, true
	if path == "" {
		path = os.Getenv(Environment)
	}
	if path == "" {
		path, named = DefaultFile, false
	}
	return read(path, named)
}

func read(path string, named bool) (*Settings, error) {
	file, err := os.Open(path)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("the settings cannot be read: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("the settings cannot be read: %w", err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("the settings file %s is larger than 1 MiB", path)
	}
	s, err := Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("the settings file %s cannot be used:\n%w", path, err)
	}
	s.File = path
	return s, nil
}
