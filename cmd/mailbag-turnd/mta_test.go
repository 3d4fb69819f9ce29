package main

import (
	"strings"
	"testing"

	"mailbag/cmd/internal/postfix"
	"mailbag/cmd/internal/settings"
	postfixtest "mailbag/testdata/postfix"
)

func TestTrialOfTheMTAFailsWhereItsMailCannotBeHad(t *testing.T) {
	in := postfixtest.Run(t, postfixtest.Config{})
	t.Setenv("MAIL_CONFIG", in.ConfigDir())
	try := func(setting string) error {
		return trial{postfix.Instance{}, setting}.Try(t.Context())
	}
	if err := try(settings.ByMTA); err != nil {
		t.Errorf("where all is well: %v", err)
	}
	if err := in.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := try(settings.ByMTA); err == nil || !strings.Contains(err.Error(), "flush(8)") {
		t.Errorf("where Postfix is stopped: %v", err)
	}
	if err := try("/nowhere/exim -M {id}"); err != nil {
		t.Errorf("a command that releases was run: %v", err)
	}
}
