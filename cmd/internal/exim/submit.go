package exim

import (
	"context"

	"mailbag/cmd/internal/mta"
)

// Submit hands a message with the null sender (RFC 5321, section 4.5.5) to Exim. It is in Exim's queue when Submit returns nil, and
// there it is whole or not at all, also when this process is killed. Exim delivers it at once, unless this process is in the way
// of that: then the next queue run does.
func (in Instance) Submit(ctx context.Context, message string, to ...string) error {
	text, err := mta.Letter(message, to...)
	if err != nil {
		return err
	}
	defer text.Close()
	args := []string{"-i", "-f", "<>"}
	if noNewPrivileges() {
		args = append(args, "-odq")
	}
	_, err = in.run(ctx, text, append(append(args, "--"), to...)...)
	return err
}
