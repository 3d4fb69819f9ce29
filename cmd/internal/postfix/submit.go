package postfix

import (
	"context"
	"errors"
	"strings"
)

// Submit hands a message with the null sender (RFC 5321, section 4.5.5) to sendmail(1), which every MTA has. It is in
// the MTA's queue when Submit returns nil.
func (in Instance) Submit(ctx context.Context, message string, to ...string) error {
	if len(to) == 0 {
		return errors.New("a message without recipients cannot be submitted")
	}
	args := append([]string{"-i", "-f", "<>", "--"}, to...)
	_, err := in.run(ctx, strings.ReplaceAll(message, "\r\n", "\n"), "sendmail", args...)
	return err
}
