package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"mailbag/testdata/dovecot"
	"mailbag/testdata/service"
)

const (
	openRounds   = 9
	retrRounds   = 5
	manyMessages = 100_000
	retrMessages = 10_000
	retrSize     = 20_000
	pipelined    = 64
)

// mailboxes is how soon a large mailbox opens, and how fast one is fetched, by mailbag-popd and by Dovecot from the
// same Maildir: named as mailbag-popd names what it delivers, and as programs do that put no sizes into names. The first
// open is of messages that nobody has seen. Later ones are compared with Dovecot's where it is fastest.
func mailboxes(bin, dir string) error {
	return besideDovecot(bin, dir, []string{"many", "plain", "large"}, func(s *service.Service, d *dovecot.Instance) error {
		if err := fill(d, "many", ours, manyMessages, 500); err != nil {
			return err
		}
		if err := fill(d, "plain", plain, manyMessages, 500); err != nil {
			return err
		}
		popd, theirs := servers(s, d)
		first := map[string]opening{}
		for _, who := range []struct {
			server server
			user   string
		}{{popd, "many"}, {theirs, "many"}, {popd, "plain"}, {theirs, "plain"}} {
			var err error
			if first[who.server.name+who.user], err = open(who.server, who.user); err != nil {
				return err
			}
		}
		fmt.Printf("%d messages open at first in %.2f s, and %.2f s by Dovecot; without sizes in their names in %.2f s, and %.2f s by Dovecot\n", manyMessages,
			first[popd.name+"many"].stat.Seconds(), first[theirs.name+"many"].stat.Seconds(),
			first[popd.name+"plain"].stat.Seconds(), first[theirs.name+"plain"].stat.Seconds())
		var opens, unsized, lists, seconds, theirSeconds []float64
		for range openRounds {
			took := map[string]opening{}
			for _, user := range []string{"many", "plain"} {
				for _, server := range []server{popd, theirs} {
					var err error
					if took[server.name+user], err = open(server, user); err != nil {
						return err
					}
				}
			}
			fastest := min(took[theirs.name+"many"].stat, took[theirs.name+"plain"].stat).Seconds()
			named, unnamed := took[popd.name+"many"], took[popd.name+"plain"]
			seconds, theirSeconds = append(seconds, named.stat.Seconds()), append(theirSeconds, fastest)
			opens = append(opens, named.stat.Seconds()/fastest)
			unsized = append(unsized, unnamed.stat.Seconds()/fastest)
			lists = append(lists, named.lists.Seconds()/took[theirs.name+"many"].lists.Seconds())
		}
		fmt.Printf("later in %.2f s, and %.2f s by Dovecot\n", median(seconds), median(theirSeconds))
		atMost("first open / Dovecot's", first[popd.name+"many"].stat.Seconds()/first[theirs.name+"many"].stat.Seconds(), 0.1, "")
		atMost("later open / Dovecot's with its index", median(opens), 0.7, "")
		atMost("later open, no sizes in names / Dovecot's", median(unsized), 1, "")
		atMost("UIDL and LIST / Dovecot's", median(lists), 0.7, "")
		return fetching(d, popd, theirs)
	})
}

// fetching compares RETR.
func fetching(d *dovecot.Instance, popd, theirs server) error {
	if err := fill(d, "large", ours, retrMessages, retrSize); err != nil {
		return err
	}
	both := []server{popd, theirs}
	var ratios []float64
	rates := map[string][]float64{}
	for round := range retrRounds + 1 {
		rate := map[string]float64{}
		for _, server := range both {
			var err error
			if rate[server.name], err = retrieve(server); err != nil {
				return err
			}
		}
		if round > 0 { // the first brings the files into the page cache, and Dovecot's index about
			ratios = append(ratios, rate[popd.name]/rate[theirs.name])
			for name, r := range rate {
				rates[name] = append(rates[name], r)
			}
		}
		slices.Reverse(both)
	}
	fmt.Printf("%d pipelined RETR of %d octets bring %.0f MB/s, and %.0f MB/s by Dovecot\n", pipelined, retrSize,
		median(rates[popd.name]), median(rates[theirs.name]))
	atLeast("RETR from the page cache / Dovecot's", median(ratios), 1.5, "")
	return nil
}

// An opening is how long it took from the log-in to STAT, and for UIDL and LIST after it.
type opening struct{ stat, lists time.Duration }

func open(s server, user string) (took opening, err error) {
	begun := time.Now()
	r, err := s.enter(user, "127.0.0.1")
	if err != nil {
		return took, err
	}
	answer, err := r.say("STAT")
	took.stat = time.Since(begun)
	if err == nil && !strings.HasPrefix(answer, fmt.Sprintf("+OK %d ", manyMessages)) {
		err = fmt.Errorf("%s has not all messages: %s", s.name, answer)
	}
	if err != nil {
		return took, err
	}
	begun = time.Now()
	if _, err = fmt.Fprint(r, "UIDL\r\nLIST\r\n"); err == nil {
		_, err = r.endings(2, func() {})
	}
	took.lists = time.Since(begun)
	if err != nil {
		return took, err
	}
	return took, r.quit()
}

// retrieve fetches a mailbox and returns how many MB came a second.
func retrieve(s server) (perSecond float64, err error) {
	r, err := s.enter("large", "127.0.0.1")
	if err != nil {
		return 0, err
	}
	begun := time.Now()
	next := 1
	ask := func() {
		if next <= retrMessages {
			fmt.Fprintf(r, "RETR %d\r\n", next)
			next++
		}
	}
	for range pipelined {
		ask()
	}
	octets, err := r.endings(retrMessages, ask)
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	return float64(octets) / 1e6 / took.Seconds(), r.quit()
}
