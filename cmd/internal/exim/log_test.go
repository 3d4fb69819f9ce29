package exim

import (
	"testing"

	"mailbag/cmd/internal/mta"
	"mailbag/cmd/internal/mta/logtest"
)

var ownLog = mta.Log{MessageID: loggedID, Event: logEvent}

func TestLogIsRead(t *testing.T) { logtest.Read(t, "testdata/log.txt", ownLog) }

func FuzzLog(f *testing.F) { logtest.Fuzz(f, "testdata/log.txt", ownLog) }
