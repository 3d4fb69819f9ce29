package postfix

import (
	"context"
	"errors"
	"strings"

	"mailbag/cmd/internal/wholefile"
)

// Submit hands a message with the null sender (RFC 5321, section 4.5.5) to sendmail(1), which every MTA has. It is in
// the MTA's queue when Submit returns nil, and there it is whole or not at all, also when this process is killed.
func (in Instance) Submit(ctx context.Context, message string, to ...string) error {
	if len(to) == 0 {
		return errors.New("a message without recipients cannot be submitted")
	}
	text, err := wholefile.Unnamed(strings.ReplaceAll(message, "\r\n", "\n"))
	if err != nil {
		return err
	}
	defer text.Close()
	args := append([]string{"-i", "-f", "<>", "--"}, to...)
	_, err = in.runOn(ctx, text, "sendmail", args...)
	return err
}
