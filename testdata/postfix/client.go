package postfixtest

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"
)

// clientTimeout is longer than Postfix ever waits for a policy service or a milter in a test.
const clientTimeout = 2 * time.Minute

// Client is one SMTP connection of a sender. It is not safe for concurrent use.
type Client struct {
	conn net.Conn
	r    *bufio.Reader
}

// Dial connects to addr from the loopback address source ("" lets the kernel choose 127.0.0.1), and reads the greeting.
func Dial(addr, source string) (*Client, error) {
	c, err := connect(addr, source)
	if err != nil {
		return nil, err
	}
	if reply, err := c.Reply(); err != nil || !strings.HasPrefix(reply, "220") {
		_ = c.Close()
		return nil, fmt.Errorf("no greeting from %s: %q, %w", addr, reply, err)
	}
	return c, nil
}

func connect(addr, source string) (*Client, error) {
	var d net.Dialer
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	conn, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, r: bufio.NewReader(conn)}, nil
}

// Close closes the connection without a QUIT.
func (c *Client) Close() error { return c.conn.Close() }

// Write sends octets as they are.
func (c *Client) Write(p []byte) (int, error) {
	if err := c.conn.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return 0, err
	}
	return c.conn.Write(p)
}

// Reply reads one whole reply, its lines joined by "\n", without line ends.
func (c *Client) Reply() (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(clientTimeout)); err != nil {
		return "", err
	}
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return strings.Join(lines, "\n"), err
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// Say sends one command and returns the reply to it.
func (c *Client) Say(command string) (string, error) {
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	return c.Reply()
}

// Mail is one message to send.
type Mail struct {
	From string   // reverse-path without angle brackets; "" is the null sender
	To   []string // without angle brackets
	Data []byte   // content with CRLF line ends, as it is to arrive
}

// Outcome is what the server said about one Mail.
type Outcome struct {
	Recipients []string // one reply for each of Mail.To
	Data       string   // reply to the final dot, or the reply to MAIL or DATA that ended it earlier
}

// Accepted reports whether the server took the message, for at least one recipient.
func (o Outcome) Accepted() bool { return strings.HasPrefix(o.Data, "250") }

// Send makes one transaction of m. EHLO must have been said. The error is about the connection only.
func (c *Client) Send(m Mail) (Outcome, error) {
	var o Outcome
	var err error
	if o.Data, err = c.Say("MAIL FROM:<" + m.From + ">"); err != nil || !strings.HasPrefix(o.Data, "250") {
		return o, err
	}
	for _, to := range m.To {
		reply, err := c.Say("RCPT TO:<" + to + ">")
		if err != nil {
			return o, err
		}
		o.Recipients = append(o.Recipients, reply)
	}
	if o.Data, err = c.Say("DATA"); err != nil {
		return o, err
	}
	if !strings.HasPrefix(o.Data, "354") {
		_, err = c.Say("RSET")
		return o, err
	}
	if _, err = c.Write(transparent(m.Data)); err != nil {
		return o, err
	}
	o.Data, err = c.Reply()
	return o, err
}

// Send delivers one message over a connection of its own from the loopback address source ("": 127.0.0.1).
func Send(addr, source string, m Mail) (Outcome, error) {
	c, err := Dial(addr, source)
	if err != nil {
		return Outcome{}, err
	}
	defer c.Close()
	if _, err := c.Say("EHLO client.example"); err != nil {
		return Outcome{}, err
	}
	o, err := c.Send(m)
	if err != nil {
		return o, err
	}
	_, err = c.Say("QUIT")
	return o, err
}

// transparent doubles leading dots (RFC 5321, section 4.5.2) and adds the final one.
func transparent(data []byte) []byte {
	if len(data) > 0 && data[0] == '.' {
		data = append([]byte{'.'}, data...)
	}
	data = bytes.ReplaceAll(data, []byte("\n."), []byte("\n.."))
	if len(data) > 0 && !bytes.HasSuffix(data, []byte("\r\n")) {
		data = append(data, "\r\n"...)
	}
	return append(bytes.Clone(data), ".\r\n"...)
}
