package postfix

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"

	"mailbag/cmd/internal/answer"
	"mailbag/cmd/internal/mta"
)

// Answers returns nil when mailbag-policyd answers at both of the sockets at which this Postfix asks it, for the user as whom
// Postfix's processes run, before ctx ends. The error is mta.ErrSilent with the first that does not, mta.ErrMissing or mta.ErrBroken. Needs root.
func (in Instance) Answers(ctx context.Context, _ mta.Needs) error {
	out, err := in.run(ctx, "", "postconf", "-x", "queue_directory", "mail_owner")
	if err != nil {
		if errors.Is(err, mta.ErrMissing) {
			return err
		}
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	c := configuration{expanded: assignments(out)}
	for _, s := range asked {
		if err := s.ask(ctx, c); err != nil {
			return fmt.Errorf("%w: %w", errSilent, err)
		}
	}
	return nil
}

// A socket is one of mailbag-policyd's, by its name in the queue directory, and what it is asked there.
type socket struct {
	name     string
	question answer.Question
}

// asked are the sockets. The milter is offered what a client of version 6 without any actions and steps offers first, and
// answers with as many octets; SMFIC_QUIT leaves it.
var asked = []socket{
	{PolicySocket, answer.Policy},
	{MilterSocket, answer.Question{Text: packet("O\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00"), Answer: "\x00\x00\x00\x0dO", Farewell: packet("Q")}},
}

func packet(content string) string {
	return string(binary.BigEndian.AppendUint32(nil, uint32(len(content)))) + content
}

// ask asks as smtpd and cleanup do.
func (s socket) ask(ctx context.Context, c configuration) error {
	return s.question.Ask(ctx, filepath.Join(c.expanded["queue_directory"], s.name), c.expanded["mail_owner"], "Postfix's mail_owner")
}
