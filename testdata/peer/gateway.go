package peer

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// A Gateway is a customer's mail server with quirks, for what no server of Debian's does on command. Without any it is as
// good as [postfixtest.Chunking] says.
type Gateway struct {
	*postfixtest.Sink

	mu     sync.Mutex
	choked []postfixtest.Message
}

// A Quirk is one thing that a gateway does in its own way. Of several that have an answer to a command, the first gives it.
type Quirk func(*Gateway)

// RunGateway starts a gateway for a test, which stops it at its end.
func RunGateway(t testing.TB, quirks ...Quirk) *Gateway {
	t.Helper()
	sink, err := postfixtest.NewSink()
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Sink: sink}
	g.Extensions = slices.Clone(postfixtest.Chunking)
	for _, q := range quirks {
		q(g)
	}
	if err := g.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Stop)
	return g
}

// Choked are the messages at which the gateway died, in order, each as often as it did.
func (g *Gateway) Choked() []postfixtest.Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.choked)
}

// answering is a quirk that is an answer to commands.
func answering(answer func(s *postfixtest.Session, verb, argument string) string) Quirk {
	return func(g *Gateway) {
		before := g.OnCommand
		g.OnCommand = func(s *postfixtest.Session, verb, argument string) string {
			if before != nil {
				if reply := before(s, verb, argument); reply != "" {
					return reply
				}
			}
			return answer(s, verb, argument)
		}
	}
}

// Says answers every such command with this reply. A good one, which may have several lines with several codes, is what is
// said where the command succeeds. What behind a refused BDAT is content, is taken for commands.
func Says(verb, reply string) Quirk {
	return answering(func(_ *postfixtest.Session, v, _ string) string {
		if v == verb {
			return reply
		}
		return ""
	})
}

// RefusesDSN answers MAIL and RCPT with this reply where they have a parameter of DSN (RFC 3461), which is offered.
func RefusesDSN(reply string) Quirk {
	return answering(func(_ *postfixtest.Session, verb, argument string) string {
		_, parameters, _ := strings.Cut(strings.ToUpper(argument), "> ")
		for p := range strings.FieldsSeq(parameters) {
			name, _, _ := strings.Cut(p, "=")
			if (verb == "MAIL" || verb == "RCPT") && slices.Contains([]string{"RET", "ENVID", "NOTIFY", "ORCPT"}, name) {
				return reply
			}
		}
		return ""
	})
}

// EndsAfter answers MAIL with this reply when so many messages were taken over a connection.
func EndsAfter(n int, reply string) Quirk {
	return answering(func(s *postfixtest.Session, verb, _ string) string {
		if verb == "MAIL" && s.Taken >= n {
			return reply
		}
		return ""
	})
}

// Limits announces (RFC 9422) and keeps limits of transactions for a connection and of recipients for a transaction.
func Limits(mails, recipients int) Quirk {
	return func(g *Gateway) {
		g.Extensions = append(g.Extensions, fmt.Sprintf("LIMITS MAILMAX=%d RCPTMAX=%d", mails, recipients))
		counted := map[*postfixtest.Session]int{} // recipients of the present transaction
		answering(func(s *postfixtest.Session, verb, _ string) string {
			g.mu.Lock()
			defer g.mu.Unlock()
			switch {
			case verb == "MAIL" && s.Mails >= mails:
				return "421 4.7.0 too many transactions"
			case verb == "MAIL":
				counted[s] = 0
			case verb == "RCPT":
				if counted[s]++; counted[s] > recipients {
					return "452 4.5.3 too many recipients"
				}
			}
			return ""
		})(g)
	}
}

// ChokesOn makes the gateway hang up without a reply at every message whose content has the marker, like one whose scanner
// dies of it.
func ChokesOn(marker string) Quirk {
	return func(g *Gateway) {
		g.OnMessage = func(m postfixtest.Message) string {
			if !bytes.Contains(m.Data, []byte(marker)) {
				return ""
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			g.choked = append(g.choked, m)
			return postfixtest.HangUp
		}
	}
}

// GreetsAfter makes every client wait for its greeting.
func GreetsAfter(d time.Duration) Quirk {
	return func(g *Gateway) { g.Sink.GreetsAfter = d }
}

// SwallowsGroups offers PIPELINING and reads the first command of a group only. Content is not among what is lost, so there
// is no CHUNKING.
func SwallowsGroups() Quirk {
	return func(g *Gateway) {
		g.Extensions = []string{"PIPELINING", "8BITMIME", "SIZE"}
		g.Sink.SwallowsGroups = true
	}
}

// StartsTLS offers STARTTLS.
func StartsTLS(config *tls.Config) Quirk {
	return func(g *Gateway) { g.TLS = config }
}

// ClosesUnderTLS hangs up at the first command under TLS.
func ClosesUnderTLS() Quirk {
	return answering(func(s *postfixtest.Session, _, _ string) string {
		if s.TLS != "" {
			return postfixtest.HangUp
		}
		return ""
	})
}
