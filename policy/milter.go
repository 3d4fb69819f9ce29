package policy

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"mailbag/meter"
	"mailbag/meter/door"

	"github.com/d--j/go-milter"
)

// unwanted is the part of the milter protocol that the tap does without: steps that tell it nothing,
// and replies to all steps but the last.
const unwanted = milter.OptNoHelo | milter.OptNoUnknown | milter.OptNoData | milter.OptNoEOH |
	milter.OptNoReplies | milter.OptHeaderLeadingSpace

// serveMilter is the session of one milter client, which is one SMTP session. Each has a library
// server of its own, so that it starts and ends with its connection.
func (p *Policy) serveMilter(ctx context.Context, c *conn) error {
	peer := &milterConn{conn: c}
	library := milter.NewServer(
		milter.WithMilter(func() milter.Milter { return &tap{policy: p, ctx: context.WithoutCancel(ctx), conn: c} }),
		milter.WithMacroRequest(milter.StageRcpt, []milter.MacroName{milter.MacroRcptAddr}),
		milter.WithMacroRequest(milter.StageEOM, []milter.MacroName{milter.MacroQueueId}),
		milter.WithNegotiationCallback(negotiate),
	)
	_ = library.Serve(door.Sole(peer)) // its error is that there is no second connection
	return peer.err
}

// negotiate takes what the MTA offers of what we want, so that an older milter_protocol works too,
// only slower. Refused recipients (OptRcptRej) are never asked for.
func negotiate(mtaVersion, ours uint32, mtaActions, actions milter.OptAction, mtaSteps, _ milter.OptProtocol, size milter.DataSize) (uint32, milter.OptAction, milter.OptProtocol, milter.DataSize, error) {
	if mtaVersion < 2 {
		return 0, 0, 0, 0, fmt.Errorf("the MTA speaks milter version %d, mailbag needs 2 or above", mtaVersion)
	}
	return min(mtaVersion, ours), mtaActions & actions, mtaSteps & unwanted, size, nil
}

// A tap records the messages of one SMTP session as they were accepted: with the recipients that
// remained, at the end of the message, after every milter before it had its say.
//
// Its size of a message is that of the header and the body as the queue file has them at that moment,
// each line with CRLF and the empty line between counted once. That is what size= says at
// END-OF-MESSAGE, except that: headers which Postfix or an earlier milter added or changed count as
// they are now, save for Postfix's own Received and those it adds when missing; white space before a
// header's colon does not count; the empty line counts also where the message has none; and a line
// longer than line_length_limit (2,048) counts as it is, where size= adds two octets for each piece
// into which Postfix cuts it, and 16 where it hides a leading From_ line.
//
// A recipient that an earlier milter deletes after it was accepted still counts: its sender was told
// that it is accepted. When a session breaks between the commit and our answer, the sender will send
// again and the message counts twice; nothing in the milter protocol tells the two apart.
type tap struct {
	milter.NoOpMilter
	policy *Policy
	ctx    context.Context
	conn   *conn
	client string

	begun    time.Time // MAIL FROM
	accounts []int64   // without repeats
	domains  []string  // of theirs, likewise, where an account has several
	unread   bool      // a recipient could not be read, because the ledger never was
	size     int64
}

func (t *tap) Connect(_, _ string, _ uint16, address string, _ milter.Modifier) (*milter.Response, error) {
	t.client = ""
	if addr, err := netip.ParseAddr(strings.Trim(address, "[]")); err == nil {
		t.client = addr.Unmap().String()
	}
	return milter.RespContinue, nil
}

func (t *tap) MailFrom(string, string, milter.Modifier) (*milter.Response, error) {
	t.reset()
	t.begun = t.policy.now()
	t.conn.busy.Store(true)
	return milter.RespContinue, nil
}

// RcptTo notes whose the recipient is. Postfix says in a macro what it resolved the address to; without
// it the address is read as the client wrote it.
func (t *tap) RcptTo(address, _ string, m milter.Modifier) (*milter.Response, error) {
	directory := t.policy.cfg.Accounts.Directory()
	if directory == nil {
		t.unread = true
		return milter.RespContinue, nil
	}
	if resolved := m.Get(milter.MacroRcptAddr); resolved != "" {
		address = resolved
	}
	address = unquoted(address)
	a := readRecipient(directory, address).account
	if a == nil {
		return milter.RespContinue, nil
	}
	if !slices.Contains(t.accounts, a.ID) {
		t.accounts = append(t.accounts, a.ID)
	}
	if domain := ownDomain(a, address); domain != "" && !slices.Contains(t.domains, domain) {
		t.domains = append(t.domains, domain)
	}
	return milter.RespContinue, nil
}

func (t *tap) Header(name, value string, m milter.Modifier) (*milter.Response, error) {
	t.size += int64(len(name) + len(":") + len(value) + len("\r\n"))
	if m.Protocol()&milter.OptHeaderLeadingSpace == 0 {
		t.size++ // the MTA ate the space
	}
	for i := 0; i < len(value); i++ { // lines within a header come with a bare LF
		if value[i] == '\n' && (i == 0 || value[i-1] != '\r') {
			t.size++
		}
	}
	return milter.RespContinue, nil
}

func (t *tap) BodyChunk(chunk []byte, _ milter.Modifier) (*milter.Response, error) {
	t.size += int64(len(chunk))
	return milter.RespContinue, nil
}

func (t *tap) EndOfMessage(m milter.Modifier) (*milter.Response, error) {
	defer t.reset()
	p := t.policy
	if t.unread || len(t.accounts) > 0 && p.cfg.Accounts.Available() != nil {
		p.metrics.messages["deferred"].Inc()
		return unaccounted()
	}
	if len(t.accounts) == 0 {
		p.metrics.messages["foreign"].Inc()
		return milter.RespContinue, nil
	}
	queueID := m.Get(milter.MacroQueueId)
	accounts := p.accountsByID(t.accounts)
	size := t.size + int64(len("\r\n"))
	d, settle := p.admit(t.ctx, accounts, size)
	switch {
	case d.kind == limited:
		p.metrics.messages["limited"].Inc()
		// Whether it is good for others the tap cannot tell; sent again, each recipient has its own answer.
		return milter.RejectWithCodeAndReason(452, strings.TrimPrefix(limitDeferred.action, "452 "))
	case d != dunno:
		p.metrics.messages["deferred"].Inc()
		return unaccounted()
	}
	defer settle()
	err := p.cfg.Recorder.Record(t.ctx, meter.Message{
		// Short queue IDs come again; the time of MAIL FROM does not.
		Instance: fmt.Sprintf("milter:%s@%d", queueID, t.begun.UnixNano()),
		QueueID:  queueID,
		Size:     size,
		Client:   t.client,
		At:       p.now(),
		Accounts: accounts,
		Domains:  t.domains,
	})
	if err != nil {
		p.metrics.messages["deferred"].Inc()
		p.reportUnrecorded(queueID, err)
		return unaccounted()
	}
	p.metrics.messages["recorded"].Inc()
	return milter.RespContinue, nil
}

func (t *tap) Abort(milter.Modifier) error {
	t.reset()
	return nil
}

func (t *tap) NewConnection(milter.Modifier) error {
	t.reset()
	return nil
}

func (t *tap) reset() {
	t.begun, t.accounts, t.domains, t.unread, t.size = time.Time{}, nil, nil, false, 0
	t.conn.busy.Store(false)
}

func unaccounted() (*milter.Response, error) {
	return milter.RejectWithCodeAndReason(451, "4.3.0 Mail cannot be accounted for at the moment, please try again later")
}

// unquoted turns an address as SMTP writes it into the internal form in which policy requests have it.
func unquoted(address string) string {
	address = strings.TrimSuffix(strings.TrimPrefix(address, "<"), ">")
	if !strings.HasPrefix(address, `"`) {
		return address
	}
	var b strings.Builder
	for i, within := 0, false; i < len(address); i++ {
		switch c := address[i]; {
		case c == '"':
			within = !within
		case c == '\\' && within && i+1 < len(address):
			i++
			b.WriteByte(address[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
