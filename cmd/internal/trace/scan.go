package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"sync"
	"time"
)

const (
	blockSize = 1 << 20
	// maxLine is how long a line may be that is looked at, in octets. Postfix's own have 2,000 and Exim's 8,192 at most.
	maxLine = 16 << 10
)

// A block is a number of whole lines.
type block struct {
	text []byte
	now  time.Time // when they were there at the latest
}

// lines are those that are not too long, without their ends.
func (b block) lines() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for text := b.text; len(text) > 0; {
			line, rest, _ := bytes.Cut(text, []byte{'\n'})
			text = rest
			if len(line) <= maxLine && !yield(line) {
				return
			}
		}
	}
}

// scan reads the sources that have something since then. As many blocks are read at a time as there are processors; what is
// made of them is taken in the order of the log.
func scan[R any](ctx context.Context, s *Search, since time.Time, read func(block) R, take func(R)) error {
	ctx, cancel := context.WithCancel(ctx)
	results := make(chan chan R, runtime.GOMAXPROCS(0))
	var failed error
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	reading.Go(func() {
		defer close(results)
		for _, source := range s.Sources {
			if source.Until.Before(since) {
				continue
			}
			failed = source.blocks(ctx, since, s.progress, func(b block) {
				result := make(chan R, 1)
				select {
				case results <- result:
				case <-ctx.Done():
					return
				}
				reading.Go(func() {
					result <- read(b)
					blocks.Put(&b.text)
				})
			})
			if failed != nil {
				return
			}
		}
	})
	for result := range results {
		take(<-result)
	}
	return failed // written before results is closed
}

func (s *Search) progress(n int) {
	s.read += int64(n)
	if s.Progress != nil {
		s.Progress(s.read)
	}
}

var blocks = sync.Pool{New: func() any { return new([]byte) }}

// blocks cuts a source into whole lines. The rest of a line that is longer than a block is passed over.
func (s Source) blocks(ctx context.Context, since time.Time, progress func(int), each func(block)) error {
	in, err := s.open(since, progress)
	if err != nil {
		return err
	}
	defer in.Close()
	var rest []byte
	torn := false // what comes first is the rest of a line
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		text := *blocks.Get().(*[]byte)
		if cap(text) < blockSize {
			text = make([]byte, blockSize)
		}
		text = text[:blockSize]
		n := copy(text, rest)
		read, err := io.ReadFull(in, text[n:])
		text = text[:n+read]
		end := bytes.LastIndexByte(text, '\n') + 1
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		switch {
		case last:
			end = len(text)
		case err != nil:
			return fmt.Errorf("%s cannot be read to its end: %w", s.Name, err)
		}
		rest = append(rest[:0], text[end:]...)
		if end == 0 && !last {
			rest, torn = rest[:0], true
			continue
		}
		whole := text[:end]
		if torn {
			_, whole, _ = bytes.Cut(whole, []byte{'\n'})
			torn = false
		}
		each(block{whole, s.Until})
		if last {
			return in.Close()
		}
	}
}

var lowers = sync.Pool{New: func() any { return new([]byte) }}

// lowered is the text in lower case, as far as it is ASCII, for [lowers] again.
func lowered(text []byte) *[]byte {
	to := lowers.Get().(*[]byte)
	if cap(*to) < len(text) {
		*to = make([]byte, max(len(text), blockSize))
	}
	*to = (*to)[:len(text)]
	for i, c := range text {
		(*to)[i] = lower[c]
	}
	return to
}

// lowerCase is the same of a string.
func lowerCase(s string) string {
	to := lowered([]byte(s))
	defer lowers.Put(to)
	return string(*to)
}

var lower = func() (table [256]byte) {
	for i := range table {
		table[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			table[i] += 'a' - 'A'
		}
	}
	return table
}()
