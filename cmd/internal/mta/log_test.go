package mta

import (
	"bytes"
	"testing"
	"time"
)

func TestTimesOfLogsAreRead(t *testing.T) {
	local := time.Local
	time.Local = time.FixedZone("", 3600)
	t.Cleanup(func() { time.Local = local })
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for line, want := range map[string]string{
		"Feb  3 10:15:44 mx x":                       "2026-02-03T09:15:44Z",
		"Nov 26 08:15:44 mx x":                       "2025-11-26T07:15:44Z", // not in the future
		"Feb 29 08:15:44 mx x":                       "2024-02-29T07:15:44Z",
		"Mar  1 13:00:10 mx x":                       "2026-03-01T12:00:10Z", // written while the log is read
		"2026-02-03T10:15:44.5+02:00 mx x":           "2026-02-03T08:15:44.5Z",
		"2026-02-03 10:15:44 1xWUcn-0001R7-0n x":     "2026-02-03T09:15:44Z",
		"2026-02-03 10:15:44.250 +0000 1xWUcn-0 x":   "2026-02-03T10:15:44.25Z",
		"1795680944.465959 mx postfix/qmgr[1]: x: y": "2026-11-26T08:15:44.465959Z",
	} {
		at, rest, ok := ReadStamp([]byte(line), now)
		if got := at.Format(time.RFC3339Nano); !ok || got != want || len(rest) == 0 {
			t.Errorf("%s was at %s, before %q", line, got, rest)
		}
	}
	for _, line := range []string{"", "Feb 30 10:15:44 mx x", "Feb  3 10:15:44", "2026-02-03", "2026-02-03T10:15:44 ", "1795680944 mx postfix", "99999999999999.000000 x", "level=INFO msg=started version=1"} {
		if at, _, ok := ReadStamp([]byte(line), now); ok {
			t.Errorf("%q was at %v", line, at)
		}
	}
}

func FuzzStamp(f *testing.F) {
	for _, line := range []string{"Feb  3 10:15:44 mx x", "2026-02-03T10:15:44.5+02:00 mx x", "2026-02-03 10:15:44.250 +0000 x", "1795680944.465959 mx x"} {
		f.Add([]byte(line))
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, line []byte) {
		_, rest, ok := ReadStamp(line, now)
		if ok && !bytes.HasSuffix(line, rest) {
			t.Errorf("behind the time of %q is %q", line, rest)
		}
	})
}
