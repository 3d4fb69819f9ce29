package meter

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// evidenceRow is the evidence of a message for one account, as a file has it.
type evidenceRow struct {
	account  int64
	at       int64
	instance string
	queueID  string
	size     int64
	client   string
	domains  string // JSON
}

func (r evidenceRow) less(other evidenceRow) bool {
	return r.account < other.account || r.account == other.account &&
		(r.at < other.at || r.at == other.at && r.instance < other.instance)
}

// evidenceColumns are the first line of a file. In the others stands what differs from the row before, because a row is to cost
// little: the account where it is another; the milliseconds since the account's row before, or since 1970; the queue ID with
// the seconds in it as how long ago they were ([shorten]); the instance by what it has beyond the queue ID ([brief]); the
// domains where they are others, and a hyphen for none.
var evidenceColumns = []string{"account", "ms", "queue_id", "bytes", "client", "instance", "domains"}

const noDomains = "-"

// An evidenceWriter writes rows, in the order of [evidenceRow.less], as CSV (RFC 4180) in gzip (RFC 1952). The same rows
// make the same octets.
type evidenceWriter struct {
	zip  *gzip.Writer
	csv  *csv.Writer
	last evidenceRow
}

func newEvidenceWriter(to io.Writer) (*evidenceWriter, error) {
	zip, err := gzip.NewWriterLevel(to, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	w := &evidenceWriter{zip: zip, csv: csv.NewWriter(zip)}
	return w, w.csv.Write(evidenceColumns)
}

func (w *evidenceWriter) write(r evidenceRow) error {
	account := ""
	if r.account != w.last.account {
		account, w.last = strconv.FormatInt(r.account, 10), evidenceRow{}
	}
	domains := ""
	if r.domains != w.last.domains {
		domains = namesOf(r.domains)
	}
	err := w.csv.Write([]string{account, strconv.FormatInt(r.at-w.last.at, 10), shorten(r.queueID, r.at), strconv.FormatInt(r.size, 10), r.client,
		brief(r), domains})
	w.last = r
	return err
}

func (w *evidenceWriter) close() error {
	w.csv.Flush()
	return errors.Join(w.csv.Error(), w.zip.Close())
}

// errNotEvidence is with what is no file of evidence.
var errNotEvidence = errors.New("it is no file of evidence")

// An evidenceReader reads what an evidenceWriter wrote.
type evidenceReader struct {
	csv  *csv.Reader
	last evidenceRow
}

func newEvidenceReader(from io.Reader) (*evidenceReader, error) {
	zip, err := gzip.NewReader(bufio.NewReader(from))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotEvidence, err)
	}
	r := &evidenceReader{csv: csv.NewReader(zip)}
	r.csv.ReuseRecord, r.csv.FieldsPerRecord = true, len(evidenceColumns)
	if columns, err := r.csv.Read(); err != nil || !slices.Equal(columns, evidenceColumns) {
		return nil, errors.Join(errNotEvidence, err)
	}
	return r, nil
}

// read returns the next row, and io.EOF behind the last one, after gzip's sum of all was found right.
func (r *evidenceReader) read() (evidenceRow, error) {
	f, err := r.csv.Read()
	if err != nil {
		return evidenceRow{}, err
	}
	next, err := r.row(f)
	if err != nil || !r.last.less(next) {
		line, _ := r.csv.FieldPos(0)
		return evidenceRow{}, errors.Join(fmt.Errorf("%w: line %d", errNotEvidence, line), err)
	}
	r.last = next
	return next, nil
}

func (r *evidenceReader) row(f []string) (next evidenceRow, err error) {
	last := r.last
	if f[0] != "" {
		last = evidenceRow{}
		if last.account, err = strconv.ParseInt(f[0], 10, 64); err != nil {
			return next, err
		}
	}
	ms, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return next, err
	}
	next = evidenceRow{account: last.account, at: last.at + ms, client: strings.Clone(f[4]), domains: last.domains}
	if next.size, err = strconv.ParseInt(f[3], 10, 64); err != nil {
		return next, err
	}
	if next.queueID, err = lengthen(f[2], next.at); err != nil {
		return next, err
	}
	if next.instance, err = full(f[5], next); err != nil {
		return next, err
	}
	if f[6] != "" {
		next.domains = domainsIn(f[6])
	}
	return next, nil
}

// Long queue IDs of Postfix and message IDs of Exim begin with six digits for the second in which they were made. In a file
// stands how many seconds ago that was, where it is one digit, and behind it whose digits they are.
var idSeconds = []struct{ mark, digits string }{
	{":", "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"},           // Postfix
	{".", "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"}, // Exim
}

// asItIs stands before what is not made shorter, and could be taken for what is.
const (
	asItIs = "="
	marks  = ":.="
)

func shorten(id string, at int64) string {
	for ago := range int64(10) {
		for _, of := range idSeconds {
			if rest, is := strings.CutPrefix(id, inDigits(at/1000-ago, of.digits)); is && !strings.ContainsAny(rest, marks) {
				return strconv.FormatInt(ago, 10) + of.mark + rest
			}
		}
	}
	if strings.ContainsAny(id, marks) {
		return asItIs + id
	}
	return id
}

func lengthen(short string, at int64) (string, error) {
	if id, is := strings.CutPrefix(short, asItIs); is {
		return strings.Clone(id), nil
	}
	for _, of := range idSeconds {
		if seconds, rest, is := strings.Cut(short, of.mark); is {
			ago, err := strconv.ParseInt(seconds, 10, 64)
			return inDigits(at/1000-ago, of.digits) + rest, err
		}
	}
	return strings.Clone(short), nil
}

func inDigits(n int64, digits string) string {
	var text [6]byte
	n = max(0, n)
	for i := range text {
		text[len(text)-1-i] = digits[n%int64(len(digits))]
		n /= int64(len(digits))
	}
	return string(text[:])
}

// brief is the instance of a row whose time and queue ID are known: "@exim" for its queue ID and that, and where a time
// stands there in hexadecimal digits, by how much the row's is later, in milliseconds, or in nanoseconds ("ns").
func brief(r evidenceRow) string {
	rest, is := strings.CutPrefix(r.instance, r.queueID+"@")
	if !is {
		return asItIs + r.instance
	}
	begun, err := strconv.ParseInt(rest, 16, 64)
	if err != nil || strconv.FormatInt(begun, 16) != rest {
		return "@" + rest
	}
	if begun < 1e15 {
		return strconv.FormatInt(r.at-begun, 10)
	}
	return strconv.FormatInt(r.at*1e6-begun, 10) + "ns"
}

// full is the instance of a row, by how it is in brief.
func full(brief string, r evidenceRow) (string, error) {
	if instance, is := strings.CutPrefix(brief, asItIs); is {
		return strings.Clone(instance), nil
	}
	if strings.HasPrefix(brief, "@") {
		return r.queueID + brief, nil
	}
	at := r.at
	digits, isFine := strings.CutSuffix(brief, "ns")
	if isFine {
		at *= 1e6
	}
	later, err := strconv.ParseInt(digits, 10, 64)
	return r.queueID + "@" + strconv.FormatInt(at-later, 16), err
}

// namesOf is how a list of domains stands in a file: JSON only where names with blanks between them do not tell it.
func namesOf(text string) string {
	var domains []string
	if json.Unmarshal([]byte(text), &domains) != nil {
		return text
	}
	listed := strings.Join(domains, " ")
	if listed == "" {
		listed = noDomains
	}
	if domainsIn(listed) != text {
		return text
	}
	return listed
}

func domainsIn(listed string) string {
	switch {
	case listed == noDomains:
		return "[]"
	case strings.HasPrefix(listed, "["):
		return strings.Clone(listed)
	}
	return asJSON(strings.Fields(listed))
}
