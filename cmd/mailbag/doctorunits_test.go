package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailbag/cmd/internal/settings"
)

// TestUnitsAreJudgedByWhatSystemdSays has what systemctl show printed on a Debian 12 where all was well.
func TestUnitsAreJudgedByWhatSystemdSays(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/doctor/units")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 26, 2, 20, 0, 0, time.UTC)
	for _, c := range []struct {
		unit, property, value string
		at                    time.Time
		want, remedy          string
	}{
		{"mailbag-expire.timer", "ActiveState", "active", now, "ok: timers run", ""},
		{"mailbag-expire.timer", "ActiveState", "inactive", now, "failed: mailbag-expire.timer does not run", "run: systemctl enable --now mailbag-expire.timer"},
		{"mailbag-backup.timer", "LoadState", "masked", now, "failed: mailbag-backup.timer is masked", "run: systemctl unmask mailbag-backup.timer; systemctl enable --now mailbag-backup.timer"},
		{"mailbag-notify.timer", "UnitFileState", "disabled", now, "warning: mailbag-notify.timer is disabled", "run: systemctl enable mailbag-notify.timer"},
		{"mailbag-expire.timer", "LastTriggerUSec", "Wed 2026-11-25 20:17:00 UTC", now, "failed: mailbag-expire.timer ran last on 25 November 2026, 20:17 UTC", "run: systemctl restart mailbag-expire.timer"},
		{"mailbag-doctor.timer", "ActiveState", "inactive", now, "warning: mailbag-doctor.timer does not run: monitoring hears nothing new", "run: systemctl enable --now mailbag-doctor.timer"},
		{"mailbag-expire.service", "LoadState", "masked", now, "failed: mailbag-expire.service is masked", "run: systemctl unmask mailbag-expire.service"},
		{"mailbag-backup.service", "ActiveState", "failed", now, "failed: mailbag-backup.service failed", "systemctl start mailbag-backup"},
		{"mailbag-expire.service", "ActiveState", "activating", now.Add(5 * time.Hour), "failed: mailbag-expire.service runs since", "systemctl restart mailbag-expire"},
		{"mailbag-policyd.service", "UnitFileState", "disabled", now, "warning: mailbag-policyd.service is disabled", "run: systemctl enable mailbag-policyd.service"},
		{"postfix.service", "UnitFileState", "disabled", now, "warning: postfix.service is disabled", "run: systemctl enable postfix.service"},
		{"mailbag-standby.service", "ActiveState", "failed", now, "warning: mailbag-standby.service failed", "systemctl start mailbag-standby.service"},
	} {
		all := readUnits(string(text))
		all[c.unit][c.property] = c.value
		found := all.examine(c.at, append([]string{"postfix.service"}, daemonUnits...)...)
		at := slices.IndexFunc(found, func(d diagnosis) bool { return strings.HasPrefix(string(d.Result)+": "+d.Text, c.want) })
		if at < 0 || !strings.Contains(found[at].Remedy, c.remedy) {
			t.Errorf("%s: %s=%s: found %+v", c.unit, c.property, c.value, found)
		}
		for _, d := range found {
			for _, r := range d.readings {
				if ill := d.Text != ""; r.labels[1] == c.unit && ill != (r.value == 0) {
					t.Errorf("%s: %s=%s: the reading is %v", c.unit, c.property, c.value, r.value)
				}
			}
		}
	}
	if all := readUnits("Id=mailbag-expire.timer\nLoadState=not-found\n"); all != nil || all.examine(now, "postfix.service") != nil {
		t.Errorf("where systemd knows none of them: %v", all)
	}
}

func TestHelperWithoutItsSocketIsAnIllness(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"ActiveState=active\nLoadState=loaded":   "",
		"ActiveState=inactive\nLoadState=loaded": "run: systemctl enable --now mailbag-eximd.socket",
		"ActiveState=inactive\nLoadState=masked": "run: systemctl unmask mailbag-eximd.socket",
		"LoadState=not-found":                    "install the package again",
	} {
		all := readUnits("Id=mailbag-policyd.service\nLoadState=loaded\n\nId=mailbag-eximd.socket\n" + text + "\n")
		switch found := all.examineHelper("mailbag-eximd"); {
		case want == "" && found != nil, want != "" && (len(found) != 1 || found[0].Result != illness || !strings.HasPrefix(found[0].Remedy, want)):
			t.Errorf("%q: found %+v, want %q", text, found, want)
		}
	}
	if found := unitList(nil).examineHelper("mailbag-eximd"); found != nil {
		t.Errorf("where systemd does not run: %+v", found)
	}
}

func TestDaemonIsRevivedByWhatItsUnitsLack(t *testing.T) {
	t.Parallel()
	fronts := []front{{socket: "mailbag-pop3.socket"}, {socket: "mailbag-deliver.socket"}}
	for _, c := range []struct{ service, pop3, deliver, want string }{
		{"active", "active", "active", "run: systemctl restart mailbag-popd; what it did: journalctl -u mailbag-popd"},
		{"active", "active", "inactive", "run: systemctl stop mailbag-popd; systemctl start mailbag-popd; why it does not run"},
		{"failed", "active", "active", "run: systemctl stop mailbag-popd; systemctl start mailbag-popd; why it does not run"},
		{"active", "masked", "active", "run: systemctl unmask mailbag-pop3.socket; systemctl stop mailbag-popd; systemctl start mailbag-popd"},
	} {
		state := func(s string) unit {
			if s == "masked" {
				return unit{"LoadState": "masked", "ActiveState": "inactive"}
			}
			return unit{"LoadState": "loaded", "ActiveState": s}
		}
		u := unitList{"mailbag-popd.service": state(c.service), "mailbag-pop3.socket": state(c.pop3), "mailbag-deliver.socket": state(c.deliver)}
		if got := u.revive("mailbag-popd", fronts); !strings.HasPrefix(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if got := unitList(nil).revive("mailbag-popd", fronts); got != "start mailbag-popd, or see its log" {
		t.Errorf("without systemd: %s", got)
	}
}

// A daemon that ended for good says why, and only a start by hand brings it back.
func TestDaemonThatEndedForGoodIsToldWithItsReason(t *testing.T) {
	t.Parallel()
	nobody := front{at: settings.Address{Network: "unix", Address: filepath.Join(t.TempDir(), "none")}, ask: askPOP3}
	for _, c := range []struct{ state, status, says, want, remedy string }{
		{"failed", "78", "the settings are mistaken", "mailbag-popd ended, and nothing starts it any more: the settings are mistaken", "once that is mended, run: systemctl restart mailbag-popd"},
		{"failed", "64", "", "mailbag-popd ended, and nothing starts it any more: it did not say why", "once that is mended, run: systemctl restart mailbag-popd"},
		{"activating", "1", "its port is taken", "mailbag-popd at " + nobody.at.String() + ": nobody answers: there is no such socket; it says: its port is taken", "run: systemctl stop mailbag-popd; systemctl start mailbag-popd"},
		{"inactive", "0", "2 sessions", "mailbag-popd at " + nobody.at.String() + ": nobody answers: there is no such socket", "run: systemctl stop mailbag-popd"},
		{"activating", "9", "2 sessions", "mailbag-popd at " + nobody.at.String() + ": nobody answers: there is no such socket", "run: systemctl stop mailbag-popd"},
		{"active", "78", "2 sessions", "mailbag-popd at " + nobody.at.String() + ": nobody answers: there is no such socket", "run: systemctl restart mailbag-popd"},
	} {
		p := &patient{settings: &settings.Settings{}, units: unitList{"mailbag-popd.service": {"ActiveState": c.state, "ExecMainStatus": c.status, "StatusText": c.says}}}
		found := p.examineDaemon(t.Context(), "popd", settings.Address{}, []front{nobody})
		if len(found) != 1 || !strings.HasPrefix(found[0].Text, c.want) || !strings.HasPrefix(found[0].Remedy, c.remedy) || found[0].cause != down("mailbag-popd") || found[0].after != nil {
			t.Errorf("%+v: found %+v", c, found)
		}
		if c.says == "2 sessions" && strings.Contains(found[0].Text, c.says) {
			t.Errorf("what it says while it runs is no reason: %s", found[0].Text)
		}
	}
	ended := unit{"ActiveState": "failed", "ExecMainStatus": "78", "StatusText": "the settings are mistaken"}
	p := &patient{settings: &settings.Settings{}, units: unitList{"mailbag-policyd.service": ended, "mailbag-turnd.service": {"ActiveState": "active"}, "mailbag-popd.service": ended}}
	told := sift(slices.Concat([]diagnosis{{Part: "settings", Text: "read"}},
		p.examineDaemon(t.Context(), "policyd", settings.Address{}, []front{nobody}), p.examineDaemon(t.Context(), "popd", settings.Address{}, []front{nobody})))
	if len(told) != 2 || !strings.HasPrefix(told[1].Text, "mailbag-policyd, mailbag-popd ended") || !strings.Contains(told[1].Remedy, "run: systemctl restart mailbag-policyd mailbag-popd;") {
		t.Errorf("two for one reason: %+v", told)
	}
}
