package postfixtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Dialogue plays the script in file with the server at addr, from the loopback address source ("": 127.0.0.1). The
// connection is closed at the end of the script. In a script,
//
//	-> text     sends text and CRLF
//	<- text     reads one whole reply, and one of its lines has to start with text
//	<x          the server has to close the connection
//	#           is a comment
//
// and $NAME or ${NAME} is replaced from vars. The error names the line of the script.
func Dialogue(addr, source, file string, vars map[string]string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c, err := connect(addr, source)
	if err != nil {
		return err
	}
	defer c.Close()
	for i, line := range strings.Split(string(text), "\n") {
		if err := c.play(line, vars); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", file, i+1, line, err)
		}
	}
	return nil
}

func (c *Client) play(line string, vars map[string]string) error {
	line = os.Expand(line, func(name string) string { return vars[name] })
	verb, text, _ := strings.Cut(line, " ")
	switch {
	case line == "" || strings.HasPrefix(line, "#"):
		return nil
	case verb == "->":
		_, err := c.Write([]byte(text + "\r\n"))
		return err
	case verb == "<-":
		reply, err := c.Reply()
		if err != nil {
			return err
		}
		for _, l := range strings.Split(reply, "\n") {
			if strings.HasPrefix(l, text) {
				return nil
			}
		}
		return fmt.Errorf("the server said %q", reply)
	case verb == "<x":
		reply, err := c.Reply()
		if errors.Is(err, io.EOF) && reply == "" {
			return nil
		}
		return fmt.Errorf("the server did not close the connection but said %q (%v)", reply, err)
	default:
		return errors.New("not a line of a dialogue; it starts with ->, <-, <x or #")
	}
}
