package main

import (
	"strings"
	"testing"

	"mailbag/cmd/internal/settings"
)

func TestSocketThatIsNotWhereTheSettingsSayIsFound(t *testing.T) {
	t.Parallel()
	const unheld = "warning: mailbag-turnd-tls.socket is not enabled: mailbag-turnd holds"
	tcp := func(at string) settings.Address { return settings.Address{Network: "tcp", Address: at} }
	for _, c := range []struct {
		what, active, file, listen string
		at                         settings.Address
		answers                    bool
		want, remedy               string
	}{
		{"as it should be", "active", "enabled", "[::]:6366 (Stream)", tcp("0.0.0.0:6366"), true, "", ""},
		{"one of two addresses", "active", "enabled", "192.0.2.1:99 (Stream)\n192.0.2.2:6366 (Stream)", tcp("192.0.2.2:6366"), false, "", ""},
		{"the end of another port", "active", "enabled", "[::]:16366 (Stream)", tcp("0.0.0.0:6366"), false, "failed: the settings have mailbag-turnd listen at", "systemctl edit mailbag-turnd-tls.socket"},
		{"held by a path", "active", "enabled", "/run/turnd.sock (Stream)", settings.Address{Network: "unix", Address: "/run/turnd.sock"}, false, "", ""},
		{"moved in the settings alone", "active", "enabled", "[::]:6366 (Stream)", tcp("0.0.0.0:7366"), false,
			"failed: the settings have mailbag-turnd listen at 0.0.0.0:7366, but mailbag-turnd-tls.socket does at [::]:6366", "run: systemctl stop mailbag-turnd-tls.socket mailbag-turnd; systemctl start mailbag-turnd"},
		{"held by the daemon", "inactive", "disabled", "[::]:6366 (Stream)", tcp("0.0.0.0:6366"), true, unheld, "run: systemctl enable mailbag-turnd-tls.socket; systemctl restart mailbag-turnd"},
		{"another port of the daemon's own", "inactive", "disabled", "[::]:6366 (Stream)", tcp("0.0.0.0:7366"), true, "", ""},
		{"a low port that nobody opens", "inactive", "disabled", "[::]:6366 (Stream)", tcp("0.0.0.0:99"), false,
			"failed: mailbag-turnd may not open 0.0.0.0:99 by itself, and mailbag-turnd-tls.socket is not enabled", "write ListenStream=, ListenStream=99 below [Socket]"},
		{"a low port of the unit's", "inactive", "disabled", "[::]:99 (Stream)", tcp("0.0.0.0:99"), false,
			"failed: mailbag-turnd may not open 0.0.0.0:99", "run: systemctl enable mailbag-turnd-tls.socket; systemctl restart mailbag-turnd"},
	} {
		u := unitList{"mailbag-turnd-tls.socket": {"ActiveState": c.active, "UnitFileState": c.file, "Listen": c.listen}}
		d := u.examineSocket("turnd", front{socket: "mailbag-turnd-tls.socket", at: c.at}, c.answers)
		switch {
		case c.want == "" && d == nil:
		case c.want == "" || d == nil:
			t.Errorf("%s: found %+v", c.what, d)
		case !strings.HasPrefix(string(d.Result)+": "+d.Text, c.want) || !strings.Contains(d.Remedy, c.remedy):
			t.Errorf("%s: %s: %s: %s", c.what, d.Result, d.Text, d.Remedy)
		}
	}
	if d := unitList(nil).examineSocket("turnd", front{}, false); d != nil {
		t.Errorf("without systemd: %+v", d)
	}
}
