package postfix

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"mailbag/cmd/internal/wholefile"
)

// FormerFile is the name, in Postfix's configuration directory, of the file that keeps what setup replaced.
const FormerFile = "mailbag-former.json"

// former is what setup found and what it wrote instead.
type former struct {
	Main   map[string]formerLine `json:"main"`   // by parameter
	Master map[string]formerLine `json:"master"` // by service/type
}

type formerLine struct {
	Set  bool   `json:"set"`           // it was there; false: Postfix's default, or no such service
	Was  string `json:"was,omitempty"` // its text
	Ours string `json:"ours"`          // what setup wrote
}

func (in Instance) formerPath(ctx context.Context) (string, error) {
	dir := in.ConfigDir
	if dir == "" {
		out, err := in.run(ctx, "", "postconf", "-xh", "config_directory")
		if err != nil {
			return "", err
		}
		dir = strings.TrimSpace(out)
	}
	return filepath.Join(dir, FormerFile), nil
}

// readFormer reads the file; none is the same as an empty one.
func readFormer(path string) (former, error) {
	var f former
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("cannot read the former values of Postfix: %w", err)
	}
	if err := json.Unmarshal(text, &f); err != nil {
		return f, fmt.Errorf("%s does not hold the former values of Postfix; move it away, then a removal takes out our entries only: %w", path, err)
	}
	return f, nil
}

// write replaces the file, or removes it when there is nothing to remember.
func (f former) write(path string) error {
	if len(f.Main) == 0 && len(f.Master) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot remove the former values of Postfix: %w", err)
		}
		return nil
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = wholefile.Replace(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the former values of Postfix: %w", err)
	}
	return nil
}
