package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"mailbag/turnd/turn"
)

// maxAnswer bounds an answer, in octets: some hundred thousand turns.
const maxAnswer = 32 << 20

// A Client asks a [Server]. It is safe for concurrent use. Its errors are [ErrDown] where nobody answers, the
// context's, and those of the server.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client of the socket at path, which need not be there yet.
func NewClient(path string) *Client {
	return &Client{path, &http.Client{
		Timeout: answerTime,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", path)
			},
			DisableKeepAlives:      true, // a POST on a connection that is just being closed would be lost
			MaxResponseHeaderBytes: maxHeader,
		},
	}}
}

// Open has a turn to the account opened. It returns nil when the customer's server is ready to take mail, which may take a
// minute; the turn goes on by itself. client is the IP address of who asked, empty for the
// operator. Errors are those of [turn.Turns.Dial], meter.ErrNoAccount, [ErrSuspended] and [ErrNotDialled].
func (c *Client) Open(ctx context.Context, account, client string) error {
	return c.ask(ctx, http.MethodPost, turnPath(account)+"?"+url.Values{"client": {client}}.Encode(), nil)
}

// IsOpen reports whether a turn to the account is open.
func (c *Client) IsOpen(ctx context.Context, account string) (bool, error) {
	var s state
	err := c.ask(ctx, http.MethodGet, turnPath(account), &s)
	return s.Open, err
}

// List returns the turns that are open, oldest first.
func (c *Client) List(ctx context.Context) ([]turn.Status, error) {
	var list []turn.Status
	err := c.ask(ctx, http.MethodGet, "/turns", &list)
	return list, err
}

// End has a turn finish what is in flight, and end. The error is [ErrNoTurn] where there is none.
func (c *Client) End(ctx context.Context, account string) error {
	return c.ask(ctx, http.MethodDelete, turnPath(account), nil)
}

// TryMTA has the daemon list the queue and ask for a release, with its own rights. No message is touched. The error is
// [ErrMTA] where it could not.
func (c *Client) TryMTA(ctx context.Context) error {
	return c.ask(ctx, http.MethodGet, "/mta", nil)
}

func turnPath(account string) string { return "/turns/" + url.PathEscape(account) }

// ask makes one request; into takes the answer where there is one.
func (c *Client) ask(ctx context.Context, method, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://turnd"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%w at unix:%s; start it, or see its log: %w", ErrDown, c.path, cause(err))
	}
	defer response.Body.Close()
	body := json.NewDecoder(io.LimitReader(response.Body, maxAnswer))
	if response.StatusCode >= 300 {
		var r refusal
		if err := body.Decode(&r); err != nil {
			return fmt.Errorf("%w as expected at unix:%s (HTTP status %s); is it another program?", ErrDown, c.path, response.Status)
		}
		return r.err()
	}
	if into != nil {
		if err := body.Decode(into); err != nil {
			return fmt.Errorf("%w as expected at unix:%s: %w", ErrDown, c.path, err)
		}
	}
	return nil
}

// cause is an error of net/http without the words about a request that is ours.
func cause(err error) error {
	if u, ok := err.(*url.Error); ok {
		return u.Err
	}
	return err
}
