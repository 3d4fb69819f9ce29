package postfix

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
)

// Submit hands a message with the null sender (RFC 5321, section 4.5.5) to sendmail(1), which every MTA has. It is in
// the MTA's queue when Submit returns nil, and there it is whole or not at all, also when this process is killed.
func (in Instance) Submit(ctx context.Context, message string, to ...string) error {
	if len(to) == 0 {
		return errors.New("a message without recipients cannot be submitted")
	}
	text, err := wholeText(strings.ReplaceAll(message, "\r\n", "\n"))
	if err != nil {
		return err
	}
	defer text.Close()
	args := append([]string{"-i", "-f", "<>", "--"}, to...)
	_, err = in.runOn(ctx, text, "sendmail", args...)
	return err
}

// wholeText is a file without a name that has the text. For sendmail(1) the end of a pipe is the end of a message,
// also where it ends because its writer died.
func wholeText(text string) (*os.File, error) {
	f, err := os.CreateTemp("", "mailbag-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
