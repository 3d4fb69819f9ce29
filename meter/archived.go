package meter

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
)

// ErrEvidence is of a file of evidence that is not there, or not as it was written.
var ErrEvidence = errors.New("evidence is missing")

// archive is what the ledger knows of a file.
type archive struct {
	day      string
	host     int64
	messages int64 // rows
	octets   int64
	sha256   [sha256.Size]byte
	at       int64
	cleared  bool // nothing of it is in the ledger
}

func (a archive) name() string {
	if a.host == 1 {
		return a.day + ".csv.gz"
	}
	return fmt.Sprintf("%s.%d.csv.gz", a.day, a.host)
}

// archives are the files of the days from one to another, in order.
func (l *Ledger) archives(ctx context.Context, first, last string) (list []archive, err error) {
	return list, l.read(ctx, current, archivesInto(&list, first, last))
}

func archivesInto(list *[]archive, first, last string) query {
	return query{statement{`
		SELECT day, host, messages, octets, sha256, at, cleared FROM archive WHERE day BETWEEN ? AND ? ORDER BY day, host`,
		[]any{first, last}}, func(r scanner) error {
		var a archive
		var digest []byte
		err := r.Scan(&a.day, &a.host, &a.messages, &a.octets, &digest, &a.at, &a.cleared)
		copy(a.sha256[:], digest)
		*list = append(*list, a)
		return err
	}}
}

// verify returns nil where a file is as it was written; else the error is an ErrEvidence.
func (l *Ledger) verify(a archive) error {
	digest, err := digestOf(l.evidencePath(a))
	if err == nil && digest != a.sha256 {
		err = fmt.Errorf("%s is not as it was written", l.evidencePath(a))
	}
	return l.lackingEvidence(a, err)
}

// lackingEvidence makes an error that of a file. That one of another host is not here is no fault: it lacks in what is read here.
func (l *Ledger) lackingEvidence(a archive, err error) error {
	switch {
	case err == nil || errors.Is(err, ErrEvidence):
		return err
	case a.host != l.opt.Host && errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w here, that of %s for %d messages: it is on host %d; ask there, or copy it to %s", ErrEvidence, a.day, a.messages, a.host, l.evidencePath(a))
	}
	return fmt.Errorf("%w, that of %s for %d messages: %w; restore the file from a backup", ErrEvidence, a.day, a.messages, err)
}

// readEvidence reads a file row by row, and notes its size and digest.
func (l *Ledger) readEvidence(a *archive, row func(evidenceRow) error) error {
	f, err := os.Open(l.evidencePath(*a))
	if err != nil {
		return err
	}
	defer f.Close()
	digest := sha256.New()
	whole := io.TeeReader(f, digest)
	r, err := newEvidenceReader(whole)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	for {
		next, err := r.read()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		if err := row(next); err != nil {
			return err
		}
	}
	if _, err := io.Copy(io.Discard, whole); err != nil {
		return err
	}
	a.octets, err = f.Seek(0, io.SeekCurrent)
	a.sha256 = [sha256.Size]byte(digest.Sum(nil))
	return err
}
