package settings

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"

	"mailbag/meter"
)

// sameText compares time zones and addresses by what they are written as: what they hold inside is their packages' own.
var sameText = cmp.Options{
	cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func TestPackagedFileHoldsEveryKeyWithItsDefault(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../packaging/mailbag.toml")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), s, sameText); diff != "" {
		t.Errorf("packaging/mailbag.toml differs from the defaults (-default +file):\n%s", diff)
	}
	var anything map[string]any
	meta, err := toml.Decode(string(text), &anything)
	if err != nil {
		t.Fatal(err)
	}
	var inFile, ours []string
	for _, k := range meta.Keys() {
		if meta.Type(k...) != "Hash" {
			inFile = append(inFile, k.String())
		}
	}
	for _, k := range keys {
		ours = append(ours, k.name)
	}
	if diff := cmp.Diff(ours, inFile); diff != "" {
		t.Errorf("packaging/mailbag.toml has other keys (-ours +file):\n%s", diff)
	}
}

// The values are those of the design, written here once more on purpose.
func TestDefaults(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	want := &Settings{
		MTA:       AutoMTA,
		Database:  "/var/lib/mailbag/mailbag.db",
		Cluster:   Cluster{State: "/var/lib/mailbag"},
		TLS:       TLS{Certificate: "/etc/mailbag/tls/fullchain.pem", Key: "/etc/mailbag/tls/privkey.pem"},
		Limits:    Limits{Messages: 100000, Bytes: 1e9, OnLimit: meter.Bill},
		Billing:   Billing{Currency: "USD", BasePrice: 1000, TierPrice: 1000, Location: time.UTC},
		Retention: Retention{Messages: 62 * day, Turns: 400 * day, Sessions: 90 * day},
		Notices:   Notices{Templates: "/etc/mailbag/notices", Silent: 7 * day},
		Policy: Policy{
			Metrics: Address{"tcp4", "127.0.0.1:9366"},
		},
		Turn: Turn{
			Listen:  []Address{{"tcp4", "0.0.0.0:366"}, {"tcp6", "[::]:366"}},
			Sockets: "/run/mailbag/turn", Control: Address{"unix", "/run/mailbag/turnd.sock"}, Release: "mta",
			Window: 500, MaxTurns: 100, FirstWait: 10 * time.Second, IdleWait: 2 * time.Second,
			Metrics: Address{"tcp4", "127.0.0.1:9367"},
		},
		POP: POP{
			Listen:    []Address{{"tcp4", "0.0.0.0:110"}, {"tcp6", "[::]:110"}},
			ListenTLS: []Address{{"tcp4", "0.0.0.0:995"}, {"tcp6", "[::]:995"}},
			Deliver:   Address{"unix", "/run/mailbag/deliver.sock"}, Maildirs: "/var/lib/mailbag/maildirs",
			Metrics: Address{"tcp4", "127.0.0.1:9368"},
		},
	}
	if diff := cmp.Diff(want, Default(), sameText); diff != "" {
		t.Errorf("Default (-want +got):\n%s", diff)
	}
}

func TestFormerKeyIsIgnoredAndSaid(t *testing.T) {
	t.Parallel()
	s, err := Parse("[policy]\nlookup = 'unix:/var/spool/postfix/private/mailbag-lookup'\ntables = '/tables'\n")
	if err != nil {
		t.Fatal(err)
	}
	if s.Policy.Tables != "/tables" || len(s.Ignored) != 1 || !strings.HasPrefix(s.Ignored[0], "policy.lookup: ") {
		t.Errorf("tables are in %q, ignored is %q", s.Policy.Tables, s.Ignored)
	}
}

func TestKeysOfAFileTakeThePlaceOfDefaults(t *testing.T) {
	t.Parallel()
	got, err := Parse(`
hostname = "mx.provider.example"
proxies = ["192.0.2.5", "2001:db8::5", "::ffff:127.0.0.1"]
limits.messages = 5
limits.bytes = 2_000_000
limits.on_limit = "reject"
[billing]
currency = "EUR"
base_price = "7"
tier_price = "0.05"
prorate = true
timezone = "Europe/Berlin"
[retention]
messages = "1d"
[policy]
metrics = ""
listen = "unix:/run//policy"
[turn]
listen = []
listen_tls = [":3366", "mx.provider.example:3367", "[2001:db8::1]:3368"]
release = "exim -M {id}"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Hostname = "mx.provider.example"
	want.Proxies = []netip.Addr{netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("2001:db8::5"), netip.MustParseAddr("127.0.0.1")}
	want.Limits = Limits{Messages: 5, Bytes: 2e6, OnLimit: meter.Reject}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	want.Billing = Billing{Currency: "EUR", BasePrice: 700, TierPrice: 5, Prorate: true, Location: berlin}
	want.Retention.Messages = 24 * time.Hour
	want.Policy.Metrics = Address{}
	want.Policy.Listen = Address{"unix", "/run/policy"}
	want.Turn.Listen = nil
	want.Turn.ListenTLS = []Address{{"tcp", ":3366"}, {"tcp", "mx.provider.example:3367"}, {"tcp6", "[2001:db8::1]:3368"}}
	want.Turn.Release = "exim -M {id}"
	if diff := cmp.Diff(want, got, sameText); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLedgerOnNodesHasItsOwnFilesInTheStateDirectory(t *testing.T) {
	t.Parallel()
	const nodes = "rqlite://127.0.0.1:4001,mx-b:4001,[2001:db8::5]:4001"
	s, err := Parse("database = '" + nodes + "'\n[cluster]\nstate = '/srv/mailbag/'\ncredentials = '/c'\nca = '/ca'\ncertificate = '/cert'\nkey = '/key'")
	if err != nil {
		t.Fatal(err)
	}
	want := meter.Options{Location: time.UTC, Beside: "/srv/mailbag/mailbag.db", Credentials: "/c", CA: "/ca", Certificate: "/cert", Key: "/key"}
	if diff := cmp.Diff(want, s.Ledger(), sameText); diff != "" || s.Database != nodes {
		t.Errorf("the ledger is at %s (-want +got):\n%s", s.Database, diff)
	}
	if s = Default(); s.Beside() != s.Database {
		t.Errorf("beside the ledger %s is %s", s.Database, s.Beside())
	}
}

func TestMistakesNameTheKeyAndTheLine(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"nodes without a port", "database = 'rqlite://mx-a,mx-b:4001'", `line 1: database: "mx-a" is no node of rqlite: it lacks the port: write HOST:PORT, with commas between several`},
		{"no nodes", "database = 'rqlite://'", `line 1: database: "" is no node of rqlite: it lacks the port`},
		{"a comma too many", "database = 'rqlite://mx-a:4001,'", `line 1: database: "" is no node of rqlite: it lacks the port`},
		{"node without a host", "database = 'rqlite://:4001'", `line 1: database: ":4001" is no node of rqlite: it lacks the host`},
		{"node at port 0", "database = 'rqlite://mx-a:0'", `line 1: database: "mx-a:0" is no node of rqlite: nobody listens at port 0`},
		{"node at a port of letters", "database = 'rqlite://mx-a:http'", `line 1: database: "mx-a:http" is no node of rqlite: "mx-a:http" has the port "http": write a number`},
		{"nodes with blanks", "database = 'rqlite://mx-a:4001, mx-b:4001'", `line 1: database: " mx-b:4001" is no node of rqlite: no blanks go between nodes`},
		{"node twice", "database = 'rqlite://mx-a:4001,mx-b:4001,mx-a:4001'", `line 1: database: names the node mx-a:4001 twice`},
		{"IPv6 without brackets", "database = 'rqlite://2001:db8::5:4001'", `line 1: database: "2001:db8::5:4001" is no node of rqlite: an IPv6 address takes brackets`},
		{"password in the address", "database = 'rqlite://me:secret@mx-a:4001'", `line 1: database: user and password go into the file that cluster.credentials names`},
		{"scheme at each node", "database = 'rqlite://mx-a:4001,rqlite://mx-b:4001'", `line 1: database: "rqlite://mx-b:4001" is no node of rqlite: write HOST:PORT and nothing behind it; rqlite:// comes once`},
		{"slash behind a node", "database = 'rqlite://mx-a:4001/'", `line 1: database: "mx-a:4001/" is no node of rqlite: write HOST:PORT and nothing behind it`},
		{"other nodes", "database = 'http://mx-a:4001'", `line 1: database: "http://mx-a:4001" is neither the path of a file nor nodes of rqlite, rqlite://HOST:PORT`},
		{"certificate without its key", "[cluster]\ncertificate = '/c'\nca = '/ca'", "cluster.certificate: goes with cluster.key: name both files, or none"},
		{"certificate without a CA", "[cluster]\ncertificate = '/c'\nkey = '/k'", "cluster.certificate: is of no use without cluster.ca, by which TLS is spoken at all"},
		{"unknown key in a section", "[limits]\nmesages = 5\n", "line 2: limits.mesages: there is no such key; [limits] has messages, bytes, on_limit"},
		{"unknown key on top", "\n\ndatabse = 'x'\n", "line 3: databse: there is no such key or section"},
		{"unknown section", "[limit]\nmessages = 5\n", "line 1: limit: there is no such key or section"},
		{"unknown empty section", "\n[foo]\n", "line 2: foo: there is no such key"},
		{"unknown section of dotted keys", "\nlimit.messages = 5\n", "line 2: limit.messages: there is no such key"},
		{"unknown list of tables", "[[limits]]\nmessages = 5\n", "line 1: limits: is a section: write [limits]"},
		{"key of another case", "[limits]\nMessages = 5\n", "line 2: limits.Messages: there is no such key"},
		{"quoted key with a point", "\n'limits.messages' = 5\n", `line 2: "limits.messages": there is no such key`},
		{"table below a key", "[limits.bytes]\nfoo = 5\n", "limits.bytes: takes a size"},
		{"section as a key", "limits = 5\n", "line 1: limits: is a section"},
		{"count as a text", "[limits]\nmessages = '5'\n", "line 2: limits.messages: takes a whole number without quotes, not a text"},
		{"count of zero", "[limits]\nmessages = 0\n", "line 2: limits.messages: 0 is out of range: from 1 to"},
		{"window too large", "[turn]\nwindow = 1000001\n", "line 2: turn.window: 1000001 is out of range"},
		{"ambiguous size", "[limits]\nbytes = '1G'\n", "line 2: limits.bytes: size \"1G\" is ambiguous"},
		{"negative size", "[limits]\nbytes = -5\n", "line 2: limits.bytes: size \"-5\" is negative"},
		{"size of zero", "[limits]\nbytes = '0GB'\n", "line 2: limits.bytes: a size of 0"},
		{"absurd size", "[limits]\nbytes = '10PB'\n", "line 2: limits.bytes: 10PB is too large: at most 9007199254740992 octets"},
		{"size with a point", "[limits]\nbytes = 1.5\n", "line 2: limits.bytes: takes a size such as \"1GB\" in quotes, not a number with a point"},
		{"action", "[limits]\non_limit = 'refuse'\n", `line 2: limits.on_limit: "refuse" is none of "bill", "defer" and "reject"`},
		{"currency", "[billing]\ncurrency = 'Euro'\n", "line 2: billing.currency: \"Euro\" is not a currency"},
		{"unquoted price", "[billing]\nbase_price = 10.00\n", `line 2: billing.base_price: takes an amount such as "10.00" in quotes, not a number with a point`},
		{"price with one digit", "[billing]\nbase_price = '10.5'\n", "line 2: billing.base_price: \"10.5\" is not an amount"},
		{"copy to nobody", "[notices]\ncopy = 'ops'\n", "line 2: notices.copy: \"ops\" is not an address"},
		{"short silence", "[notices]\nsilent = '12h'\n", "line 2: notices.silent: 12h is too short: at least 1d, or 0 for no notices"},
		{"silence without unit", "[notices]\nsilent = 7\n", `line 2: notices.silent: takes a duration such as "7d" in quotes, not a number`},
		{"negative price", "[billing]\nbase_price = '-10.50'\n", "line 2: billing.base_price: amount \"-10.50\" is negative"},
		{"time zone", "[billing]\ntimezone = 'Europe/Bonn'\n", "line 2: billing.timezone: \"Europe/Bonn\" is not a known time zone"},
		{"local time", "[billing]\ntimezone = 'Local'\n", "line 2: billing.timezone: the time zone must be named"},
		{"retention", "[retention]\nturns = '400'\n", "line 2: retention.turns: \"400\" is not a duration"},
		{"short retention", "[retention]\nturns = '23h'\n", "line 2: retention.turns: 23h is too short: at least 1d"},
		{"long wait", "[turn]\nidle_wait = '2h'\n", "line 2: turn.idle_wait: 2h is too long: at most 1h"},
		{"no wait", "[turn]\nidle_wait = '0s'\n", "line 2: turn.idle_wait: the duration must be longer than 0"},
		{"relative path", "database = 'mailbag.db'\n", `line 1: database: the path "mailbag.db" must begin with /`},
		{"empty path", "database = ''\n", "line 1: database: the path is empty"},
		{"path with NUL", "database = \"/a\\u0000\"\n", "line 1: database: the path contains a NUL"},
		{"relative socket", "[policy]\nlisten = 'unix:private/x'\n", "line 2: policy.listen: the path \"private/x\" must begin with /"},
		{"long socket", "[policy]\nlisten = 'unix:/" + strings.Repeat("x", 107) + "'\n", "is longer than 107 octets"},
		{"no socket", "[policy]\nlisten = '/run/policy'\n", "line 2: policy.listen: \"/run/policy\" is not an address"},
		{"unknown MTA", "mta = 'sendmail'\n", "line 1: mta: \"sendmail\" is none of \"auto\", \"postfix\" and \"exim\""},
		{"text in place of true", "[pop]\nplain_login = 'yes'\n", "line 2: pop.plain_login: takes true or false without quotes, not a text"},
		{"port in place of a socket", "[pop]\ndeliver = '127.0.0.1:24'\n", "line 2: pop.deliver: \"127.0.0.1:24\" is no unix socket"},
		{"address without a port", "[policy]\nmetrics = '127.0.0.1'\n", "line 2: policy.metrics: \"127.0.0.1\" is not an address"},
		{"named port", "[policy]\nmetrics = '127.0.0.1:http'\n", "line 2: policy.metrics: \"127.0.0.1:http\" has the port \"http\""},
		{"port too large", "[policy]\nmetrics = '127.0.0.1:65536'\n", "has the port \"65536\""},
		{"bad host", "[policy]\nmetrics = 'a b:1'\n", "neither an IP address nor a host name"},
		{"list as a text", "[turn]\nlisten = '0.0.0.0:366'\n", `line 2: turn.listen: takes a list such as ["…", "…"], not a text`},
		{"list with a number", "[turn]\nlisten = [366]\n", "line 2: turn.listen: takes an address"},
		{"long list", "[turn]\nlisten = [" + strings.Repeat("':1',", 101) + "]\n", "line 2: turn.listen: has 101 entries, at most 100"},
		{"network of proxies", "proxies = ['192.0.2.0/24']\n", "line 1: proxies: \"192.0.2.0/24\" is not an IP address"},
		{"proxy with a port", "proxies = ['192.0.2.5:366']\n", "line 1: proxies: \"192.0.2.5:366\" is not an IP address"},
		{"release", "[turn]\nrelease = 'exim -M'\n", "line 2: turn.release: \"exim -M\" is neither"},
		{"host name", "hostname = 'a..b'\n", "line 1: hostname: \"a..b\" is not a host name"},
		{"no TOML", "[limits]\nmessages = = 5\n", "line 2: not TOML: "},
		{"key twice", "[limits]\nmessages = 5\nmessages = 6\n", "line 3: not TOML: "},
		{"no UTF-8", "hostname = '\xff'\n", "line 1: not TOML: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, err := Parse(c.text)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("the error is %v; want one with %q", err, c.want)
			}
			if s != nil {
				t.Error("settings came with the error")
			}
			var mistake *KeyError
			if !errors.As(err, &mistake) {
				t.Errorf("%T holds no *KeyError", err)
			}
		})
	}
}

func TestAllMistakesAreReportedInTheOrderOfTheLines(t *testing.T) {
	t.Parallel()
	_, err := Parse("foo = 1\n[turn]\nwindow = 0\n[limits]\nbytes = 'x'\nbar = 2\n")
	if err == nil {
		t.Fatal("no error")
	}
	var begins []string
	for _, line := range strings.Split(err.Error(), "\n") {
		begins = append(begins, strings.Join(strings.SplitN(line, ":", 3)[:2], ":"))
	}
	want := []string{"line 1: foo", "line 3: turn.window", "line 5: limits.bytes", "line 6: limits.bar"}
	if diff := cmp.Diff(want, begins); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Not parallel: it sets the environment.
func TestFileIsFoundByFlagThenEnvironmentThenDefault(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := write("one", "hostname = 'one.example'"), write("two", "hostname = 'two.example'")
	t.Setenv(Environment, two)
	for flag, want := range map[string]string{one: "one.example", "": "two.example"} {
		if s, err := Load(flag); err != nil || s.Hostname != want || s.File == "" {
			t.Errorf("Load(%q) = %+v, %v; want the host name %s", flag, s, err, want)
		}
	}
	t.Setenv(Environment, filepath.Join(dir, "missing"))
	if _, err := Load(""); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a file that the environment names and that is missing: %v", err)
	}
}

func TestOnlyTheDefaultFileMayBeMissing(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.toml")
	if s, err := read(missing, false); err != nil || s.File != "" || s.Database != Default().Database {
		t.Errorf("read = %+v, %v; want the defaults", s, err)
	}
	if _, err := read(missing, true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the error is %v; want one that is os.ErrNotExist", err)
	}
	if _, err := read(t.TempDir(), false); err == nil {
		t.Error("a directory in place of the file is no error")
	}
}

func TestFileOfMoreThanAMebibyteIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "large.toml")
	if err := os.WriteFile(path, []byte(strings.Repeat("#\n", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(path, true); err == nil || !strings.Contains(err.Error(), "1 MiB") {
		t.Errorf("the error is %v", err)
	}
}

func TestErrorOfAFileNamesTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "bad.toml")
	if err := os.WriteFile(path, []byte("\nfoo = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := read(path, true); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "line 2: foo") {
		t.Errorf("the error is %v", err)
	}
}

func TestAddressesAreWrittenAsTheyAreRead(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"unix:/run/x", "127.0.0.1:25", "[::1]:25", ":25", "localhost:0"} {
		if a, err := ParseAddress(text); err != nil || a.String() != text {
			t.Errorf("ParseAddress(%q) = %q, %v", text, a, err)
		}
	}
	if (Address{}).String() != "" || !(Address{}).IsZero() {
		t.Error("the zero Address is not empty")
	}
}

func FuzzParse(f *testing.F) {
	if text, err := os.ReadFile("../../../packaging/mailbag.toml"); err != nil {
		f.Fatal(err)
	} else {
		f.Add(string(text))
	}
	for _, seed := range []string{
		"", "limits.bytes = 1\n", "[limits]\nbytes = '1G'\n", "[[limits]]\n", "a.b.c = 1\n", "limits = {messages = 5}\n", "[limits.messages]\n",
		"'' = 1\n", "[billing]\ntimezone = '../../etc/passwd'\n", "[turn]\nlisten = [[':1']]\n", "hostname = \"\\u0000\"\n", "x = 1979-05-27\n", "[turn]\nwindow = 0x7fffffffffffffff\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if (s == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", s, err)
		}
		if err != nil {
			return
		}
		if s.Database == "" || s.Limits.Messages < 1 || s.Limits.Bytes < 1 || s.Billing.Location == nil || s.Billing.BasePrice < 0 || s.Turn.Window < 1 {
			t.Fatalf("incomplete settings: %+v", s)
		}
	})
}

func FuzzParseDatabase(f *testing.F) {
	for _, seed := range []string{"/var/lib/mailbag/mailbag.db", "rqlite://127.0.0.1:4001,mx-b:4001", "rqlite://[2001:db8::5]:4001", "rqlite://", "rqlite://mx:0", "rqlite://unix:/s", "rqlite://me:word@mx:1", "rqlite://a:1,a:1", "http://a:1", "relative"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		address, err := ParseDatabase(text)
		if err != nil {
			return
		}
		if again, err := ParseDatabase(address); err != nil || again != address {
			t.Errorf("%q is %q and then %q, %v", text, address, again, err)
		}
		if !meter.Remote(address) && !filepath.IsAbs(address) {
			t.Errorf("%q is %q, which is neither nodes nor a path", text, address)
		}
	})
}
