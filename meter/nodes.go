package meter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	neturl "net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// nodes are those of rqlite that have a ledger.
//
// A request is tried at one after the other, and again, until its time is over. An attempt ends in one of three ways: it was
// done; it was certainly not done, because nobody took it or a statement of it failed; or that is not known, because the answer
// was lost. Only after the last two is it tried again, and whoever asks sees to it that what was done twice is done once.
type nodes struct {
	urls        []string // the first is that of this machine's own
	credentials string
	http        *http.Client

	mu   sync.Mutex
	at   int       // the one that answered last
	away time.Time // when the own one was last found to be of no use
}

const (
	// attempt is how long one node has for its answer, more for a long request, and twice as long in each round. One that is
	// stopped takes requests and answers nobody.
	attempt     = 2 * time.Second
	attemptMore = 2 * time.Second // for each megabyte

	firstPause, lastPause = 20 * time.Millisecond, 250 * time.Millisecond

	// aside is for how long the own node is not asked first for what it has, once it was of no use.
	aside = 5 * time.Second

	// maxAnswer and maxWord bound what is read of results, and of what is no result.
	maxAnswer = 1 << 30
	maxWord   = 4 << 10
)

func newNodes(urls []string, opt Options) *nodes {
	return &nodes{urls: urls, credentials: opt.Credentials, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: attempt}).DialContext,
			DialTLSContext:      opt.dialTLS,
			MaxIdleConnsPerHost: maxReaders + 4,
			IdleConnTimeout:     time.Minute,
		},
		// A node asks the leader itself; what sends elsewhere is none, and has the credentials from us.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (n *nodes) close() { n.http.CloseIdleConnections() }

// request is one to all nodes.
type request struct {
	path      string
	otherwise string // the path where no node had an answer to the first one
	body      []byte
	writes    bool          // it matters whether a node has done what it gave no answer to
	within    time.Duration // for how long it is tried
	slow      time.Duration // the same where a node has taken it, and has not answered yet
	patience  time.Duration // for how long one node has, 0: attempt
	nearby    bool          // the own node is asked first, whichever answered last
	answer    func(io.Reader) error
}

// longer is how much more time a long request has.
func longer(body []byte) time.Duration { return time.Duration(len(body)>>10) * attemptMore >> 10 }

// A failure is of one attempt, and no answer to the request.
type failure struct {
	cause error
	heard bool // the node may have done it, or do it later
	slow  bool // there was no answer in time
	stays bool // the node will say the same again
}

func (f *failure) Error() string { return f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }

// do tries a request until it is answered. The error is that of answer, or an ErrUnavailable, or of the context; with errUnknown where
// an attempt before may have been heard, which a node may come to do when what it answers now holds no more.
func (n *nodes) do(ctx context.Context, r request) error {
	begun := time.Now()
	patience := attempt + longer(r.body)
	if r.patience > 0 {
		patience = r.patience
	}
	heard := false
	pause := firstPause
	for {
		var last *failure
		slow, stays := false, true
		for _, at := range n.order(r.nearby) {
			left := r.slow - time.Since(begun)
			if left <= 0 && last != nil {
				break
			}
			err := n.try(ctx, at, r, min(patience, left))
			failed, is := err.(*failure)
			switch {
			case !is && heard && err != nil && !isDone(err):
				return fmt.Errorf("%w: %w", errUnknown, err)
			case !is:
				return err
			}
			last = failed
			heard, slow, stays = heard || failed.heard && r.writes, slow || failed.slow, stays && failed.stays
			if ctx.Err() != nil {
				break
			}
		}
		spent := time.Since(begun)
		if over := spent+pause > r.slow || !slow && spent > r.within; over || stays || ctx.Err() != nil {
			if stays && !heard && ctx.Err() == nil {
				return fmt.Errorf("%w: %w", ErrSettings, last.cause)
			}
			return gaveUp(ctx, last, heard)
		}
		select {
		case <-ctx.Done():
			return gaveUp(ctx, last, heard)
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
		patience = min(2*patience, r.slow)
		if r.otherwise != "" {
			r.path = r.otherwise
		}
	}
}

// gaveUp is the error of a request that nobody answered.
func gaveUp(ctx context.Context, last *failure, heard bool) error {
	switch {
	case heard:
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, errUnknown, last.cause)
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, last.cause)
}

// order is that in which the nodes are asked.
func (n *nodes) order(nearby bool) []int {
	n.mu.Lock()
	first := n.at
	if nearby && time.Since(n.away) > aside {
		first = 0
	}
	n.mu.Unlock()
	order := make([]int, len(n.urls))
	for i := range order {
		order[i] = (first + i) % len(order)
	}
	return order
}

// try asks one node. The error is a *failure, or that of answer.
func (n *nodes) try(ctx context.Context, at int, r request, patience time.Duration) error {
	err := n.ask(ctx, n.urls[at], r, patience)
	_, failed := err.(*failure)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case !failed:
		n.at = at
	case at == 0:
		n.away = time.Now()
	}
	return err
}

func (n *nodes) ask(ctx context.Context, url string, r request, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	method, path := http.MethodGet, r.path
	if r.body != nil { // no node waits for longer on our behalf for another one
		method, path = http.MethodPost, fmt.Sprintf("%s&timeout=%dms", path, patience.Milliseconds())
		if !r.writes { // nor goes on with what nobody waits for any more
			path = fmt.Sprintf("%s&db_timeout=%dms", path, patience.Milliseconds())
		}
	}
	q, err := http.NewRequestWithContext(ctx, method, url+path, bytes.NewReader(r.body))
	if err != nil {
		return &failure{cause: err, stays: true}
	}
	q.Header.Set("Content-Type", "application/json")
	if n.credentials != "" {
		user, password, err := credentials(n.credentials)
		if err != nil {
			return &failure{cause: err, stays: true}
		}
		q.SetBasicAuth(user, password)
	}
	answer, err := n.http.Do(q)
	if err != nil {
		var asked *neturl.Error // with all of the address, where the node says enough
		if errors.As(err, &asked) {
			err = asked.Err
		}
		word, stays := tlsTrouble(err)
		return &failure{cause: fmt.Errorf("%s: %s%w", url, word, err), heard: connected.Load(), slow: connected.Load() && errors.Is(ctx.Err(), context.DeadlineExceeded), stays: stays}
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		err := r.answer(answer.Body)
		if f, is := err.(*failure); is {
			f.cause = fmt.Errorf("%s: %w", url, f.cause)
			f.slow = f.slow || errors.Is(ctx.Err(), context.DeadlineExceeded)
		}
		return err
	}
	word, _ := io.ReadAll(io.LimitReader(answer.Body, maxWord))
	f := &failure{cause: fmt.Errorf("%s answers %s: %s", url, answer.Status, bytes.TrimSpace(word))}
	switch answer.StatusCode {
	case http.StatusServiceUnavailable:
		f.cause = fmt.Errorf("%w; it takes most of the nodes, and that they reach each other", f.cause)
	case http.StatusUnauthorized:
		f.stays, f.cause = true, fmt.Errorf("%s asks for a user and password, and cluster.credentials names none", url)
		if n.credentials != "" {
			f.cause = fmt.Errorf("%s refuses who is in %s: user or password are wrong there, or the user has not all of the permissions query, execute and backup", url, n.credentials)
		}
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
		f.stays = true
	default:
		f.heard = true
	}
	return f
}

// credentials are read from a file with a line "user:password" each time, so that they can be changed.
func credentials(path string) (user, password string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", "", fmt.Errorf("the credentials of the ledger cannot be read: %w", err)
	}
	user, password, found := strings.Cut(strings.TrimSpace(string(text)), ":")
	if !found {
		return "", "", fmt.Errorf("%s has no line USER:PASSWORD", path)
	}
	return user, password, nil
}
