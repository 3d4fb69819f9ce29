package postfix

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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
	Main   map[string]formerLine `json:"main"`            // by parameter
	Master map[string]formerLine `json:"master"`          // by service/type
	Files  map[string]formerFile `json:"files,omitempty"` // by name
}

type formerLine struct {
	Set  bool   `json:"set"`           // it was there; false: Postfix's default, or no such service
	Was  string `json:"was,omitempty"` // its text
	Ours string `json:"ours"`          // what setup wrote
}

// A formerFile is main.cf or master.cf. A removal puts it back whole where nobody but us has changed it since, for postconf
// keeps neither the line breaks of a list nor the comments in it.
type formerFile struct {
	Was  string `json:"was"`
	Ours string `json:"ours"` // the SHA-256 of what we made of it
}

// originals are the files as they were before the first setup, as far as nobody else has changed them since, in a Postfix
// whose files are now these, with or without something of ours in them.
func (f former) originals(now snapshot, wired bool) map[string]string {
	out := map[string]string{}
	for path, file := range now {
		name := filepath.Base(path)
		if !wired {
			out[name] = string(file.text)
		} else if kept, ok := f.Files[name]; ok && kept.Ours == digest(file.text) {
			out[name] = kept.Was
		}
	}
	return out
}

// keep remembers the originals of files that are now these.
func (f *former) keep(originals map[string]string, now snapshot) {
	f.Files = map[string]formerFile{}
	for path, file := range now {
		if was, ok := originals[filepath.Base(path)]; ok {
			f.Files[filepath.Base(path)] = formerFile{was, digest(file.text)}
		}
	}
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
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
	mode := fs.FileMode(0o644)
	for name := range f.Files {
		if st, err := os.Stat(filepath.Join(filepath.Dir(path), name)); err == nil {
			mode &= st.Mode() // what nobody else may read there, nobody else reads here
		}
	}
	text, err := json.MarshalIndent(f, "", "  ")
	if err == nil {
		err = wholefile.Replace(path, append(text, '\n'), mode)
	}
	if err != nil {
		return fmt.Errorf("cannot keep the former values of Postfix: %w", err)
	}
	return nil
}
