package postfix

import (
	"context"

	"mailbag/cmd/internal/mta"
)

// Submit hands a message with the null sender (RFC 5321, section 4.5.5) to sendmail(1), which every MTA has. It is in
// the MTA's queue when Submit returns nil, and there it is whole or not at all, also when this process is killed.
func (in Instance) Submit(ctx context.Context, message string, to ...string) error {
	text, err := mta.Letter(message, to...)
	if err != nil {
		return err
	}
	defer text.Close()
	args := append([]string{"-i", "-f", "<>", "--"}, to...)
	_, err = in.runOn(ctx, text, "sendmail", args...)
	return err
}
