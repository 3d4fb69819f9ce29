package maildir

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Names makes unique file names: time, process, a counter of deliveries, a token of this start, host. That is
// the convention of maildir(5), and in this order names sort as messages came.
type Names struct {
	now   func() time.Time
	host  string
	token string
	count atomic.Uint64
}

// maxHost keeps the unique part of a name below the 70 characters of a unique-id.
const maxHost = 24

// NewNames makes names for the host. now is time.Now but in tests.
func NewNames(host string, now func() time.Time) *Names {
	// maildir(5): a / or a : in a host name is written in octal. Other oddities do not get that far.
	host = strings.NewReplacer("/", `\057`, ":", `\072`, ",", `\054`).Replace(host)
	token := make([]byte, 4)
	rand.Read(token)
	return &Names{now: now, host: host[:min(len(host), maxHost)], token: hex.EncodeToString(token)}
}

func (n *Names) next() string {
	t := n.now()
	return fmt.Sprintf("%d.M%06dP%dQ%dR%s.%s", t.Unix(), t.Nanosecond()/1000, os.Getpid(), n.count.Add(1), n.token, n.host)
}

// A name is a file name read: unique[,S=size][,W=sent][,...][:info].
type name struct {
	base   int   // length of the name without :info
	unique int   // length of what identifies the message
	stored int64 // S=, octets; -1: not there
	sent   int64 // W=, octets; -1: not there
}

func parseName(s string) name {
	n := name{base: len(s), stored: -1, sent: -1}
	if colon := strings.IndexByte(s, ':'); colon >= 0 {
		n.base = colon
	}
	n.unique = n.base
	for at := 0; at < n.base; {
		comma := strings.IndexByte(s[at:n.base], ',')
		if comma < 0 {
			break
		}
		at += comma + 1
		if at+2 >= n.base || s[at+1] != '=' || s[at] != 'S' && s[at] != 'W' {
			continue
		}
		end := at + 2
		for end < n.base && s[end] >= '0' && s[end] <= '9' {
			end++
		}
		size, err := strconv.ParseInt(s[at+2:end], 10, 64)
		if err != nil || end < n.base && s[end] != ',' {
			continue
		}
		if s[at] == 'S' {
			n.stored = size
		} else {
			n.sent = size
		}
		n.unique = min(n.unique, at-1)
	}
	return n
}

// came is the time at which a name says that its message came, in microseconds since 1970: seconds before the
// first dot, and behind it M and microseconds where there are. 0: it says none.
func came(s string) uint64 {
	seconds, rest := digits(s)
	micros := uint64(0)
	if strings.HasPrefix(rest, ".M") {
		micros, _ = digits(rest[2:])
	}
	return seconds*1_000_000 + micros%1_000_000
}

// digits reads a number of twelve digits at most, so that it still fits when it is multiplied.
func digits(s string) (n uint64, rest string) {
	i := 0
	for ; i < len(s) && i < 12 && s[i] >= '0' && s[i] <= '9'; i++ {
		n = 10*n + uint64(s[i]-'0')
	}
	return n, s[i:]
}

// maxUniqueID is what RFC 1939, section 7, allows: 1 to 70 characters from 0x21 to 0x7E.
const maxUniqueID = 70

// uniqueID makes a unique-id of what identifies a message: that itself where it can be one.
func uniqueID(s string) string {
	fits := s != "" && len(s) <= maxUniqueID
	for i := 0; fits && i < len(s); i++ {
		fits = s[i] > ' ' && s[i] < 0x7f
	}
	if fits {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
