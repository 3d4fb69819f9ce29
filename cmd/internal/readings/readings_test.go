package readings

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

const disk = `# HELP mailbag_disk_free_ratio Share of a file system's space, or of its inodes, that is free.
# TYPE mailbag_disk_free_ratio gauge
mailbag_disk_free_ratio{directory="/var/\"spool\"",of="space"} 0.25
`

const timestamp = `# HELP mailbag_doctor_timestamp_seconds When the doctor examined the service last, Unix time.
# TYPE mailbag_doctor_timestamp_seconds gauge
mailbag_doctor_timestamp_seconds 1.7e+09
`

func TestReadingsAreShownAsTheyWereNoted(t *testing.T) {
	t.Parallel()
	s := NewSheet()
	s.Set(Timestamp, nil, 1.7e9)
	s.Set("mailbag_disk_free_ratio", prometheus.Labels{"of": "space", "directory": `/var/"spool"`}, 0.25)
	var text bytes.Buffer
	if err := s.Write(&text); err != nil || text.String() != disk+timestamp {
		t.Errorf("written were %v\n%s", err, text.String())
	}
	if err := testutil.GatherAndCompare(fileOf(t, text.String()), strings.NewReader(disk+timestamp)); err != nil {
		t.Error(err)
	}
}

func TestFileThatIsNotTheDoctorsShowsNothing(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]File{
		"none":                   File(filepath.Join(t.TempDir(), "none")),
		"a directory":            File(t.TempDir()),
		"a pipe":                 File(pipe),
		"an endless file":        "/dev/zero",
		"an empty file":          fileOf(t, ""),
		"a huge file":            fileOf(t, timestamp+strings.Repeat("#\n", maxFile/2)),
		"no metrics":             fileOf(t, "<html>\n"),
		"cut off in a line":      fileOf(t, disk+timestamp[:len(timestamp)-8]+"e"),
		"a value that is twice":  fileOf(t, timestamp+"mailbag_doctor_timestamp_seconds 1\n"),
		"no gauge":               fileOf(t, strings.ReplaceAll(timestamp, "gauge", "counter")),
		"another's metric":       fileOf(t, "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1\n"),
		"a metric of the daemon": fileOf(t, "# TYPE mailbag_accounts gauge\nmailbag_accounts 1\n"),
	} {
		if there, err := f.Gather(); err != nil || len(there) > 0 {
			t.Errorf("%s: %v, %v", name, there, err)
		}
	}
}

func fileOf(t *testing.T, text string) File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "metrics.prom")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return File(path)
}

func TestUnitWritesTheFileThatIsRead(t *testing.T) {
	t.Parallel()
	unit, err := os.ReadFile("../../../packaging/systemd/mailbag-doctor.service")
	if err != nil {
		t.Fatal(err)
	}
	if want := "--metrics " + string(Default) + "\n"; !strings.Contains(string(unit), want) {
		t.Errorf("%q is not in\n%s", want, unit)
	}
}
