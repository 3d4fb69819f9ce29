package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"mailbag/meter"
)

const (
	maxListLine = 1024       // octets with the line end; an address has 320 at most (RFC 5321, section 4.5.3.1)
	maxList     = 10_000_000 // addresses
)

// A listLine is an address of a file, with where it stands.
type listLine struct {
	address meter.Address
	place   string // file:line
}

// readAddresses reads a file of addresses, one a line. Empty lines and lines that begin with # are passed
// over, and so is a byte order mark, which Windows programs write. The first bad line ends it with an
// error that names the line.
func readAddresses(r io.Reader, name string) iter.Seq2[listLine, error] {
	return func(yield func(listLine, error) bool) {
		b := bufio.NewReaderSize(r, maxListLine)
		listed := 0
		for number := 1; ; number++ {
			text, err := b.ReadSlice('\n')
			ended := errors.Is(err, io.EOF)
			if number == 1 {
				text = bytes.TrimPrefix(text, []byte("\ufeff"))
			}
			line := listLine{place: fmt.Sprintf("%s:%d", name, number)}
			address := strings.TrimSpace(string(text))
			switch {
			case errors.Is(err, bufio.ErrBufferFull):
				yield(line, fmt.Errorf("%s: the line is longer than %d octets", line.place, maxListLine))
				return
			case err != nil && !ended:
				yield(line, fmt.Errorf("%s: the list cannot be read further: %w", line.place, err))
				return
			case address == "" || address[0] == '#':
			case listed == maxList:
				yield(line, fmt.Errorf("%s: the list has more than %d addresses", line.place, maxList))
				return
			default:
				listed++
				if line.address, err = meter.ParseAddress(address); err != nil {
					yield(line, fmt.Errorf("%s: %w", line.place, err))
					return
				}
				if !yield(line, nil) {
					return
				}
			}
			if ended {
				return
			}
		}
	}
}
