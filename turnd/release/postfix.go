package release

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Postfix releases through the socket of flush(8), which spares a process for each message.
//
// What Postfix does with a message that is released (found out on 3.7, and asserted by the tests):
//
//   - In the deferred queue it is tried at once, whatever defer_transports says and although its
//     destination is throttled after a delivery that found no socket.
//   - In the incoming queue it is marked, and tried so when the queue manager takes it up.
//   - In the active queue nothing happens, and Postfix says that all is well. The message goes on as it
//     was begun; when that ends in the deferred queue it can be released there.
//
// The zero value does not work; Socket is needed.
type Postfix struct {
	// Socket is public/flush in Postfix's queue directory. The group postdrop may connect to it.
	Socket string
	// Otherwise is used where the socket does not answer as it should. Nil: then that is an error.
	Otherwise Postqueue
}

// Postqueue releases by Postfix's command postqueue(1), which any user may run.
type Postqueue interface {
	Release(ctx context.Context, ids ...string) error
	Flush(ctx context.Context, domain string) error
}

// Release makes Postfix try each of the messages now, in their order. It stops at the first failure.
func (p Postfix) Release(ctx context.Context, ids ...string) error {
	if err := checkIDs(ids); err != nil {
		return err
	}
	for i, id := range ids {
		err := p.ask(ctx, "send_file", "queue_id", id)
		if err == nil {
			continue
		}
		if over(ctx) || p.Otherwise == nil {
			return fmt.Errorf("cannot release message %s: %w", id, err)
		}
		if other := p.Otherwise.Release(ctx, ids[i:]...); other != nil {
			return errors.Join(err, other)
		}
		return nil
	}
	return nil
}

// Flush makes Postfix try the mail for a domain now, as far as its log of that domain goes (flush(8)).
// It wakes up every other throttled destination of this Postfix too.
func (p Postfix) Flush(ctx context.Context, domain string) error {
	if len(domain) == 0 || len(domain) > 255 || domain[0] == '-' {
		return fmt.Errorf("%.40q is not a domain", domain)
	}
	err := p.ask(ctx, "send_site", "site", domain)
	if err == nil {
		return nil
	}
	// postqueue cannot do what Postfix does not want to.
	if over(ctx) || p.Otherwise == nil || errors.Is(err, errDenied) {
		return fmt.Errorf("cannot flush %s: %w", domain, err)
	}
	if other := p.Otherwise.Flush(ctx, domain); other != nil {
		return errors.Join(err, other)
	}
	return nil
}

// over reports whether a context has ended. At its deadline the connection, which has the same one, may say so first.
func over(ctx context.Context) bool {
	end, limited := ctx.Deadline()
	return ctx.Err() != nil || limited && !time.Now().Before(end)
}

// ask makes one request; flush(8) serves one for each connection.
func (p Postfix) ask(ctx context.Context, request, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, perMessage)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", p.Socket)
	if err != nil {
		return fmt.Errorf("cannot reach flush(8) of Postfix: %w", err)
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	// A context that ends earlier than its deadline ends the exchange as well.
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(attributes("request", request, name, value)); err != nil {
		return fmt.Errorf("cannot ask flush(8) of Postfix: %w", err)
	}
	status, err := readStatus(conn)
	if err != nil {
		return fmt.Errorf("flush(8) of Postfix gave no answer: %w", err)
	}
	return status.err()
}
