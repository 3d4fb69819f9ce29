package meter

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
)

// A fence is what stands between a recorder and the one after it on the same file of messages under way. A node of rqlite that was
// stopped with a batch in its hands may hand it on when it goes on, long after the recorder of the batch was killed and its messages
// were taken back. So each batch fails once its fence is burnt, and whoever comes next burns that of its predecessor before
// anything else. The newest fence that was burnt stays in table applied for good, behind all tokens.
type fence struct {
	owner  string // the file
	number int64  // 0: there is none
}

// after is the next one.
func (f fence) after() fence {
	if f.owner == "" {
		f.owner = rand.Text()
	}
	return fence{f.owner, f.number + 1}
}

const fences = "fence-"

// token is what is in the ledger of a fence that was burnt. Those of a file are in the order of their numbers.
func (f fence) token() string { return fmt.Sprintf("%s%s-%010d", fences, f.owner, f.number) }

// burn makes the statements after which no batch behind the fence, or one before it, will be done.
func (f fence) burn() []statement {
	return []statement{
		{"INSERT OR IGNORE INTO applied (token) VALUES (?)", []any{f.token()}},
		{"DELETE FROM applied WHERE token >= ? AND token < ?", []any{fence{f.owner, 0}.token(), f.token()}},
	}
}

// guard makes the statement by which a batch fails once the fence is burnt, or one after it.
func (f fence) guard() statement {
	return statement{"INSERT INTO applied (token) SELECT NULL FROM applied WHERE token >= ? AND token < ?", []any{f.token(), fences + f.owner + "."}}
}

// isBurnt reports whether a batch failed because its fence is burnt.
func isBurnt(err error) bool { return violates(err, "NOT NULL constraint failed: applied.token") }

// line is a fence as the file has it.
func (f fence) line() []byte {
	return fmt.Appendf(nil, "%-*s\n", lineLength-1, fmt.Sprintf("fence %s %d", f.owner, f.number))
}

// readFence reads what line writes; what is none is the zero value.
func readFence(line []byte) fence {
	f := strings.Fields(string(line))
	if len(f) != 3 || f[0] != "fence" || strings.Trim(f[1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
		return fence{}
	}
	number, err := strconv.ParseInt(f[2], 10, 32)
	if err != nil || number <= 0 {
		return fence{}
	}
	return fence{f[1], number}
}

// enclose sees to it that the recorder is behind a fence, and that the one before it is burnt: that of the recorder before this one,
// or its own after a batch of which it is not known whether it was done.
func (r *Recorder) enclose() error {
	if r.fence != (fence{}) && !r.spent || !r.ledger.engine.late() {
		return nil
	}
	former, err := r.underway.fenced()
	if err == nil && former != (fence{}) {
		err = r.ledger.batch(context.Background(), former.burn()...)
	}
	if err == nil {
		err = r.raise(former.after())
	}
	return err
}

// move goes behind a fence of another owner, because somebody has burnt the recorder's own: who has a copy of its file.
func (r *Recorder) move() error { return r.raise(fence{}.after()) }

func (r *Recorder) raise(f fence) error {
	err := r.underway.raise(f)
	if err == nil {
		r.fence, r.spent = f, false
	}
	return err
}

// behind puts the statements of a batch behind the fence.
func (r *Recorder) behind(batch []statement) []statement {
	if r.fence == (fence{}) {
		return batch
	}
	return append([]statement{r.fence.guard()}, batch...)
}
