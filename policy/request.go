package policy

import (
	"bytes"
	"context"
	"fmt"
)

const (
	requestLimit   = 64 << 10 // octets of a policy request; Exim's has all domains of a message in one attribute
	attributeLimit = 256      // Postfix sends about 35
)

// A request is what we use of a policy delegation request (SMTPD_POLICY_README). The values are
// valid until the next request is read.
type request struct {
	protocol      []byte // the attribute "request"
	state         []byte // protocol_state
	recipient     []byte // in internal form, without quotes
	etrnDomain    []byte
	clientAddress []byte
	context       []byte // policy_context
	queueID       []byte
	size          []byte
	domains       []byte // recipient_domains: those that Exim takes for ours, separated by spaces
	others        []byte // other_recipients: "yes" or "no"
	received      []byte // the Received fields
	fingerprint   []byte // in hexadecimal digits
	attributes    int
	seen          uint16 // attributes of ours, by bit
}

// exim reports whether it is Exim that asks.
func (r *request) exim() bool { return string(r.context) == "exim" }

// serveRequests is the session of one policy client.
func (p *Policy) serveRequests(ctx context.Context, c *conn) error {
	var r request
	counted := "" // by the request before
	for {
		text, err := c.next(frameRequest)
		if err != nil {
			p.hungUp(counted, err)
			return err
		}
		if err := r.parse(text); err != nil {
			return err
		}
		counted = ""
		switch state := string(r.state); {
		case r.exim() && state == endOfMessage:
			counted, err = p.message(c, &r)
		case r.exim() && state == cancel:
			if err = p.takeBack(&r); err == nil {
				err = p.answer(c, &r, dunno)
			}
		default:
			err = p.answer(c, &r, p.decide(ctx, &r))
		}
		if err != nil {
			return err
		}
	}
}

func (p *Policy) answer(c *conn, r *request, d decision) error {
	p.metrics.answered(r.state, d.kind)
	c.out = append(append(append(c.out[:0], "action="...), d.action...), "\n\n"...)
	return c.answer(c.out)
}

// frameRequest finds the empty line that ends a request, and refuses early what will not become one.
func frameRequest(b []byte, searched int) (int, error) {
	if b[0] == '\n' {
		return 0, badInput("a request without attributes")
	}
	if bytes.IndexByte(b[searched:], 0) >= 0 {
		return 0, badInput("a request contains a NUL octet")
	}
	if i := bytes.Index(b[max(searched-1, 0):], []byte("\n\n")); i >= 0 {
		return max(searched-1, 0) + i + 2, nil
	}
	return 0, nil
}

// parse reads a whole request with its empty line. Attributes may come in any order; those that we
// do not use are passed over, whatever their number of times. One that we use may come once only: two
// of them are somebody's attempt to be read in two ways.
func (r *request) parse(text []byte) error {
	*r = request{}
	for len(text) > 1 {
		end := bytes.IndexByte(text, '\n')
		line := text[:end]
		text = text[end+1:]
		if r.attributes++; r.attributes > attributeLimit {
			return badInput(fmt.Sprintf("a request has more than %d attributes", attributeLimit))
		}
		equals := bytes.IndexByte(line, '=')
		if equals < 1 {
			return badInput("a line of a request is not name=value")
		}
		if err := r.set(line[:equals], line[equals+1:]); err != nil {
			return err
		}
	}
	if string(r.protocol) != "smtpd_access_policy" {
		return badInput("a request is not request=smtpd_access_policy")
	}
	return nil
}

func (r *request) set(name, value []byte) error {
	var field *[]byte
	var bit uint16
	switch string(name) {
	case "request":
		field, bit = &r.protocol, 1<<0
	case "protocol_state":
		field, bit = &r.state, 1<<1
	case "recipient":
		field, bit = &r.recipient, 1<<2
	case "etrn_domain":
		field, bit = &r.etrnDomain, 1<<3
	case "client_address":
		field, bit = &r.clientAddress, 1<<4
	case "policy_context":
		field, bit = &r.context, 1<<5
	case "queue_id":
		field, bit = &r.queueID, 1<<6
	case "size":
		field, bit = &r.size, 1<<7
	case "recipient_domains":
		field, bit = &r.domains, 1<<8
	case "other_recipients":
		field, bit = &r.others, 1<<9
	case "received":
		field, bit = &r.received, 1<<10
	case "fingerprint":
		field, bit = &r.fingerprint, 1<<11
	default:
		return nil
	}
	if r.seen&bit != 0 {
		return badInput(fmt.Sprintf("a request has the attribute %s twice", name))
	}
	r.seen |= bit
	*field = value
	return nil
}
