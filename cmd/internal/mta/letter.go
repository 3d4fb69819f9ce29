package mta

import (
	"errors"
	"io"
	"os"
	"strings"
)

// Letter is what sendmail(1) gets of a message to some recipients: a file without a name, with LF line ends, to be read from its
// beginning. The end of a pipe would be the end of the message also where its writer died.
func Letter(message string, to ...string) (*os.File, error) {
	if len(to) == 0 {
		return nil, errors.New("a message without recipients cannot be submitted")
	}
	f, err := os.CreateTemp("", "mailbag-")
	if err != nil {
		return nil, err
	}
	err = os.Remove(f.Name())
	if err == nil {
		_, err = f.WriteString(strings.ReplaceAll(message, "\r\n", "\n"))
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
