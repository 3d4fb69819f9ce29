package e2e

import (
	"fmt"
	"net"
	"net/textproto"
	"strings"
	"time"

	postfixtest "mailbag/testdata/postfix"
)

// A popClient is one POP3 client, for what needs no real one.
type popClient struct {
	*textproto.Conn
	line net.Conn
}

// popLogin connects and logs in. An error that is the server's answer begins with it.
func popLogin(address, user, password string) (*popClient, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	c := &popClient{textproto.NewConn(conn), conn}
	if _, err = c.answer(); err == nil {
		if _, err = c.say("USER %s", user); err == nil {
			_, err = c.say("PASS %s", password)
		}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *popClient) answer() (string, error) {
	c.line.SetDeadline(time.Now().Add(postfixtest.Patience))
	line, err := c.ReadLine()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("%s", line)
	}
	return line, err
}

func (c *popClient) say(format string, args ...any) (string, error) {
	if err := c.PrintfLine(format, args...); err != nil {
		return "", err
	}
	return c.answer()
}

// fetch retrieves all messages, with LF line ends, and checks that each has the size that LIST says.
func (c *popClient) fetch() ([]string, error) {
	stat, err := c.say("STAT")
	if err != nil {
		return nil, err
	}
	var n int
	if _, err := fmt.Sscanf(stat, "+OK %d", &n); err != nil {
		return nil, err
	}
	all := []string{}
	for i := range n {
		listed, err := c.say("LIST %d", i+1)
		if err != nil {
			return nil, err
		}
		var size int
		if _, err := fmt.Sscanf(listed, "+OK %d %d", new(int), &size); err != nil {
			return nil, err
		}
		if _, err := c.say("RETR %d", i+1); err != nil {
			return nil, err
		}
		text, err := c.ReadDotBytes()
		if err != nil {
			return nil, err
		}
		if got := len(text) + strings.Count(string(text), "\n"); got != size {
			return nil, fmt.Errorf("message %d has %d octets, LIST says %d", i+1, got, size)
		}
		all = append(all, string(text))
	}
	return all, nil
}

// fetchAll logs in, retrieves everything and quits, with or without deleting it.
func fetchAll(address, user, password string, remove bool) ([]string, error) {
	all, _, err := fetchWithIDs(address, user, password, remove)
	return all, err
}

// fetchWithIDs is fetchAll that returns the unique-ids, too.
func fetchWithIDs(address, user, password string, remove bool) (all, ids []string, err error) {
	c, err := popLogin(address, user, password)
	if err != nil {
		return nil, nil, err
	}
	defer c.Close()
	if all, err = c.fetch(); err != nil {
		return nil, nil, err
	}
	for i := range all {
		id, err := c.say("UIDL %d", i+1)
		if err != nil {
			return nil, nil, err
		}
		ids = append(ids, id[strings.LastIndex(id, " ")+1:])
	}
	for i := range all {
		if remove {
			if _, err := c.say("DELE %d", i+1); err != nil {
				return nil, nil, err
			}
		}
	}
	_, err = c.say("QUIT")
	return all, ids, err
}
