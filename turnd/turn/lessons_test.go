package turn

import (
	"strings"
	"sync"
	"testing"

	"mailbag/testdata/peer"

	postfixtest "mailbag/testdata/postfix"
)

// Application gateways pass the EHLO reply of the server behind them on, and know less.
func TestParameterThatTheServerRefusesIsOfferedToTheMTANoMore(t *testing.T) {
	t.Parallel()
	refusedParameters(t, 1)
}

func TestParameterThatSeveralMessagesHaveTeachesNoMoreThanFromOne(t *testing.T) {
	t.Parallel()
	refusedParameters(t, 20)
}

// refusedParameters are two turns each to servers that refuse a parameter. The MTA brings so many messages at a time.
func refusedParameters(t *testing.T, together int) {
	for name, c := range map[string]struct{ parameter, reply, left string }{
		"DSN at MAIL": {"RET=", "555 5.5.4 what is RET", "SIZE=100 BODY=8BITMIME"},
		"DSN at RCPT": {"NOTIFY=", "501 5.5.4 what is NOTIFY", "SIZE=100 BODY=8BITMIME"},
		"8BITMIME":    {"BODY=", "501 5.5.4 what is BODY", "SIZE=100 RET=HDRS"},
		"SIZE":        {"SIZE=", "555 5.5.4 what is SIZE", "BODY=8BITMIME RET=HDRS"},
		"all":         {"=", "501 5.5.4 nothing behind the address", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t, nil)
			h.uses, h.mta.gate = true, make(chan struct{}, together)
			var mu sync.Mutex
			refusals := 0
			server := peer.RunGateway(t, func(g *peer.Gateway) {
				g.OnCommand = func(_ *postfixtest.Session, verb, argument string) string {
					if _, parameters, _ := strings.Cut(argument, "> "); (verb == "MAIL" || verb == "RCPT") && strings.Contains(parameters, c.parameter) {
						mu.Lock()
						refusals++
						mu.Unlock()
						return c.reply
					}
					return ""
				}
			})
			const n = 10
			h.fill(n, "a@hooli.example")

			if r := h.dialled(server.Sink); r.Outcome != "done" || len(r.Suspects) != 0 {
				t.Errorf("recorded %+v", r)
			}
			h.once(server.Sink, n)
			if refusals == 0 {
				t.Error("the server had nothing to refuse")
			}
			refusals = 0
			h.fill(n, "a@hooli.example")
			if r := h.dialled(server.Sink); r.Outcome != "done" || r.Messages != n || refusals != 0 {
				t.Errorf("in the next turn the server refused %d commands; recorded %+v", refusals, r)
			}
			if len(h.returned) != 0 {
				t.Errorf("returned: %v", h.returned)
			}
			if at := server.Messages()[2*n-1].FromParams; at != c.left { // what works is still used
				t.Errorf("MAIL had %q behind the address, want %q", at, c.left)
			}
		})
	}
}

// It says so to a parameter, and hangs up when it is asked without.
func TestRefusedParameterThatIsNotFoundOutReturnsNoMail(t *testing.T) {
	t.Parallel()
	h := newHouse(t, nil)
	h.uses = true
	server := peer.RunGateway(t, func(g *peer.Gateway) {
		g.OnCommand = func(_ *postfixtest.Session, verb, argument string) string {
			switch {
			case verb == "MAIL" && strings.Contains(argument, "RET="):
				return "555 5.5.4 what is RET"
			case verb == "MAIL" && argument == "FROM:<a@sender.example>":
				return postfixtest.HangUp
			}
			return ""
		}
	})
	const n = 5
	h.fill(n, "a@hooli.example")
	r := h.dialled(server.Sink)
	if len(h.returned) != 0 || len(server.Messages())+h.held() != n {
		t.Errorf("returned: %v; %d arrived, %d are held, recorded %+v", h.returned, len(server.Messages()), h.held(), r)
	}
}
