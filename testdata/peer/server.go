package peer

import (
	"errors"
	"net"
	"os"
	"path/filepath"

	postfixtest "mailbag/testdata/postfix"
)

// answers waits until somebody listens at addr.
func answers(addr string) error {
	return postfixtest.Wait("an answer at "+addr, func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// maildir reads the new messages of a Maildir, which is not there before the first.
func maildir(path string) ([][]byte, error) {
	entries, err := os.ReadDir(filepath.Join(path, "new"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var all [][]byte
	for _, f := range entries {
		text, err := os.ReadFile(filepath.Join(path, "new", f.Name()))
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, err
}
