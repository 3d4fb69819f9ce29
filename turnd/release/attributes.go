package release

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Postfix's programs talk in lists of attributes: name, NUL, value, NUL, and one more NUL at the end of a
// list (its attr_print0(3)).

// attributes returns a list of names and values in turn. They must not hold NUL.
func attributes(pairs ...string) []byte {
	var b []byte
	for _, s := range pairs {
		b = append(b, s...)
		b = append(b, 0)
	}
	return append(b, 0)
}

// flushProtocol is what flush(8) announces, in a list of its own before it is asked, since Postfix 3.6.
const flushProtocol = "queue_flush_protocol"

// maxAnswer bounds what is read of flush(8), in octets. A real answer has some 50.
const maxAnswer = 1 << 10

// A status is how flush(8) answers.
type status int

const (
	statusOK   status = 0 // done, or nothing was to be done
	statusBad  status = 3 // not a queue ID, not a domain
	statusDeny status = 4 // the domain is not in fast_flush_domains
)

var errDenied = errors.New("Postfix keeps no log of that domain's mail: it is not in fast_flush_domains")

func (s status) err() error {
	switch s {
	case statusOK:
		return nil
	case statusBad:
		return errors.New("Postfix does not take the request as valid")
	case statusDeny:
		return errDenied
	}
	return fmt.Errorf("Postfix could not do it (status %d); its log says why", s)
}

// readStatus reads lists of attributes up to the one that has the status.
func readStatus(r io.Reader) (status, error) {
	b := bufio.NewReader(io.LimitReader(r, maxAnswer))
	for {
		name, err := readString(b)
		if err != nil {
			return 0, err
		}
		if name == "" {
			continue // end of a list
		}
		value, err := readString(b)
		if err != nil {
			return 0, err
		}
		switch name {
		case "protocol":
			if value != flushProtocol {
				return 0, fmt.Errorf("it speaks %.40q and not %s", value, flushProtocol)
			}
		case "status":
			n, err := strconv.ParseInt(value, 10, 32)
			if err != nil {
				return 0, fmt.Errorf("its status %.40q is not a number", value)
			}
			return status(n), nil
		}
	}
}

func readString(b *bufio.Reader) (string, error) {
	s, err := b.ReadString(0)
	if err == io.EOF {
		return "", io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", err
	}
	return s[:len(s)-1], nil
}
