package wholefile

import (
	"io"
	"os"
)

// Unnamed is a file without a name that has the text, to be read from its beginning. For sendmail(1) the end of a pipe is
// the end of a message, also where it ends because its writer died.
func Unnamed(text string) (*os.File, error) {
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
